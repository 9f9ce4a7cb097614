//! The life of processes: new ones, and those that execute another program.

use aya_ebpf::{EbpfContext as _, macros::tracepoint, programs::TracePointContext};
use aya_log_ebpf::debug;

use crate::process;

/// `CLONE_THREAD`: the new task is a thread of the same process.
const CLONE_THREAD: u64 = 0x0001_0000;

/// `task:task_newtask`: `pid` at 8, `clone_flags` at 32 (its `format` file; the same since Linux 3.4). The
/// child has not run yet, so it is known before its first allocation.
#[tracepoint]
pub(crate) fn process_fork(ctx: TracePointContext) -> u32 {
    // SAFETY: the offsets are inside the record.
    let (pid, flags) = unsafe { (ctx.read_at::<u32>(8), ctx.read_at::<u64>(32)) };
    if let (Ok(pid), Ok(flags)) = (pid, flags)
        && flags & CLONE_THREAD == 0
        && let Some(number) = process::forked(pid)
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

/// `sched:sched_process_exec`: the new program is in place and has not run yet.
#[tracepoint]
pub(crate) fn process_exec(ctx: TracePointContext) -> u32 {
    if let Some(number) = process::executed() {
        debug!(
            &ctx,
            "process {} executes another program: number {}",
            ctx.tgid(),
            number
        );
    }
    0
}
