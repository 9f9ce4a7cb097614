//! Programs on perf events: of tracepoints, and of uprobes one by one.
//!
//! Attributes are those of `perf_event_open(2)`; those of uprobes are in the kernel's
//! `kernel/events/core.c`, `perf_uprobe`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use perf_event_open_sys::bindings::{PERF_TYPE_TRACEPOINT, perf_event_attr};

use super::loader::LoadedProgram;
use super::sys;
use crate::process::perf_event;

/// The kernel's account of its uprobe events.
const UPROBES: &str = "/sys/bus/event_source/devices/uprobe";

/// Attaches a program to a tracepoint, by its number in tracefs.
pub(in crate::bpf) fn link_tracepoint(program: &LoadedProgram, number: u64) -> io::Result<OwnedFd> {
    let mut attributes = perf_event_attr::default();
    attributes.type_ = PERF_TYPE_TRACEPOINT;
    attributes.config = number;
    // SAFETY: the attributes hold no pointers. The program runs on every CPU, whichever is named.
    let event = unsafe { perf_event::open(attributes, -1, 0) }?;
    sys::link_event(program.as_fd(), event.as_fd(), 0)
}

/// Attaches a program to one instruction of a file, or to the returns of the function that begins
/// there, in a process or (0) in all.
pub(in crate::bpf) fn link_uprobe(
    program: &LoadedProgram,
    path: &CStr,
    offset: u64,
    cookie: u64,
    pid: u32,
) -> io::Result<OwnedFd> {
    let mut attributes = perf_event_attr::default();
    attributes.type_ = number_in("type", "")?;
    if program.at_return {
        attributes.config = 1 << number_in("format/retprobe", "config:")?;
    }
    attributes.__bindgen_anon_3.uprobe_path = path.as_ptr() as u64;
    attributes.__bindgen_anon_4.probe_offset = offset;
    let (thread, cpu) = match libc::pid_t::try_from(pid).map_err(io::Error::other)? {
        0 => (-1, 0),
        thread => (thread, -1),
    };
    // SAFETY: the path lives through the call.
    let event = unsafe { perf_event::open(attributes, thread, cpu) }?;
    sys::link_event(program.as_fd(), event.as_fd(), cookie)
}

/// The number behind `prefix` in a file of the kernel's account.
fn number_in(file: &str, prefix: &str) -> io::Result<u32> {
    let text = std::fs::read_to_string(format!("{UPROBES}/{file}"))?;
    text.trim()
        .strip_prefix(prefix)
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| io::Error::other(format!("{UPROBES}/{file} is in no known form")))
}
