//! Closing links without waiting for it.
//!
//! The kernel waits for a grace period where a tracepoint loses its program, some 35 ms each, one
//! after the other for all tracepoints of the machine: whoever closes the last descriptor of ten
//! such links waits longer than a short recording takes. Links that are pinned in a BPF file system
//! are closed by a thread of the kernel's when the file system goes (`bpf_link_put` of
//! `kernel/bpf/syscall.c`). One of our own goes with its only descriptor; nobody else sees it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::compat::sys;

/// Closes links and leaves it to the kernel to wait for what that takes. Where that cannot be (a
/// mount needs `CAP_SYS_ADMIN`) this waits.
pub(super) fn close_later(links: Vec<OwnedFd>) {
    let pinned = pin(&links);
    if let Err(error) = &pinned {
        log::debug!("tracepoints are waited for: {error}");
    }
    // Before the file system, which is to have them last.
    drop(links);
    drop(pinned);
}

/// Pins links in a file system of their own, and returns its only descriptor.
fn pin(links: &[OwnedFd]) -> io::Result<OwnedFd> {
    let context = fsopen(c"bpf", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let mount = fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    for (number, link) in links.iter().enumerate() {
        let path = format!("/proc/self/fd/{}/{number}", mount.as_raw_fd());
        sys::pin(link.as_fd(), &CString::new(path).map_err(io::Error::other)?)?;
    }
    Ok(mount)
}
