//! Where blocks are followed: the returns of allocators, and `free`.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use tracer_ebpf::{CallKey, Counter, Loss, ProbeSite, TailCall, TailKey};

use super::alloc::{called_by_allocator, regs};
use super::hit::{self, Hit};
use crate::{
    heap,
    loss::{count, lose},
    settings, tail_call, thread_stack,
};

/// A function that returns the block.
#[uretprobe]
#[inline(always)]
pub(crate) fn return_block(ctx: RetProbeContext) -> u32 {
    finish(&ctx, |_, result| result)
}

/// `posix_memalign`, which returns an error or puts the block where it was told.
#[uretprobe]
#[inline(always)]
pub(crate) fn return_out(ctx: RetProbeContext) -> u32 {
    finish(&ctx, |call, status| {
        if status as u32 == 0 {
            // SAFETY: the helper checks the user's address.
            unsafe { bpf_probe_read_user(call.out as *const u64) }.unwrap_or(0)
        } else {
            0
        }
    })
}

/// `xallocx`, which returns the size that the block has now: less than was asked for means that nothing was changed.
#[uretprobe]
#[inline(always)]
pub(crate) fn return_size(ctx: RetProbeContext) -> u32 {
    finish(
        &ctx,
        |call, size| if size >= call.bytes { call.old_address } else { 0 },
    )
}

#[inline(always)]
fn finish(ctx: &RetProbeContext, result: impl FnOnce(&tracer_ebpf::PendingCall, u64) -> u64) -> u32 {
    let entry = ProbeContext { regs: ctx.regs };
    thread_stack::require(&entry);
    let regs = regs(&entry);
    // The return has taken its address off the stack.
    let place = CallKey {
        stack_pointer: regs.rsp - 8,
        thread: bpf_get_current_pid_tgid() as u32,
        reserved: 0,
    };
    let returned = regs.rax;
    heap::finish(&place, |call| result(call, returned));
    0
}

/// `free(p)`
#[uprobe]
#[inline(always)]
pub(crate) fn free_block(ctx: ProbeContext) -> u32 {
    thread_stack::require(&ctx);
    if !hit::begin(&ctx, None) {
        return 0;
    }
    if !settings::live() {
        // It is here to be counted alone.
        hit::pass_over();
    } else if let Err(loss) = try_free(&ctx) {
        lose(loss);
    }
    0
}

#[inline(always)]
fn try_free(ctx: &ProbeContext) -> Result<(), Loss> {
    let Some(Hit {
        process,
        thread,
        site,
    }) = hit::target(ctx)?
    else {
        return Ok(());
    };
    let regs = regs(ctx);
    let stack_pointer = regs.rsp + site.pushed_bytes as u64;
    // SAFETY: the helper checks the user's address.
    if let Ok(return_address) = unsafe { bpf_probe_read_user(stack_pointer as *const u64) } {
        let place = CallKey {
            stack_pointer,
            thread,
            reserved: 0,
        };
        let key = TailKey {
            stack_pointer,
            thread,
            reserved: 0,
        };
        let call = TailCall {
            return_address,
            bytes: 0,
            block: regs.rdi,
            probe: regs.rip,
        };
        let nested = called_by_allocator(site, return_address.wrapping_sub(regs.rip).cast_signed())
            || heap::is_passed_on(site, &place, return_address)
            || tail_call::take(site, &key, &call);
        // No function hands a null pointer on.
        if site.tail & ProbeSite::TAIL_MAKES != 0 && call.block != 0 && !tail_call::make(&key, &call) {
            lose(Loss::TailMapFull);
        }
        if nested {
            count(Counter::Nested);
            return Ok(());
        }
    }
    heap::free(process, regs.rdi);
    count(Counter::Tallied);
    Ok(())
}
