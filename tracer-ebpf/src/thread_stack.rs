//! Keeping a uprobe program's variables on the thread's own kernel stack.
//!
//! Since Linux 6.13 the JIT compiler gives programs of the kprobe type a stack of their own, one
//! per program and CPU (`bpf_enable_priv_stack` in the kernel's `kernel/bpf/verifier.c`), since
//! such a program is never entered twice on a CPU. That holds for kprobes and not for uprobes:
//! `bpf_prog_run_array_uprobe` counts no entries, and a uprobe program can be preempted by another
//! thread's. Both then write to the same stack, and the first goes on with the other's pointers:
//! the kernel dies (seen on 7.2 with four threads on two CPUs).
//!
//! A program with a tail call gets no such stack. The verifier counts tail calls before it looks at
//! what can be reached, so that one which is never reached does.

use aya_ebpf::programs::ProbeContext;

use crate::{bounds::opaque, maps::NO_PROGRAMS};

/// Has to be in every program that can be preempted by itself. Does nothing: the verifier takes it
/// out.
#[inline(always)]
pub(crate) fn require(ctx: &ProbeContext) {
    // The verifier knows that this is 0; LLVM must not, or there would be no call.
    if opaque(0) != 0 {
        // SAFETY: the context is this program's own. It is never reached, and the array is empty.
        unsafe { NO_PROGRAMS.tail_call(ctx, 0) };
    }
}
