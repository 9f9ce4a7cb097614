//! The table of traced processes: the process image of an event, and forks, execs and exits.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers,
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_kernel,
        generated::{bpf_get_current_comm, bpf_get_current_task, bpf_ktime_get_ns},
    },
};
use tracer_ebpf::{
    FIRST_KERNEL_PROCESS, Loss, PROCESS_UNKNOWN, Process, ProcessRecord, RecordKind, is_same_comm,
};

use crate::{
    aggregate, atomic, heap,
    loss::count_loss,
    maps::{CGROUP, PROCESS_COUNT, PROCESSES, RECORDS},
    process_counts, settings,
};

/// The number of the current process's image; nothing if it is not a target.
#[inline(always)]
pub(crate) fn current(tgid: u32) -> Option<u32> {
    if let Some(process) = PROCESSES.get_ptr_mut(&tgid) {
        // SAFETY: the pointer is to a map value, whose fields are plain numbers.
        unsafe {
            let number = (*process).number;
            add_hit(process);
            if (*process).announced != Process::ANNOUNCED
                && announce(tgid, number, PROCESS_UNKNOWN, own_number(), false)
            {
                (*process).announced = Process::ANNOUNCED;
            }
            return Some(number);
        }
    }
    if !is_in_scope() || tgid == settings::own_tgid() {
        return None;
    }
    let number = enter(tgid, PROCESS_UNKNOWN, Whose::Own, BPF_NOEXIST, false);
    count_hit(tgid);
    Some(number)
}

/// Counts a hit of a process, for this CPU if that can be.
///
/// # Safety
/// `process` must point to a value of `PROCESSES`.
#[inline(always)]
unsafe fn add_hit(process: *mut Process) {
    // SAFETY: the caller's promise; the counter is only ever added to.
    unsafe {
        if !process_counts::count_hit((*process).number) {
            atomic::add(&raw mut (*process).hits, 1);
        }
    }
}

/// Returns true if the current process is in scope though it is not in the table yet.
#[inline(always)]
fn is_in_scope() -> bool {
    settings::whole_machine() || is_in_cgroup()
}

/// Returns true if a cgroup is traced and the current process is in it or below it.
#[inline(always)]
fn is_in_cgroup() -> bool {
    settings::whole_cgroup() && CGROUP.current_task_under_cgroup(0) == Ok(true)
}

/// The size of `struct upid` in the kernel's `include/linux/pid.h`, which begins with the number.
const UPID_BYTES: u64 = 16;

/// The number of the current process in its own pid namespace; 0 where it cannot be told.
#[inline(always)]
fn own_number() -> u32 {
    let offsets = settings::offsets();
    if offsets.task_pid == 0 {
        return 0;
    }
    // SAFETY: the helpers check the addresses; the offsets are the running kernel's own.
    unsafe {
        let task = bpf_get_current_task();
        let Ok(leader) = bpf_probe_read_kernel((task + offsets.task_leader as u64) as *const u64) else {
            return 0;
        };
        let Ok(pid) = bpf_probe_read_kernel((leader + offsets.task_pid as u64) as *const u64) else {
            return 0;
        };
        let Ok(level) = bpf_probe_read_kernel((pid + offsets.pid_level as u64) as *const u32) else {
            return 0;
        };
        let number = pid + offsets.pid_numbers as u64 + UPID_BYTES * level as u64;
        bpf_probe_read_kernel(number as *const u32).unwrap_or(0)
    }
}

/// The relation of a new process image to the current process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// It is the current process's.
    Own,
    /// It is that of a child that has not run yet.
    Child,
}

/// Counts a hit, if the process is in the table.
#[inline(always)]
pub(crate) fn count_hit(tgid: u32) {
    if let Some(process) = PROCESSES.get_ptr_mut(&tgid) {
        // SAFETY: the pointer is to a value of the table.
        unsafe { add_hit(process) };
    }
}

/// The number of a process that is in the table, whatever the scope.
#[inline(always)]
pub(crate) fn listed(tgid: u32) -> Option<u32> {
    // SAFETY: the value is copied at once.
    unsafe { PROCESSES.get(&tgid) }.map(|process| process.number)
}

