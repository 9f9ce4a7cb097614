//! Stopping a process that calls from code whose table is still being made: it goes on when user
//! space has the table.
//!
//! A program that was just executed calls its allocator tens of thousands of times before its table
//! can be ready. Stopped here it is in none of its system calls, so that none of them is
//! interrupted; what is left are its parent, which may wait for it to stop, its debugger, and other
//! threads, which may be in system calls that do not survive a stop (`signal(7)`).

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{bpf_get_current_task, bpf_send_signal},
};
use tracer_ebpf::BpfSettings;

use crate::{
    kernel::{half, word},
    maps::STOPPED,
    settings,
};

/// `SIGSTOP` of x86-64 (`arch/x86/include/uapi/asm/signal.h`).
const SIGSTOP: u32 = 19;

/// Stops the process when this call is over, if that is wanted of it. User space has been told why.
///
/// A global function, so that the verifier checks it once.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn stop_for_table() -> u32 {
    let is_wanted = match settings::stop_for_code() {
        BpfSettings::STOP_NEVER => false,
        BpfSettings::STOP_UNSEEN => is_unseen(),
        _ => true,
    };
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // In the table first: whoever resumes processes must know of every one that is stopped.
    if is_wanted && STOPPED.insert(&tgid, &1, 0).is_ok() {
        // SAFETY: a helper that checks its argument. It stops the thread's whole process when this
        // call is over; one that has ended meanwhile is nothing to stop.
        unsafe { bpf_send_signal(SIGSTOP) };
    }
    0
}

/// Returns true if nobody would see the process stopped: it has one thread, nobody traces it, and
/// its parent has left it in its own process group. A shell that looks after jobs, which would take
/// the terminal from one that stops, gives each a group.
#[inline(always)]
fn is_unseen() -> bool {
    let offsets = settings::stop_offsets();
    if offsets.task_signal == 0 {
        return false;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let signal = word(task, offsets.task_signal);
    let of_parent = word(word(task, offsets.task_parent), offsets.task_signal);
    let group = word(signal, offsets.signal_group);
    group != 0
        && group == word(of_parent, offsets.signal_group)
        && half(signal, offsets.signal_threads) == 1
        && half(task, offsets.task_ptrace) == 0
}
