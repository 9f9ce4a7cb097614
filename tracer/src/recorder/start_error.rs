//! Errors that keep a recording from starting.

use std::io;

use crate::bpf::links::AttachError;
use crate::bpf::load::BpfError;
use crate::process::cgroup::CgroupError;

/// An error at the start, with advice.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A process that was named does not exist.
    #[error("there is no process {0}: it may have ended; `ps -e` lists what runs")]
    NoProcess(u32),
    /// A process ended while the probes were being attached.
    #[error("process {0} ended while memtap was attaching to it: nothing was recorded")]
    Ended(u32),
    /// The command cannot be run.
    #[error("failed to run {command}: {}", why_not_run(.error))]
    Command {
        /// Its name.
        command: String,
        /// The reason: part of the message.
        error: io::Error,
    },
    /// Nothing to attach to.
    #[error("no allocator found in {place}: {advice}")]
    NoAllocator {
        /// The place that was searched.
        place: String,
        /// The reason, and advice.
        advice: &'static str,
    },
    /// A program has an allocator that cannot be found.
    #[error(
        "{path} has {allocator} linked in, and no symbols by which its functions could be found: install its debug package (or \
         say by --debug-dir where its symbols are), use a build that is not stripped, or name functions by \
         `--symbol {path}:OFFSET=SHAPE`"
    )]
    Hidden {
        /// The program.
        path: String,
        /// The allocator.
        allocator: &'static str,
    },
    /// A function or a prefix that was named is nowhere.
    #[error(
        "failed to find {asked} in any of the {files} files with code that the target maps; `nm FILE` and `nm -D FILE` list \
         a file's functions, and `--symbol FILE:NAME=SHAPE` names a file that is loaded later"
    )]
    NotFound {
        /// The user's words.
        asked: String,
        /// The number of files that were searched.
        files: usize,
    },
    /// A file that was named cannot be read.
    #[error("failed to open {path}: {error}")]
    NoFile {
        /// The file.
        path: String,
        /// The reason: part of the message.
        error: io::Error,
    },
    /// Calls were to be followed by one probe each, and none can be.
    #[error("no allocator function was found that one probe can follow: `-v` says why; use --probes auto")]
    NoSingle,
    /// The kernel refuses its events of process life.
    #[error(
        "failed to listen to process life (perf_event_open): {0}; the kernel must be built with CONFIG_PERF_EVENTS"
    )]
    Sideband(io::Error),
    /// The kernel side.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// A probe.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The cgroup that was named cannot be traced.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// `/proc` cannot be read.
    #[error("failed to read /proc: {0}")]
    Proc(io::Error),
}

/// The meaning of an error of executing a command, and advice.
fn why_not_run(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such program; check the path, or PATH".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "it is not executable for this user; `chmod +x` makes a program executable".to_owned()
        }
        _ => error.to_string(),
    }
}