/// Gives a process image a number and tells user space, which comes at once if it is `urgent`.
/// `parent` is the number of the image that it came from.
#[inline(always)]
fn enter(tgid: u32, parent: u32, whose: Whose, flags: u32, urgent: bool) -> u32 {
    let Some(counter) = PROCESS_COUNT.get_ptr_mut(0) else {
        return PROCESS_UNKNOWN;
    };
    // SAFETY: the pointer is to a map value that is only ever added to.
    let number = FIRST_KERNEL_PROCESS.wrapping_add(unsafe { atomic::fetch_add(counter, 1) } as u32);
    let (inner_pid, known) = match whose {
        Whose::Own => (own_number(), Process::ANNOUNCED),
        Whose::Child => (0, Process::ANNOUNCED_BY_PARENT),
    };
    let process = Process {
        number,
        announced: if announce(tgid, number, parent, inner_pid, urgent) {
            known
        } else {
            Process::ANNOUNCED_NOT
        },
        hits: 0,
    };
    if PROCESSES.insert(&tgid, &process, flags as u64).is_ok() {
        return number;
    }
    // Another thread of the process was first, or the table is full.
    listed(tgid).unwrap_or(PROCESS_UNKNOWN)
}

/// Tells user space of a process image. False if the ring is full. The record is put together in
/// the ring: Linux 6.1 has no room for it on the stacks of the programs that walk.
#[inline(always)]
fn announce(tgid: u32, number: u32, parent: u32, inner_pid: u32, urgent: bool) -> bool {
    // Of the image that this one takes the place of, if there is one: with it goes what no CPU has
    // counted by itself.
    // SAFETY: the value is copied at once.
    let hits_before = unsafe { PROCESSES.get(&tgid) }.map_or(0, |process| process.hits);
    let Some(mut entry) = RECORDS.reserve::<ProcessRecord>(0) else {
        count_loss(Loss::ProcessRecordLost);
        return false;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved bytes are this program's own until they are submitted, and every field
    // is written.
    unsafe {
        (&raw mut (*record).kind).write(RecordKind::Process as u32);
        (&raw mut (*record).tgid).write(tgid);
        (&raw mut (*record).number).write(number);
        (&raw mut (*record).parent).write(parent);
        (&raw mut (*record).time_ns).write(bpf_ktime_get_ns());
        (&raw mut (*record).hits_before).write(hits_before);
        (&raw mut (*record).inner_pid).write(inner_pid);
        (&raw mut (*record).reserved).write(0);
        // It writes all bytes, whatever it answers.
        let comm = (&raw mut (*record).comm).cast::<core::ffi::c_void>();
        bpf_get_current_comm(comm, size_of::<[u8; 16]>() as u32);
    }
    entry.submit(aggregate::record_flags(urgent));
    true
}

/// The current process has executed another program. Returns the new image's number, if it is a
/// target.
#[inline(always)]
pub(crate) fn executed() -> Option<u32> {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // A new program has code that user space may not know: its tables are begun before its first
    // allocation.
    let urgent = settings::by_tables();
    if let Some(before) = listed(tgid) {
        if settings::live() {
            heap::executed(before);
        }
        // Who starts the programs of other cgroups moves its children there before they execute
        // them.
        if settings::whole_cgroup() && !is_in_cgroup() {
            leave(tgid, before);
            return None;
        }
        return Some(enter(tgid, before, Whose::Own, BPF_ANY, urgent));
    }
    if settings::whole_cgroup() {
        return (is_in_cgroup() && tgid != settings::own_tgid())
            .then(|| enter(tgid, PROCESS_UNKNOWN, Whose::Own, BPF_ANY, urgent));
    }
    let wanted = settings::comm()?;
    let comm = helpers::bpf_get_current_comm().ok()?;
    is_same_comm(&comm, &wanted).then(|| enter(tgid, PROCESS_UNKNOWN, Whose::Own, BPF_ANY, urgent))
}

/// The current process is a target no more. Its last image was `before`.
#[inline(always)]
fn leave(tgid: u32, before: u32) {
    announce(tgid, PROCESS_UNKNOWN, before, 0, false);
    remove(tgid);
}

/// Takes a process out of the table, in which it is.
#[inline(always)]
fn remove(tgid: u32) {
    if PROCESSES.remove(&tgid).is_err() {
        count_loss(Loss::ProcessMapFull);
    }
}

/// The current process has made a child, which has not run yet; `copies`: with copies of its
/// memory; `elsewhere`: in a cgroup that was named. Returns the child's number, if it is a target.
#[inline(always)]
pub(crate) fn forked(child_tgid: u32, copies: bool, elsewhere: bool) -> Option<u32> {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if let Some(parent) = listed(tgid)
        && (settings::follow() || settings::whole_machine() || (is_in_cgroup() && !elsewhere))
    {
        let child = enter(child_tgid, parent, Whose::Child, BPF_ANY, false);
        if copies && settings::live() {
            heap::forked(parent, child);
        }
        return Some(child);
    }
    // The id may have been that of another process, whose end user space has not seen yet. Most
    // often there is nothing to remove.
    if listed(child_tgid).is_some() {
        remove(child_tgid);
    }
    None
}
