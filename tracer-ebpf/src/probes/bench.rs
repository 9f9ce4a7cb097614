//! What a walk adds to a hit: programs that walk and do nothing else, beside one that does nothing.
//! For `cargo xtask bench`, which reads the time from the thread that is probed.
//!
//! All count their hits and frames in one per-CPU entry, a few instructions each, so that a walk
//! that was not done is not taken for a fast one. The program that does nothing counts nothing.

use aya_ebpf::{
    bindings::{BPF_F_USER_STACK, pt_regs},
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_stack, bpf_get_stackid},
    },
    macros::{map, uprobe},
    maps::{PerCpuArray, StackTrace},
    programs::ProbeContext,
};
use tracer_ebpf::{MAX_FRAMES, StackEnd, bench::WalkCounts};

use crate::{
    thread_stack,
    unwind::{Slot, Start},
};

/// What the walks came to. Written here, read by the loader.
#[map]
static WALKS: PerCpuArray<WalkCounts> = PerCpuArray::with_max_entries(1, 0);

/// Stacks that the kernel's own walk found, kept as other tracers have it keep them.
#[map]
static KERNEL_STACKS: StackTrace = StackTrace::with_max_entries(1024, 0);

/// Room for a stack that the kernel's own walk copies.
#[map]
static KERNEL_STACK: PerCpuArray<[u64; MAX_FRAMES]> = PerCpuArray::with_max_entries(1, 0);

/// The number of the process that all walks are of: there is one target, and no table of processes.
const PROCESS: u32 = 1;

/// Returns at once.
#[uprobe]
pub(crate) fn bench_empty(_: ProbeContext) -> u32 {
    0
}

/// The kernel's walk by frame pointers, and its table of stacks.
#[uprobe]
pub(crate) fn bench_stackid(ctx: ProbeContext) -> u32 {
    let map = (&raw const KERNEL_STACKS).cast_mut().cast();
    // SAFETY: the context is this program's own, and the map is of the kind that the helper wants.
    let id = unsafe { bpf_get_stackid(ctx.regs.cast(), map, BPF_F_USER_STACK as u64) };
    // The loader reads from the map how many frames there are.
    add(0, id < 0);
    0
}

/// The kernel's walk by frame pointers alone, into memory.
#[uprobe]
pub(crate) fn bench_stack(ctx: ProbeContext) -> u32 {
    let Some(stack) = KERNEL_STACK.get_ptr_mut(0) else {
        return 0;
    };
    let bytes = size_of::<[u64; MAX_FRAMES]>() as u32;
    // SAFETY: the context is this program's own, and the value has room for so many bytes.
    let written = unsafe { bpf_get_stack(ctx.regs.cast(), stack.cast(), bytes, BPF_F_USER_STACK as u64) };
    let bytes = if written < 0 { 0 } else { written.cast_unsigned() };
    add(bytes / 8, written < 0);
    0
}

/// memtap's walk, of a stack that it does not know.
#[uprobe]
pub(crate) fn bench_fresh(ctx: ProbeContext) -> u32 {
    walk(&ctx, true);
    0
}

/// memtap's walk, of the stack that it has walked last.
#[uprobe]
pub(crate) fn bench_remembered(ctx: ProbeContext) -> u32 {
    walk(&ctx, false);
    0
}

#[inline(always)]
fn walk(ctx: &ProbeContext, fresh: bool) {
    thread_stack::require(ctx);
    // SAFETY: the context of a uprobe is the thread's registers, which outlive the program.
    let regs: &pt_regs = unsafe { &*ctx.regs };
    let thread = bpf_get_current_pid_tgid() as u32;
    let Some(slot) = Slot::take(thread) else {
        add(0, true);
        return;
    };
    if fresh {
        slot.evict();
    }
    // The loader places the probe at the function's first instruction: nothing has been pushed.
    let start = Start {
        thread,
        process: PROCESS,
        instruction: regs.rip,
        stack_pointer: regs.rsp,
        frame_pointer: regs.rbp,
    };
    let Some(return_address) = slot.look(regs, 0) else {
        add(0, true);
        return;
    };
    slot.walk_from_entry(&start, return_address);
    // SAFETY: the slot is ours.
    let (frames, end) = unsafe {
        let header = &raw const (*slot.scratch()).record.header;
        ((*header).frames_len as u64, (*header).end as u32)
    };
    add(frames, end != StackEnd::Complete as u32);
}

/// Counts a walk. Plain additions: the probe is in one process of one thread, which nothing
/// interleaves with.
#[inline(always)]
fn add(frames: u64, failed: bool) {
    let Some(walks) = WALKS.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the pointer is to a map value, whose fields are plain numbers.
    unsafe {
        (*walks).hits += 1;
        (*walks).frames += frames;
        (*walks).failed += u64::from(failed);
    }
}
