//! tracefs without a mount that others see.
//!
//! Tracepoints are attached by number, and the numbers stand in tracefs. Where it is not mounted, a
//! thread of our own gets its own mount namespace, mounts it there, does its work and ends; the
//! machine's mounts, and those of the rest of this process, stay as they are.

use std::ffi::CStr;
use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Where tracefs belongs.
const TRACEFS: &CStr = c"/sys/kernel/tracing";

/// Its events, where it belongs and where older systems have it.
const EVENTS: [&str; 2] = ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"];

/// The directory of its events, if it can be read.
fn events() -> Option<&'static Path> {
    EVENTS.iter().map(Path::new).find(|events| events.is_dir())
}

/// Returns true if tracefs can be read.
#[must_use]
pub fn is_mounted() -> bool {
    events().is_some()
}

/// The number of a tracepoint.
pub(super) fn tracepoint_number(category: &str, name: &str) -> io::Result<u64> {
    let events = events().unwrap_or(Path::new(EVENTS[0]));
    let text = std::fs::read_to_string(events.join(category).join(name).join("id"))?;
    text.trim().parse().map_err(io::Error::other)
}

/// Does `work` where tracefs is mounted.
pub fn with_tracefs<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    if is_mounted() {
        return Ok(work());
    }
    let outcome = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                mount_privately()?;
                Ok(work())
            })
            .join()
    });
    outcome.map_err(|_panic| io::Error::other("the thread that uses tracefs panicked"))?
}

/// Gives the calling thread its own mount namespace with tracefs in it.
fn mount_privately() -> io::Result<()> {
    // SAFETY: the thread is this function's caller's own, and a mount namespace is nothing that
    // code relies on to be shared; unshare changes no other thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change(c"/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    let options = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    mount(c"tracefs", TRACEFS, c"tracefs", options, None)?;
    Ok(())
}
