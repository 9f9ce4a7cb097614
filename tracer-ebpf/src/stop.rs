//! Stopping a process until user space is ready for it: one that has no probes of its own yet, or
//! that calls from code whose table is still being made.
//!
//! A program that was just executed calls its allocator tens of thousands of times before its table
//! can be ready. Stopped here it is in none of its system calls, so that none of them is
//! interrupted; what is left are its parent, which may wait for it to stop, its debugger, and other
//! threads, which may be in system calls that do not survive a stop (`signal(7)`).

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_probe_read_kernel, bpf_probe_read_user,
    generated::{bpf_get_current_task, bpf_send_signal},
};
use tracer_ebpf::{
    BpfSettings, Comm, Loss, ProbeScope, ProcessStopRecord, RecordKind, SIGCHLD, SIGCONT, WAITS_FOR_STOPS,
    is_stop_watcher, takes_later, takes_more_child_signals,
};

use crate::{
    aggregate,
    kernel::{half, word},
    loss::count_loss,
    maps::{RECORDS, STOPPED},
    process, settings,
};

/// `SIGSTOP` of x86-64 (`arch/x86/include/uapi/asm/signal.h`).
const SIGSTOP: u32 = 19;

/// `SIG_DFL` and `SIG_IGN`.
const DEFAULT: u64 = 0;
const IGNORED: u64 = 1;

/// `SA_NOCLDSTOP`: no `SIGCHLD` for stops (`include/uapi/asm-generic/signal-defs.h`).
const NO_STOPS: u64 = 1;

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
    if !is_tree() {
        return;
    }
    report_and_stop(RecordKind::Unprobed, || {
        is_wanted(settings::stop_for_probes(), true)
    });
}

/// Tells user space of the current process, and stops it when this call is over, if `is_wanted`
/// says so and it has room in the table of those that are stopped.
#[inline(always)]
fn report_and_stop(kind: RecordKind, is_wanted: impl FnOnce() -> bool) {
    let Some(mut entry) = RECORDS.reserve::<ProcessStopRecord>(0) else {
        count_loss(Loss::ProcessRecordLost);
        return;
    };
    let is_stopped = is_wanted() && enter();
    entry.write(ProcessStopRecord {
        kind: kind as u32,
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        is_stopped: is_stopped as u32,
        reserved: 0,
    });
    // Before the stop: user space that sees a process stopped finds the reason in the ring.
    entry.submit(aggregate::record_flags(true));
    if is_stopped {
        stop();
    }
}

/// Tells user space of a process that will see when a child of it is stopped, if the system call of
/// this number, with these arguments, makes it one. The process itself is stopped, where nobody
/// sees that, until the probes are the machine's: its next call may be a fork.
///
/// Most programs handle signals, and wait for stops, before they have children, or again and again:
/// then no child is stopped that they look after.
#[inline(always)]
pub(crate) fn hold_stop_watcher_by_call(number: u32, arguments: [u64; 4]) {
    if !looks_for_watchers() {
        return;
    }
    let (watches, sees_own_stop) = match number {
        WAIT4 => (arguments[2] & WAITS_FOR_STOPS != 0, false),
        WAITID => (arguments[3] & WAITS_FOR_STOPS != 0, false),
        // The handler is in place when the stop ends.
        _ => (
            handles(arguments[0], arguments[1]),
            arguments[0] == SIGCONT as u64,
        ),
    };
    if watches && process::listed((bpf_get_current_pid_tgid() >> 32) as u32).is_some() {
        hold_stop_watcher(!sees_own_stop);
    }
}

/// Does the same for a traced process that has executed a program that is known to look after the
/// stops of its children. Returns true if it has.
#[inline(always)]
pub(crate) fn hold_stop_watcher_by_name() -> bool {
    let watches =
        looks_for_watchers() && matches!(bpf_get_current_comm(), Ok(name) if is_stop_watcher(&name));
    if watches {
        hold_stop_watcher(true);
    }
    watches
}

/// Returns true if children of the processes of a tree are stopped where nobody sees it.
#[inline(always)]
fn looks_for_watchers() -> bool {
    is_tree() && settings::follow() && settings::stop_for_probes() == BpfSettings::STOP_UNSEEN
}

#[inline(always)]
fn hold_stop_watcher(can_be_stopped: bool) {
    report_and_stop(RecordKind::StopWatcher, || can_be_stopped && is_unseen(true));
}

/// `wait4` and `waitid` (the kernel's `arch/x86/entry/syscalls/syscall_64.tbl`).
const WAIT4: u32 = 61;
const WAITID: u32 = 247;

