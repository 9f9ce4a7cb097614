//! The life of processes: new ones, and those that execute another program.

use aya_ebpf::{
    EbpfContext as _, helpers::bpf_get_current_pid_tgid, macros::tracepoint, programs::TracePointContext,
};
use aya_log_ebpf::debug;

use crate::{atomic, heap, maps::GENERATION, process, settings, stop, unwind};

/// `CLONE_THREAD`: the new task is a thread of the same process.
const CLONE_THREAD: u64 = 0x0001_0000;

/// `CLONE_VM`: the child has its parent's memory, not a copy of it.
const CLONE_VM: u64 = 0x0000_0100;

/// `CLONE_INTO_CGROUP`: the child is in a cgroup that the caller of `clone3` names.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `task:task_newtask`: `pid` at 8, `clone_flags` at 32 (its `format` file; the same since Linux
/// 3.4). The child has not run yet, so it is known before its first allocation.
#[tracepoint]
pub(crate) fn process_fork(ctx: TracePointContext) -> u32 {
    // SAFETY: the offsets are inside the record.
    let (pid, flags) = unsafe { (ctx.read_at::<u32>(8), ctx.read_at::<u64>(32)) };
    if let (Ok(pid), Ok(flags)) = (pid, flags)
        && flags & CLONE_THREAD == 0
        && let Some(number) = process::forked(pid, flags & CLONE_VM == 0, flags & CLONE_INTO_CGROUP != 0)
    {
        debug!(
            &ctx,
            "process {} was made by {}: number {}",
            pid,
            ctx.tgid(),
            number
        );
    }
    0
}

/// `syscalls:sys_exit_clone` and its kin: `ret` at 16. A child comes through it with 0, before its
/// first instruction; so does a thread.
#[tracepoint]
pub(crate) fn child_begins(ctx: TracePointContext) -> u32 {
    let pid_tgid = bpf_get_current_pid_tgid();
    let tgid = (pid_tgid >> 32) as u32;
    // SAFETY: the offset is inside the record.
    if unsafe { ctx.read_at::<i64>(16) } == Ok(0)
        && tgid == pid_tgid as u32
        && process::listed(tgid).is_some()
    {
        stop::stop_for_probes();
    }
    0
}

/// `syscalls:sys_enter_wait4`, `sys_enter_waitid`, `sys_enter_rt_sigaction`: the call's number at
/// 8, its arguments from 16 on. They tell of parents that would see a child stopped.
#[tracepoint]
pub(crate) fn stop_watcher(ctx: TracePointContext) -> u32 {
    // SAFETY: the offsets are inside the record, which has room for six arguments whatever the call
    // takes.
    let (number, arguments) = unsafe { (ctx.read_at::<u32>(8), ctx.read_at::<[u64; 4]>(16)) };
    if let (Ok(number), Ok(arguments)) = (number, arguments) {
        stop::hold_stop_watcher_by_call(number, arguments);
    }
    0
}

/// `sched:sched_process_exec`: the new program is in place and has not run yet. `old_pid` at 16:
/// the thread that executes it, which becomes the process's first.
#[tracepoint]
pub(crate) fn process_exec(ctx: TracePointContext) -> u32 {
    let is_unprobed = settings::has_tree() && !has_probes(&ctx);
    if let Some(number) = process::executed() {
        let is_held = stop::hold_stop_watcher_by_name();
        if is_unprobed && !is_held {
            stop::stop_for_probes();
        }
        debug!(
            &ctx,
            "process {} executes another program: number {}",
            ctx.tgid(),
            number
        );
    }
    0
}

/// Returns true if a process of a tree keeps its probes as it executes a program: it has some, and
/// the thread that executes is its first, with which they would end.
#[inline(always)]
fn has_probes(ctx: &TracePointContext) -> bool {
    let pid_tgid = bpf_get_current_pid_tgid();
    // SAFETY: the offset is inside the record.
    let is_first = unsafe { ctx.read_at::<u32>(16) } == Ok(pid_tgid as u32);
    is_first && process::listed((pid_tgid >> 32) as u32).is_some()
}

/// `sched:sched_process_exit`: a thread ends. With its leader a process ends, but for those whose
/// leader goes first.
#[tracepoint]
pub(crate) fn process_exit(_ctx: TracePointContext) -> u32 {
    let pid_tgid = bpf_get_current_pid_tgid();
    let tgid = (pid_tgid >> 32) as u32;
    if tgid == pid_tgid as u32
        && let Some(number) = process::listed(tgid)
    {
        heap::exited(number);
    }
    0
}

/// `syscalls:sys_enter_munmap`: `addr` at 16, `len` at 24. Where code goes away other code may
/// come, at the same addresses: what is kept of mappings must be asked again. Other memory comes
/// and goes all the time.
#[tracepoint]
pub(crate) fn code_unmapped(ctx: TracePointContext) -> u32 {
    let Some(process) = process::listed((bpf_get_current_pid_tgid() >> 32) as u32) else {
        return 0;
    };
    // SAFETY: the offsets are inside the record.
    let (start, len) = unsafe { (ctx.read_at::<u64>(16), ctx.read_at::<u64>(24)) };
    if let (Ok(start), Ok(len)) = (start, len)
        && unwind::may_have_cached(process, start, len)
        && let Some(generation) = GENERATION.get_ptr_mut(0)
    {
        // SAFETY: the pointer is to a map value that is only ever added to.
        unsafe { atomic::add(generation, 1) };
    }
    0
}
