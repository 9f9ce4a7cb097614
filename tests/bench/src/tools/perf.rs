//! perf with a uprobe on malloc: a record for each call.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};

use super::{RunningTracer, SeenCalls, Tracer};
use crate::target::LoopTarget;
use test_support::{privilege, process, workspace};

/// perf with a way to take stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Perf {
    /// None are taken.
    NoStacks,
    /// By frame pointers, in the kernel.
    FramePointers,
    /// By copies of the stack, which are walked later.
    Dwarf,
}

/// The group of the event, and the event: in tracefs, where everyone sees it.
const GROUP: &str = "memtap_bench";
const EVENT: &str = "memtap_bench:malloc";

/// The file that the event is in, once it is defined.
static DEFINED: Mutex<Option<PathBuf>> = Mutex::new(None);

impl Tracer for Perf {
    fn missing(&self) -> Option<String> {
        missing()
    }

    fn attach(&self, target: &LoopTarget, directory: &Path) -> Result<RunningTracer> {
        define(target.libc())?;
        let stacks: &[&str] = match self {
            Self::NoStacks => &[],
            Self::FramePointers => &["--call-graph", "fp"],
            Self::Dwarf => &["--call-graph", "dwarf"],
        };
        let mut command = record(stacks, directory);
        command.args(["-p", &target.pid().to_string()]);
        RunningTracer::start(&mut command, directory)
    }

    fn seen(&self, directory: &Path) -> Result<SeenCalls> {
        let text = fs::read_to_string(directory.join("stderr")).context("failed to read perf's messages")?;
        samples(&text).map(SeenCalls::Calls)
    }
}

/// Returns why perf cannot run here.
pub(crate) fn missing() -> Option<String> {
    if !workspace::in_path("perf") {
        return Some("linux-perf is not installed".to_owned());
    }
    // A perf that picks the program of the running kernel's release says here that there is none.
    let version = process::output(Command::new("perf").arg("--version"), "ask perf for its version");
    version.err().map(|error| format!("{error:#}"))
}

/// `perf record` of the event that [`define`] has defined, to a file of `directory`, with more
/// arguments.
pub(crate) fn record(arguments: &[&str], directory: &Path) -> Command {
    let mut command = perf();
    command
        .args(["record", "-e", EVENT, "-o"])
        .arg(directory.join("perf.data"));
    command.args(arguments);
    command
}

/// perf as root, and in a mount namespace of its own: it mounts tracefs where that is not.
fn perf() -> Command {
    let mut command = privilege::elevated(Path::new("unshare"));
    command.args(["--mount", "perf"]);
    command
}

/// Defines the event, if it is not there. An [`EventGuard`] takes it away.
pub(crate) fn define(libc: &Path) -> Result<()> {
    let mut defined = lock();
    if defined.as_deref() == Some(libc) {
        return Ok(());
    }
    // A run that was killed may have left it.
    delete().unwrap_or_default();
    let mut command = perf();
    command.args(["probe", "-q", "-x"]).arg(libc);
    command.args(["--add", &format!("{EVENT}=malloc")]);
    process::output(&mut command, "define perf's event")?;
    *defined = Some(libc.to_path_buf());
    Ok(())
}

fn delete() -> Result<()> {
    let mut command = perf();
    command.args(["probe", "-q", "-d", &format!("{GROUP}:*")]);
    process::output(&mut command, "delete perf's event").map(drop)
}

fn lock() -> MutexGuard<'static, Option<PathBuf>> {
    DEFINED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the event away when the bench ends, whichever way.
pub(crate) struct EventGuard;

impl Drop for EventGuard {
    fn drop(&mut self) {
        if lock().take().is_some()
            && let Err(error) = delete()
        {
            eprintln!("xtask: {error:#}");
        }
    }
}

/// From `[ perf record: Captured and wrote 48.600 MB perf.data (199040 samples) ]`. Calls that it
/// lost are not among them.
pub(crate) fn samples(messages: &str) -> Result<u64> {
    let (_, rest) = messages
        .rsplit_once(" Captured and wrote ")
        .context("failed to find what perf wrote in its messages")?;
    let number = |rest: &str| {
        let (_, rest) = rest.split_once('(')?;
        rest.split_once(" samples)")?.0.parse().ok()
    };
    number(rest).context("perf captured no sample")
}

#[cfg(test)]
mod tests {
    use super::samples;

    #[test]
    fn samples_of_a_record() {
        let text = "[ perf record: Woken up 194 times to write data ]\nWarning:\nProcessed 199686 events and lost 2 \
                    chunks!\n[ perf record: Captured and wrote 48.600 MB perf.data (199040 samples) ]\n";
        assert_eq!(samples(text).ok(), Some(199_040));
        assert!(samples("[ perf record: Captured and wrote 0.010 MB perf.data ]\n").is_err());
        assert!(samples("").is_err());
    }
}
