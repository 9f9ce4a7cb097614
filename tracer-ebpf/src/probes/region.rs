//! System calls that change the address space: mmap, munmap, mremap, brk, at entry and at return.

use aya_ebpf::{
    EbpfContext,
    bindings::pt_regs,
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_kernel,
        generated::{bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs},
    },
    macros::tracepoint,
    programs::TracePointContext,
};
use tracer_ebpf::{CaptureMode, Counter, Function, Loss, PendingRegion, STACK_LOST, Sum, SumKey};

use crate::{
    aggregate,
    loss::{count, count_loss},
    maps::PENDING,
    process, settings,
    unwind::{Slot, Start},
};

/// The system calls, by their numbers (the kernel's `arch/x86/entry/syscalls/syscall_64.tbl`).
const MMAP: u32 = 9;
const MUNMAP: u32 = 11;
const BRK: u32 = 12;
const MREMAP: u32 = 25;

/// The entry of `mmap(address, length, …)`, `munmap(address, length)`,
/// `mremap(address, old length, new length, …)` or `brk(address)`.
#[tracepoint]
pub(crate) fn region_enter(ctx: TracePointContext) -> u32 {
    let Some((process, thread)) = target() else {
        return 0;
    };
    let (function, bytes, bytes_out) = match number(&ctx) {
        MMAP => (Function::Mmap, argument(&ctx, 1), 0),
        MUNMAP => (Function::Munmap, argument(&ctx, 1), 0),
        MREMAP => (Function::Mremap, argument(&ctx, 2), argument(&ctx, 1)),
        _ => (Function::Brk, argument(&ctx, 0), current_brk()),
    };
    enter(function, process, thread, bytes, bytes_out);
    0
}

/// The return of the same call.
#[tracepoint]
pub(crate) fn region_exit(ctx: TracePointContext) -> u32 {
    let function = match number(&ctx) {
        MMAP => Function::Mmap,
        MUNMAP => Function::Munmap,
        MREMAP => Function::Mremap,
        _ => Function::Brk,
    };
    exit(&ctx, function);
    0
}

/// The number of the system call: at 8 in every `sys_enter_*` and `sys_exit_*` record.
#[inline(always)]
fn number(ctx: &TracePointContext) -> u32 {
    // SAFETY: the offset is inside the record.
    unsafe { ctx.read_at::<u32>(8) }.unwrap_or(BRK)
}

/// An argument of the system call: eight bytes each in a `sys_enter_*` record, from 16 on.
#[inline(always)]
fn argument(ctx: &TracePointContext, n: usize) -> u64 {
    // SAFETY: the offset is inside the record, which has room for six arguments whatever the call
    // takes; the helper reads it, so that the kernel does not compare it with the length that it
    // shows for each call.
    unsafe { ctx.read_at::<u64>(16 + 8 * n) }.unwrap_or(0)
}

/// The number of the current process, if it is a target, and the thread.
#[inline(always)]
fn target() -> Option<(u32, u32)> {
    let mode = settings::capture_mode();
    if mode != CaptureMode::All.number() && mode != CaptureMode::Regions.number() {
        return None;
    }
    let pid_tgid = bpf_get_current_pid_tgid();
    let process = process::current((pid_tgid >> 32) as u32)?;
    Some((process, pid_tgid as u32))
}

/// The current end of the process's heap segment.
#[inline(always)]
fn current_brk() -> u64 {
    let offsets = settings::offsets();
    // SAFETY: the helper checks the addresses; the offsets are the running kernel's own.
    unsafe {
        let task = bpf_get_current_task();
        let Ok(mm) = bpf_probe_read_kernel((task + offsets.task_mm as u64) as *const u64) else {
            return 0;
        };
        bpf_probe_read_kernel((mm + offsets.mm_brk as u64) as *const u64).unwrap_or(0)
    }
}

