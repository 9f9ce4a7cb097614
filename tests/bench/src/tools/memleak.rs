//! bcc's memleak, which is written for this question alone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::{RunningTracer, SeenCalls, Tracer};
use crate::target::LoopTarget;
use test_support::privilege;

/// memleak under the name that Debian gives it. It counts no calls: it tells what is left.
pub(crate) struct Memleak;

const PROGRAM: &str = "/usr/sbin/memleak-bpfcc";

/// The headers that bcc compiles its program with: those that a kernel carries, those of its
/// release.
const KERNEL_HEADERS: &str = "/sys/kernel/kheaders.tar.xz";

/// The directory in which Debian's packages put a kernel's headers, in two parts.
const SOURCES: &str = "/usr/src";

/// Puts headers where bcc looks for those of the running kernel, and tracefs where it looks for
/// that, in a mount namespace of its own: `RELEASE BUILD SOURCE COMMAND…`.
const WITH_HEADERS: &str = r#"
set -e
mount -t tmpfs tmpfs /lib/modules
mkdir "/lib/modules/$1"
ln -s "$2" "/lib/modules/$1/build"
ln -s "$3" "/lib/modules/$1/source"
[ -e /sys/kernel/tracing/uprobe_events ] || mount -t tracefs nodev /sys/kernel/tracing
shift 3
exec "$@"
"#;

/// Runs the program behind it. Python's side of bcc 0.26 passes six arguments to a function that
/// takes a seventh since 0.16 (`ref_ctr_offset`, for semaphores of tracepoints), and the kernel
/// refuses what is found in its place. An interrupt ends its sleep and not the program, which
/// prints its report then.
const WRAPPER: &str = r"
import sys, time, bcc
nap = time.sleep
def sleep(seconds):
    try: nap(seconds)
    except KeyboardInterrupt: pass
time.sleep = sleep
class Library:
    def __init__(self, inner): self.inner = inner
    def __getattr__(self, name):
        function = getattr(self.inner, name)
        return (lambda *given: function(*given, 0)) if name == 'bpf_attach_uprobe' else function
bcc.lib = Library(bcc.lib)
sys.argv = sys.argv[1:]
exec(compile(open(sys.argv[0]).read(), sys.argv[0], 'exec'))
";

/// So long that it prints when it is stopped, and so often.
const INTERVAL_S: &str = "3600";
const REPORTS: &str = "1";

/// The headers that it is compiled with.
enum Headers {
    /// Those of the running kernel, which bcc finds by itself.
    Own,
    /// Those of another one. They do: the program reads registers and nothing of the kernel's own.
    Others(Others),
}

struct Others {
    build: PathBuf,
    common: PathBuf,
}

impl Headers {
    fn find() -> Result<Self> {
        let build = format!("/lib/modules/{}/build", release()?);
        let own = [KERNEL_HEADERS, &build];
        if own.iter().any(|path| Path::new(path).exists()) {
            return Ok(Self::Own);
        }
        let found = fs::read_dir(SOURCES).into_iter().flatten().flatten();
        let mut found: Vec<Others> = found.filter_map(|entry| Others::of(&entry.path())).collect();
        found.sort_by(|one, other| one.build.cmp(&other.build));
        match found.pop() {
            Some(others) => Ok(Self::Others(others)),
            None => bail!(
                "bcc compiles with a kernel's headers: neither {} is here, nor linux-headers of another one in {SOURCES}",
                own.join(" nor ")
            ),
        }
    }
}

impl Others {
    /// Those in a directory `linux-headers-VERSION-FLAVOUR`, and what all flavours have in common
    /// beside it.
    fn of(build: &Path) -> Option<Self> {
        let (version, flavour) = build.to_str()?.rsplit_once('-')?;
        let common = PathBuf::from(format!("{version}-common"));
        let is_there = flavour != "common"
            && build.join("include/generated").is_dir()
            && common.join("include").is_dir();
        is_there.then(|| Self {
            build: build.to_owned(),
            common,
        })
    }

    fn name(&self) -> String {
        let name = self.build.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

fn release() -> Result<String> {
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("failed to ask for the kernel's release")?;
    Ok(release.trim().to_owned())
}

impl Tracer for Memleak {
    fn missing(&self) -> Option<String> {
        if !Path::new(PROGRAM).exists() {
            return Some("bpfcc-tools is not installed".to_owned());
        }
        Headers::find().err().map(|error| format!("{error:#}"))
    }

    fn note(&self) -> Option<String> {
        match Headers::find() {
            Ok(Headers::Others(others)) => Some(format!("bcc memleak is compiled with {}", others.name())),
            _ => None,
        }
    }

    fn attach(&self, target: &LoopTarget, directory: &Path) -> Result<RunningTracer> {
        let mut command = privilege::elevated(Path::new("unshare"));
        command.args(["--mount", "--"]);
        if let Headers::Others(others) = Headers::find()? {
            command.args(["sh", "-c", WITH_HEADERS, "sh", &release()?]);
            command.arg(&others.build).arg(&others.common);
        }
        command.args(["/usr/bin/python3", "-c", WRAPPER, PROGRAM]);
        command.args(["-p", &target.pid().to_string(), INTERVAL_S, REPORTS]);
        RunningTracer::start(&mut command, directory)
    }

    fn seen(&self, directory: &Path) -> Result<SeenCalls> {
        let text = fs::read_to_string(directory.join("stdout")).context("failed to read memleak's output")?;
        seen(&text)
    }
}

/// Nothing, if it reported and no block is left in its report.
fn seen(output: &str) -> Result<SeenCalls> {
    ensure!(
        output.contains("outstanding allocations"),
        "failed to find a report in memleak's output"
    );
    let left = output
        .lines()
        .find(|line| line.contains(" allocations from stack"));
    match left {
        None => Ok(SeenCalls::Nothing),
        Some(left) => anyhow::bail!("memleak has left {}, and the loop keeps none", left.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_stay_are_no_figure() {
        let report =
            "Attaching to pid 7, Ctrl+C to quit.\n[10:00:00] Top 10 stacks with outstanding allocations:\n";
        assert_eq!(seen(report).ok(), Some(SeenCalls::Nothing));
        assert!(
            seen(&format!(
                "{report}\t64 bytes in 1 allocations from stack\n\t\tmain\n"
            ))
            .is_err()
        );
        assert!(seen("Attaching to pid 7, Ctrl+C to quit.\n").is_err());
    }
}
