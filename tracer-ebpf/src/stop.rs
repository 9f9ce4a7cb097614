//! Stopping a process until user space is ready for it: one that has no probes of its own yet, or
//! that calls from code whose table is still being made.
//!
//! A program that was just executed calls its allocator tens of thousands of times before its table
//! can be ready. Stopped here it is in none of its system calls, so that none of them is
//! interrupted; what is left are its parent, which may wait for it to stop, its debugger, and other
//! threads, which may be in system calls that do not survive a stop (`signal(7)`).

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid,
    generated::{bpf_get_current_task, bpf_send_signal},
};
use tracer_ebpf::{BpfSettings, Loss, ProbeScope, RecordKind, UnprobedRecord, is_stop_watcher};

use crate::{
    aggregate,
    kernel::{half, word},
    loss::count_loss,
    maps::{RECORDS, STOPPED},
    settings,
};

/// `SIGSTOP` of x86-64 (`arch/x86/include/uapi/asm/signal.h`).
const SIGSTOP: u32 = 19;

/// `SIG_IGN`.
const IGNORED: u64 = 1;

/// Stops the process when this call is over, if that is wanted of it. User space has been told why.
///
/// A global function, so that the verifier checks it once.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn stop_for_table() -> u32 {
    if is_wanted(settings::stop_for_code(), false) && enter() {
        stop();
    }
    0
}

/// Tells user space of a process that has no probes of its own yet, and stops it before it returns
/// to its code, if that is wanted of it. Where the probes are the machine's it needs none.
#[inline(always)]
pub(crate) fn stop_for_probes() {
    if settings::probe_scope() != ProbeScope::Processes.number() {
        return;
    }
    let Some(mut entry) = RECORDS.reserve::<UnprobedRecord>(0) else {
        count_loss(Loss::ProcessRecordLost);
        return;
    };
    let is_stopped = is_wanted(settings::stop_for_probes(), true) && enter();
    let record = UnprobedRecord {
        kind: RecordKind::Unprobed as u32,
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        is_stopped: is_stopped as u32,
        reserved: 0,
    };
    entry.write(record);
    // Before the stop: user space that sees a process stopped finds the reason in the ring.
    entry.submit(aggregate::record_flags(true));
    if is_stopped {
        stop();
    }
}

/// Enters the current process in the table of those that are stopped. It must be there first:
/// whoever resumes processes must know of every one. Returns false where there is no room.
#[inline(always)]
fn enter() -> bool {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    STOPPED.insert(&tgid, &1, 0).is_ok()
}

/// Stops the current process, which is in the table.
#[inline(always)]
fn stop() {
    // SAFETY: a helper that checks its argument. It stops the thread's whole process when this call
    // is over; one that has ended meanwhile is nothing to stop.
    unsafe { bpf_send_signal(SIGSTOP) };
}

/// Returns true if the current process is one that is to be stopped, by one of the `STOP_*`
/// constants; `begins`: it has not run yet.
#[inline(always)]
fn is_wanted(of: u32, begins: bool) -> bool {
    match of {
        BpfSettings::STOP_NEVER => false,
        BpfSettings::STOP_UNSEEN => is_unseen(begins),
        _ => true,
    }
}

/// Returns true if nobody would see the process stopped: it has one thread, nobody traces it, its
/// parent has left it in its own process group, and is no shell that looks after jobs, which would
/// take the terminal from one that stops: that ignores `SIGTTOU`, and gives each job a group. One
/// that `begins` may have a group of its own where there is no terminal to be taken: supervisors
/// and other programs that start programs without looking after their stops give them one. Its
/// parent must not be a program that is known to look after stops, whose name it still has. While
/// it has its parent's memory (vfork and `posix_spawn`), the parent waits in the kernel and sees
/// nothing.
#[inline(always)]
fn is_unseen(begins: bool) -> bool {
    let offsets = settings::stop_offsets();
    if offsets.task_signal == 0 {
        return false;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let parent = word(task, offsets.task_parent);
    let signal = word(task, offsets.task_signal);
    let of_parent = word(parent, offsets.task_signal);
    let group = word(signal, offsets.signal_group);
    if begins && half(task, offsets.task_ptrace) == 0 {
        let of_task = settings::offsets().task_mm;
        if of_task != 0 && word(task, of_task) == word(parent, of_task) {
            return true;
        }
        if !matches!(bpf_get_current_comm(), Ok(comm) if !is_stop_watcher(&comm)) {
            return false;
        }
    }
    let is_in_its_group = group == word(of_parent, offsets.signal_group);
    group != 0
        && (is_in_its_group || (begins && word(of_parent, offsets.signal_tty) == 0))
        && half(signal, offsets.signal_threads) == 1
        && half(task, offsets.task_ptrace) == 0
        && word(word(parent, offsets.task_handlers), offsets.handler_ttou) != IGNORED
}
