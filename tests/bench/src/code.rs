//! Seeing probes come and go: the kernel writes a breakpoint into the code that a process maps, and
//! the file that the code comes from stays as it is.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::interrupt;

/// A tracer may step over a function's first instructions to one that is cheaper to probe, or
/// choose one near its end, where the result is known.
const WATCHED_BYTES: usize = 512;

const WAIT_LIMIT: Duration = Duration::from_secs(20);

/// True if any tracer has a probe there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeState {
    Absent,
    Present,
}

/// The first bytes of a function in a running process.
pub(crate) struct ProbedCode {
    memory: File,
    address: u64,
    /// The same bytes in the file.
    original: [u8; WATCHED_BYTES],
    pub(crate) file: PathBuf,
    /// The function's offset in the file.
    offset: u64,
}

impl ProbedCode {
    /// The function at `address`, which must come from a file.
    pub(crate) fn at(pid: u32, address: u64) -> Result<Self> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).context("failed to read the mappings")?;
        let (offset, file) = maps
            .lines()
            .find_map(|line| locate(line, address))
            .with_context(|| format!("failed to find the mapping of {address:#x}"))?;
        let mut original = [0; WATCHED_BYTES];
        File::open(file)
            .and_then(|file| file.read_exact_at(&mut original, offset))
            .with_context(|| format!("failed to read {file}"))?;
        let file = Path::new(file).to_path_buf();
        Self::open(pid, address, &original, file, offset)
    }

    /// The same function in another process that maps the same file.
    pub(crate) fn in_process(&self, pid: u32) -> Result<Self> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).context("failed to read the mappings")?;
        let address = maps
            .lines()
            .find_map(|line| address(line, &self.file, self.offset))
            .with_context(|| format!("failed to find {} in process {pid}", self.file.display()))?;
        Self::open(pid, address, &self.original, self.file.clone(), self.offset)
    }

    fn open(
        pid: u32,
        address: u64,
        original: &[u8; WATCHED_BYTES],
        file: PathBuf,
        offset: u64,
    ) -> Result<Self> {
        let memory =
            File::open(format!("/proc/{pid}/mem")).context("failed to open the memory of what is traced")?;
        Ok(Self {
            memory,
            address,
            original: *original,
            file,
            offset,
        })
    }

    /// Returns when probes are as wanted.
    pub(crate) fn wait(&self, wanted: ProbeState) -> Result<()> {
        let started = Instant::now();
        while self.probe()? != wanted {
            if started.elapsed() > WAIT_LIMIT {
                let seconds = WAIT_LIMIT.as_secs();
                match wanted {
                    ProbeState::Absent => bail!("failed to see malloc without a probe for {seconds} s"),
                    ProbeState::Present => bail!("failed to see a probe in malloc within {seconds} s"),
                }
            }
            interrupt::check()?;
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Returns whether there is a probe now.
    pub(crate) fn probe(&self) -> Result<ProbeState> {
        let mut current = [0; WATCHED_BYTES];
        self.memory
            .read_exact_at(&mut current, self.address)
            .context("failed to read the memory of what is traced")?;
        Ok(if current == self.original {
            ProbeState::Absent
        } else {
            ProbeState::Present
        })
    }
}

/// The offset in the file and the file's name, if this line of `/proc/PID/maps` covers the address.
fn locate(line: &str, address: u64) -> Option<(u64, &str)> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    let offset = number(fields.nth(1)?)?;
    let file = fields.nth(2).filter(|file| file.starts_with('/'))?;
    (start..end)
        .contains(&address)
        .then_some((address - start + offset, file))
}

/// Returns where this line of `/proc/PID/maps` has what stands at this offset of the file, as code.
fn address(line: &str, file: &Path, offset: u64) -> Option<u64> {
    if !line.ends_with(file.to_str()?) || !line.contains(" r-xp ") {
        return None;
    }
    let (start, rest) = line.split_once('-')?;
    let (start, end) = (
        u64::from_str_radix(start, 16).ok()?,
        u64::from_str_radix(rest.split_once(' ')?.0, 16).ok()?,
    );
    let (first, _) = locate(line, start)?;
    let address = start + offset.checked_sub(first)?;
    (address < end).then_some(address)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{address, locate};

    #[test]
    fn functions_of_files() {
        let line = "7f00000f0000-7f0000245000 r-xp 00026000 fe:00 1442312      /usr/lib/libc.so.6";
        let file = Path::new("/usr/lib/libc.so.6");
        assert_eq!(address(line, file, 0x26010), Some(0x7f00_000f_0010));
        assert_eq!(address(line, file, 0x25fff), None);
        assert_eq!(address(line, file, 0x26000 + 0x0015_5000), None);
        assert_eq!(address(line, Path::new("/usr/lib/libm.so.6"), 0x26010), None);
        assert_eq!(address(&line.replace("r-xp", "r--p"), file, 0x26010), None);
    }

    #[test]
    fn lines_of_maps() {
        let line =
            "7f00000f0000-7f0000245000 r-xp 00026000 fe:00 1442312                    /usr/lib/libc.so.6";
        assert_eq!(
            locate(line, 0x7f00_000f_0010),
            Some((0x26010, "/usr/lib/libc.so.6"))
        );
        assert_eq!(locate(line, 0x7f00_0024_5000), None);
        assert_eq!(
            locate(
                "7ffd1000-7ffd2000 rw-p 00000000 00:00 0          [stack]",
                0x7ffd_1800
            ),
            None
        );
        assert_eq!(
            locate("7ffd1000-7ffd2000 rw-p 00000000 00:00 0", 0x7ffd_1800),
            None
        );
    }
}
