//! Which process an event belongs to, and the life of processes.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, generated::bpf_ktime_get_ns},
};
use tracer_ebpf::{FIRST_KERNEL_PROCESS, Loss, PROCESS_UNKNOWN, Process, ProcessRecord, RecordKind};

use crate::{
    atomic, live,
    loss::lose,
    maps::{PROCESS_COUNT, PROCESSES},
    settings, tally,
};

/// The number of the current process's image; nothing if it is not a target.
#[inline(always)]
pub(crate) fn current(tgid: u32) -> Option<u32> {
    if let Some(process) = PROCESSES.get_ptr_mut(&tgid) {
        // SAFETY: the pointer is to a map value, whose fields are plain numbers.
        unsafe {
            let number = (*process).number;
            atomic::add(&raw mut (*process).hits, 1);
            if (*process).announced == 0 && announce(tgid, number, PROCESS_UNKNOWN, false) {
                (*process).announced = 1;
            }
            return Some(number);
        }
    }
    if !settings::whole_machine() || tgid == settings::own_tgid() {
        return None;
    }
    let number = enter(tgid, PROCESS_UNKNOWN, BPF_NOEXIST, false);
    count_hit(tgid);
    Some(number)
}

/// Counts a hit of a process that is in the table, of which nothing is taken in.
#[inline(always)]
pub(crate) fn count_hit(tgid: u32) {
    if let Some(process) = PROCESSES.get_ptr_mut(&tgid) {
        // SAFETY: the pointer is to a map value; the counter is only ever added to.
        unsafe { atomic::add(&raw mut (*process).hits, 1) };
    }
}

/// The number of a process that is in the table, whatever the scope.
#[inline(always)]
pub(crate) fn listed(tgid: u32) -> Option<u32> {
    // SAFETY: the value is copied at once.
    unsafe { PROCESSES.get(&tgid) }.map(|process| process.number)
}

/// Gives a process image a number and tells user space, which comes at once if it is `urgent`. `parent` is the number
/// of the image that it came from.
#[inline(always)]
pub(crate) fn enter(tgid: u32, parent: u32, flags: u32, urgent: bool) -> u32 {
    let Some(counter) = PROCESS_COUNT.get_ptr_mut(0) else {
        return PROCESS_UNKNOWN;
    };
    // SAFETY: the pointer is to a map value that is only ever added to.
    let number = FIRST_KERNEL_PROCESS.wrapping_add(unsafe { atomic::fetch_add(counter, 1) } as u32);
    let announced = u32::from(announce(tgid, number, parent, urgent));
    let process = Process {
        number,
        announced,
        hits: 0,
    };
    if PROCESSES.insert(&tgid, &process, flags as u64).is_ok() {
        return number;
    }
    // Another thread of the process was first, or the table is full.
    listed(tgid).unwrap_or(PROCESS_UNKNOWN)
}

/// Tells user space of a process image. False if the ring is full.
#[inline(always)]
fn announce(tgid: u32, number: u32, parent: u32, urgent: bool) -> bool {
    let record = ProcessRecord {
        kind: RecordKind::Process as u32,
        tgid,
        number,
        parent,
        comm: bpf_get_current_comm().unwrap_or_default(),
        // Of the image that this one takes the place of, if there is one: with it the count goes.
        // SAFETY: the value is copied at once.
        hits_before: unsafe { PROCESSES.get(&tgid) }.map_or(0, |process| process.hits),
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
    };
    let sent = tally::send_record(&record, urgent);
    if !sent {
        lose(Loss::ProcessRecordLost);
    }
    sent
}

/// The current process has executed another program. Returns the new image's number, if it is a target.
#[inline(always)]
pub(crate) fn executed() -> Option<u32> {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // A new program has code that user space may not know: its tables are begun before its first allocation.
    let urgent = settings::by_tables();
    if let Some(before) = listed(tgid) {
        if settings::live() {
            live::executed(before);
        }
        return Some(enter(tgid, before, BPF_ANY, urgent));
    }
    let wanted = settings::comm()?;
    let comm = bpf_get_current_comm().ok()?;
    same_name(&comm, &wanted).then(|| enter(tgid, PROCESS_UNKNOWN, BPF_ANY, urgent))
}

/// The current process has made a child, which has not run yet; `copies`: with copies of its memory. Returns the child's number, if it is a target.
#[inline(always)]
pub(crate) fn forked(child_tgid: u32, copies: bool) -> Option<u32> {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if let Some(parent) = listed(tgid)
        && (settings::follow() || settings::whole_machine())
    {
        let child = enter(child_tgid, parent, BPF_ANY, false);
        if copies && settings::live() {
            live::forked(parent, child);
        }
        return Some(child);
    }
    // The id may have been that of another process, whose end user space has not seen yet. Most often there is
    // nothing to remove.
    if listed(child_tgid).is_some() && PROCESSES.remove(&child_tgid).is_err() {
        lose(Loss::ProcessMapFull);
    }
    None
}

/// Compares names: `comm` is 16 bytes, padded with zeros.
#[inline(always)]
fn same_name(a: &[u8; 16], b: &[u8; 16]) -> bool {
    u128::from_ne_bytes(*a) == u128::from_ne_bytes(*b)
}