#[inline(always)]
fn enter(function: Function, process: u32, thread: u32, bytes: u64, bytes_out: u64) {
    count(Counter::Seen);
    let mut pending = PendingRegion {
        stack: STACK_LOST,
        bytes,
        bytes_out,
        process,
        function: function.number(),
        loss: 0,
        reserved: 0,
        reserved2: 0,
    };
    match Slot::take(thread) {
        Some(slot) => {
            pending.stack = walk(&slot, process, thread);
            aggregate::prepare(
                &slot,
                &SumKey {
                    stack: pending.stack,
                    process,
                    function: function.number(),
                },
            );
        }
        None => pending.loss = Loss::ScratchBusy as u32 + 1,
    }
    // SAFETY: the answer alone is used.
    if unsafe { PENDING.get(&thread) }.is_some() {
        // A thread that was killed inside the call had the same id.
        count_loss(Loss::UnfinishedCall);
    }
    if PENDING.insert(&thread, &pending, 0).is_err() {
        count_loss(Loss::PendingMapFull);
    }
}

/// Walks the stack of the system call that the current thread is in.
#[inline(always)]
fn walk(slot: &Slot, process: u32, thread: u32) -> u64 {
    let mut start = Start {
        thread,
        process,
        instruction: 0,
        stack_pointer: 0,
        frame_pointer: 0,
    };
    // SAFETY: the helpers give the current task's saved user registers, of which three are read:
    // all of them would take a third of the stack that all functions together have.
    let regs = unsafe {
        let regs = bpf_task_pt_regs(bpf_get_current_task_btf()) as *const pt_regs;
        (
            bpf_probe_read_kernel(&raw const (*regs).rip),
            bpf_probe_read_kernel(&raw const (*regs).rsp),
            bpf_probe_read_kernel(&raw const (*regs).rbp),
        )
    };
    match regs {
        (Ok(instruction), Ok(stack_pointer), Ok(frame_pointer)) => {
            start.instruction = instruction;
            start.stack_pointer = stack_pointer;
            start.frame_pointer = frame_pointer;
            slot.walk_from_inside(&start)
        }
        _ => slot.unreadable(&start),
    }
}

#[inline(always)]
fn exit(ctx: &TracePointContext, function: Function) {
    let thread = ctx.pid();
    // SAFETY: the value is copied before anything can change it; only this thread writes its entry.
    let Some(pending) = (unsafe { PENDING.get(&thread) }).copied() else {
        // Entered before the probes were attached, or not a target.
        return;
    };
    if PENDING.remove(&thread).is_err() {
        return;
    }
    if pending.function != function.number() {
        count_loss(Loss::UnfinishedCall);
        return;
    }
    // SAFETY: the offset of `ret` in every `sys_exit_*` record.
    let result = unsafe { ctx.read_at::<i64>(16) }.unwrap_or(-1);
    let key = SumKey {
        stack: pending.stack,
        process: pending.process,
        function: pending.function,
    };
    let amount = amount(function, &pending, result);
    if pending.loss != 0 {
        aggregate::add_without_stack(&key, &amount);
        count_loss(Loss::ScratchBusy);
    } else {
        aggregate::add_known(&key, &amount);
    }
}

/// What the call did.
#[inline(always)]
fn amount(function: Function, pending: &PendingRegion, result: i64) -> Sum {
    let mut sum = Sum {
        calls: 1,
        ..Sum::NOTHING
    };
    if function as u32 == Function::Brk as u32 {
        // brk returns where the break is now, moved or not; an address of 0 only asks.
        let (asked, before, now) = (pending.bytes, pending.bytes_out, result.cast_unsigned());
        if now > before {
            sum.bytes = now - before;
        } else {
            sum.bytes_out = before - now;
        }
        if asked != 0 && asked != now {
            sum.failed = 1;
        }
    } else if (-4095..0).contains(&result) {
        sum.failed = 1;
    } else {
        sum.bytes = pending.bytes;
        sum.bytes_out = pending.bytes_out;
    }
    sum
}
