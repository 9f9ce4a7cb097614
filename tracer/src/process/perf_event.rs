//! Opening perf events.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use perf_event_open_sys::bindings::{PERF_FLAG_FD_CLOEXEC, PERF_TYPE_SOFTWARE, perf_event_attr};

/// Opens a software event of a thread (-1: of all), on a CPU (-1: on any). `set` fills in what else
/// is wanted of it.
pub(super) fn open_software(
    event: u32,
    thread: libc::pid_t,
    cpu: i32,
    set: impl FnOnce(&mut perf_event_attr),
) -> io::Result<OwnedFd> {
    let mut attributes = perf_event_attr::default();
    attributes.type_ = PERF_TYPE_SOFTWARE;
    attributes.config = u64::from(event);
    set(&mut attributes);
    // SAFETY: a software event's attributes hold no pointers.
    unsafe { open(attributes, thread, cpu) }
}

/// Opens an event of a thread (-1: of all), on a CPU (-1: on any).
///
/// # Safety
///
/// Pointers in the attributes must be valid.
pub(crate) unsafe fn open(
    mut attributes: perf_event_attr,
    thread: libc::pid_t,
    cpu: i32,
) -> io::Result<OwnedFd> {
    attributes.size = u32::try_from(size_of::<perf_event_attr>()).map_err(io::Error::other)?;
    // SAFETY: the attributes live through the call; their pointers are the caller's to ensure.
    let fd = unsafe {
        perf_event_open_sys::perf_event_open(
            &raw mut attributes,
            thread,
            cpu,
            -1,
            u64::from(PERF_FLAG_FD_CLOEXEC),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
