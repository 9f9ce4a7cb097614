//! The host's root file system for the guest: virtiofsd.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use test_support::child::{ChildGuard, Scope};

use super::run_directory::RunDirectory;

/// The paths at which Debian's packages put it: with QEMU up to bookworm, by itself from trixie on.
const PLACES: [&str; 2] = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];

/// The server's program, if it is here.
pub(super) fn program() -> Option<&'static Path> {
    PLACES.iter().map(Path::new).find(|path| path.is_file())
}

/// The server that gives the guest the host's root file system; stopped when it is dropped.
pub(super) struct FileShare {
    server: ChildGuard,
}

impl FileShare {
    /// Starts it, with its socket in `directory`; it is killed after `limit`.
    pub(super) fn start(directory: &RunDirectory, limit: Duration) -> Result<Self> {
        const WAIT: Duration = Duration::from_secs(10);
        let program = program().context("failed to find virtiofsd")?;
        let log = directory.file("share.log")?;
        let mut command = directory.limited(program, limit);
        // The guest's caches may keep what they have: nothing that it uses changes meanwhile.
        command
            .arg(format!("--socket-path={}", directory.socket()))
            .args(["-o", "source=/,cache=always,sandbox=chroot"])
            .stdout(log.try_clone().context("failed to share the log")?)
            .stderr(log);
        // It ends by itself when QEMU does.
        let server = ChildGuard::spawn(&mut command, Scope::Process)?.ask_first(Signal::TERM, WAIT);
        let mut share = Self { server };
        let deadline = Instant::now() + WAIT;
        while !directory.has(&directory.socket()) {
            let has_ended = share.server.status()?.is_some();
            if has_ended || Instant::now() > deadline {
                bail!(
                    "failed to share the root file system: virtiofsd {}: {}",
                    if has_ended { "ended" } else { "is not ready" },
                    directory.read("share.log").trim()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(share)
    }
}