/// Returns true if the action (`struct sigaction` of the kernel: handler and flags) that a process
/// sets for a signal would tell of the stop of a child: its own, of `SIGCHLD`, or its children's,
/// of `SIGCONT`.
#[inline(always)]
fn handles(signal: u64, action: u64) -> bool {
    let (is_child, is_cont) = (signal == SIGCHLD as u64, signal == SIGCONT as u64);
    if action == 0 || !(is_child || is_cont) {
        return false;
    }
    // SAFETY: the helper checks the address.
    let Ok([handler, flags]) = (unsafe { bpf_probe_read_user(action as *const [u64; 2]) }) else {
        return false;
    };
    let is_tolerant = || matches!(bpf_get_current_comm(), Ok(name) if takes_more_child_signals(&name));
    handler > IGNORED && (is_cont || (flags & NO_STOPS == 0 && !is_tolerant()))
}

/// Returns true while each process of a tree has probes of its own.
#[inline(always)]
fn is_tree() -> bool {
    settings::has_tree() && settings::probe_scope() == ProbeScope::Processes.number()
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
/// and other programs that start programs without looking after their stops give them one.
///
/// While the parent waits in vfork (and `posix_spawn`), it sees nothing. Otherwise it must not be a
/// program that is known to look after stops, and neither of them may see the signals of the stop
/// and of its end.
#[inline(always)]
fn is_unseen(begins: bool) -> bool {
    let offsets = settings::stop_offsets();
    if offsets.task_signal == 0 {
        return false;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    if half(task, offsets.task_ptrace) != 0 {
        return false;
    }
    let parent = word(task, offsets.task_parent);
    if word(task, offsets.task_vfork) != 0 {
        return true;
    }
    // memtap takes no notice of a stop of its command.
    if half(parent, offsets.task_tgid) == settings::own_tgid() {
        return half(word(task, offsets.task_signal), offsets.signal_threads) == 1
            && !handles_end_of_stop(task)
            && !takes_end_of_stop(task);
    }
    let Some(name) = name_of(parent) else { return false };
    // A shell blocks all signals around its waits.
    let is_tolerant = takes_more_child_signals(&name);
    if is_stop_watcher(&name)
        || handles_end_of_stop(task)
        || (!is_tolerant && (takes_end_of_stop(task) || sees_signal_of_child(parent)))
        || may_leave_orphans(parent)
    {
        return false;
    }
    let signal = word(task, offsets.task_signal);
    let of_parent = word(parent, offsets.task_signal);
    let group = word(signal, offsets.signal_group);
    let is_in_its_group = group == word(of_parent, offsets.signal_group);
    group != 0
        && (is_in_its_group || (begins && word(of_parent, offsets.signal_tty) == 0))
        && half(signal, offsets.signal_threads) == 1
        && word(word(parent, offsets.task_handlers), offsets.handler_ttou) != IGNORED
}

/// Returns true if a process handles the `SIGCONT` that resumes it.
#[inline(always)]
fn handles_end_of_stop(task: u64) -> bool {
    let offsets = settings::stop_offsets();
    word(word(task, offsets.task_handlers), offsets.handler_cont) > IGNORED
}

/// Returns true if a process has the `SIGCONT` that resumes it blocked, to take it when it wants.
#[inline(always)]
fn takes_end_of_stop(task: u64) -> bool {
    takes_later(word(task, settings::stop_offsets().task_blocked), SIGCONT)
}

/// Returns true if the end of a process may leave its process group without anybody in the session
/// who looks after it, as that of a job's first process does. If a process of the group is stopped
/// at that time, the kernel sends all of them `SIGHUP` (`kill_orphaned_pgrp` of its
/// `kernel/exit.c`).
#[inline(always)]
fn may_leave_orphans(parent: u64) -> bool {
    let offsets = settings::stop_offsets();
    let of_parent = word(parent, offsets.task_signal);
    let of_its_parent = word(word(parent, offsets.task_parent), offsets.task_signal);
    // The session follows the group in the array of ids (`enum pid_type`).
    let session = offsets.signal_group + 8;
    word(of_parent, offsets.signal_group) != word(of_its_parent, offsets.signal_group)
        && word(of_parent, session) == word(of_its_parent, session)
}

/// Returns true if a process sees the `SIGCHLD` of a child that stops: it gets one, and has it
/// blocked, to take it when it wants (`signalfd`, `sigwait`), or handles it, and takes it for the
/// end of a child.
#[inline(always)]
fn sees_signal_of_child(parent: u64) -> bool {
    let offsets = settings::stop_offsets();
    let handlers = word(parent, offsets.task_handlers);
    let handler = word(handlers, offsets.handler_chld);
    let flags = word(handlers, offsets.handler_chld + 8);
    if handler == IGNORED || flags & NO_STOPS != 0 {
        return false;
    }
    let blocked = word(parent, offsets.task_blocked) | word(parent, offsets.task_real_blocked);
    takes_later(blocked, SIGCHLD) || handler != DEFAULT
}

/// The name of a task.
#[inline(always)]
fn name_of(task: u64) -> Option<Comm> {
    let at = task + settings::stop_offsets().task_comm as u64;
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(at as *const Comm) }.ok()
}
