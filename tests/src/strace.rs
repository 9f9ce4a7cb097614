//! The second opinion on memory-map calls: strace.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::{Context, Region, run};

const CALLS: &str = "trace=mmap,munmap,mremap,brk";

/// The report of strace on a command and its threads and children.
#[derive(Debug, Clone)]
pub struct Strace {
    /// By function.
    pub regions: BTreeMap<String, Region>,
}

impl Strace {
    /// Runs a command under strace.
    pub fn of(context: &Context, command: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let words = Self::command(dir.path(), command)?;
        let mut strace = context.privileged(&words[0]);
        strace.args(&words[1..]);
        run(strace)?.succeeded()?;
        Self::read(dir.path())
    }

    /// The words that run a command under `strace -ff`, which leaves a file for each thread in a
    /// directory: so no call is written in two halves.
    pub fn command(dir: &Path, command: &[&str]) -> Result<Vec<String>> {
        let files = dir.join("calls");
        let files = files.to_str().context("not a plain path")?;
        let words = ["strace", "-ff", "-e", CALLS, "-o", files, "--"];
        Ok(words.iter().chain(command).map(ToString::to_string).collect())
    }

    /// Reads the files. Breaks are followed within a thread: programs that move the break from
    /// several are not for this.
    pub fn read(dir: &Path) -> Result<Self> {
        let mut regions = BTreeMap::new();
        for file in std::fs::read_dir(dir)? {
            add_calls(&std::fs::read_to_string(file?.path())?, &mut regions)?;
        }
        ensure!(!regions.is_empty(), "strace saw no call");
        Ok(Self { regions })
    }

    /// Runs a command under `strace -f -c`: calls and errors by function, as its table has them.
    pub fn table(context: &Context, command: &[&str]) -> Result<BTreeMap<String, (u64, u64)>> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("table");
        let mut strace = context.privileged("strace");
        strace.args(["-f", "-c", "-e", CALLS, "-o"]).arg(&file);
        strace.arg("--").args(command);
        run(strace)?.succeeded()?;
        let mut table = BTreeMap::new();
        for line in std::fs::read_to_string(&file)?.lines() {
            // % time, seconds, usecs/call, calls, errors where there are some, syscall
            let words: Vec<_> = line.split_whitespace().collect();
            let (calls, errors, name) = match words[..] {
                [_, _, _, calls, name] => (calls, "0", name),
                [_, _, _, calls, errors, name] => (calls, errors, name),
                _ => continue,
            };
            if let (Ok(calls), Ok(errors), true) = (calls.parse(), errors.parse(), name != "total") {
                table.insert(name.to_owned(), (calls, errors));
            }
        }
        ensure!(!table.is_empty(), "strace -c saw no call");
        Ok(table)
    }
}

/// System calls of the kernel's own code for probes that it has sped up (`uretprobe` and `uprobe`
/// of its `arch/x86/entry/syscalls/syscall_64.tbl`), as strace names them that does not know them.
/// They are no calls of the program.
const OF_PROBES: [&str; 4] = ["uretprobe", "uprobe", "syscall_0x14f", "syscall_0x150"];

fn add_calls(text: &str, regions: &mut BTreeMap<String, Region>) -> Result<()> {
    let mut last_break = None;
    for line in text.lines().filter(|line| !line.starts_with(['+', '-'])) {
        let parts = line
            .split_once('(')
            .and_then(|(name, rest)| Some((name, rest.rsplit_once(") ")?)));
        let (name, (arguments, result)) = parts.with_context(|| format!("not a line of strace: {line}"))?;
        if OF_PROBES.contains(&name) {
            continue;
        }
        let arguments: Vec<_> = arguments.split(", ").collect();
        let result = result.trim_start().trim_start_matches("= ");
        let region = regions.entry(name.to_owned()).or_default();
        region.calls += 1;
        if result.starts_with("-1 ") {
            region.failed += 1;
            continue;
        }
        let bytes = |at: usize| -> Result<u64> {
            let text = arguments.get(at).copied().unwrap_or_default();
            text.parse()
                .with_context(|| format!("argument {at} of {line} is not a size"))
        };
        match name {
            "mmap" | "munmap" => region.bytes += bytes(1)?,
            "mremap" => {
                let (old, new) = (bytes(1)?, bytes(2)?);
                region.bytes += new;
                region.old_bytes += old;
            }
            "brk" => {
                let now = address(result).with_context(|| format!("no address: {line}"))?;
                let wanted = address(arguments[0]);
                region.failed += u64::from(wanted.is_some_and(|wanted| wanted != now));
                let before: u64 = last_break.replace(now).unwrap_or(now);
                region.grown_bytes += now.saturating_sub(before);
                region.shrunk_bytes += before.saturating_sub(now);
            }
            other => anyhow::bail!("strace shows {other}, which was not asked for"),
        }
    }
    Ok(())
}

/// An address in hexadecimal; nothing for `NULL`.
fn address(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::add_calls;
    use crate::Region;

    #[test]
    fn adds_up_calls() -> anyhow::Result<()> {
        let text = "\
brk(NULL)                               = 0x1000
mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000
brk(0x4000)                             = 0x4000
brk(0x3000)                             = 0x3000
brk(0xff00000000)                       = 0x3000
mremap(0x7f0000000000, 8192, 4096, 0)   = 0x7f0000000000
munmap(0x1, 4096)                       = -1 EINVAL (Invalid argument)
+++ exited with 0 +++
";
        let mut regions = BTreeMap::new();
        add_calls(text, &mut regions)?;
        let brk = Region {
            calls: 4,
            failed: 1,
            grown_bytes: 0x3000,
            shrunk_bytes: 0x1000,
            ..Region::default()
        };
        assert_eq!(regions["brk"], brk);
        assert_eq!(regions["mmap"].bytes, 8192);
        assert_eq!(regions["mremap"].old_bytes, 8192);
        assert_eq!(regions["mremap"].bytes, 4096);
        assert_eq!((regions["munmap"].failed, regions["munmap"].bytes), (1, 0));
        Ok(())
    }
}
