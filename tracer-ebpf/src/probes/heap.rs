//! Where blocks are followed: the returns of allocators, and functions that give blocks back.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use tracer_ebpf::{CallKey, Counter, Loss, PendingCall, ProbeSpec};

use super::{
    hit::{self, Hit},
    operands::{self, RETURN_ADDRESS_BYTES, called_by_allocator, cfa, regs, value},
};
use crate::{
    heap,
    loss::{count, count_loss},
    settings, thread_stack,
};

/// The return of an allocator function.
#[uretprobe]
#[inline(always)]
pub(crate) fn call_return(ctx: RetProbeContext) -> u32 {
    let entry = ProbeContext { regs: ctx.regs };
    thread_stack::require(&entry);
    let regs = regs(&entry);
    let key = CallKey {
        // The return has taken its address off the stack.
        stack_pointer: regs.rsp - RETURN_ADDRESS_BYTES,
        thread: bpf_get_current_pid_tgid() as u32,
        reserved: 0,
    };
    let returned = regs.rax;
    heap::finish(&key, |call| block_of(call, returned));
    0
}

/// The address of the block that a call has made, by what it has returned; 0: it has failed.
#[inline(always)]
fn block_of(call: &PendingCall, returned: u64) -> u64 {
    if call.flags & PendingCall::RETURNS_STATUS != 0 {
        if returned as u32 != 0 {
            return 0;
        }
        // SAFETY: the helper checks the user's address.
        return unsafe { bpf_probe_read_user(call.out as *const u64) }.unwrap_or(0);
    }
    if call.flags & PendingCall::RETURNS_SIZE != 0 {
        // Less than was asked for means that nothing was changed.
        return if returned >= call.bytes {
            call.old_address
        } else {
            0
        };
    }
    returned
}

/// The entry of a function that gives a block back.
#[uprobe]
#[inline(always)]
pub(crate) fn call_free(ctx: ProbeContext) -> u32 {
    thread_stack::require(&ctx);
    if !hit::begin(&ctx, None) {
        return 0;
    }
    if !settings::live() {
        // It is here to be counted alone.
        hit::count_skipped();
    } else if let Err(loss) = try_free(&ctx) {
        count_loss(loss);
    }
    0
}

#[inline(always)]
fn try_free(ctx: &ProbeContext) -> Result<(), Loss> {
    let Some(Hit { process, thread }) = hit::target() else {
        return Ok(());
    };
    let spec = operands::spec(ctx).ok_or(Loss::UnknownSite)?;
    let regs = regs(ctx);
    let cfa = cfa(regs, spec);
    let block = value(regs, cfa, spec.operands.block);
    let key = CallKey {
        stack_pointer: cfa - RETURN_ADDRESS_BYTES,
        thread,
        reserved: 0,
    };
    // SAFETY: the helper checks the user's address.
    if let Ok(return_address) = unsafe { bpf_probe_read_user(key.stack_pointer as *const u64) } {
        // A tail call of an allocator's own call returns where that does, and needs no other sign.
        if called_by_allocator(spec, return_address.wrapping_sub(regs.rip).cast_signed()) {
            count(Counter::Nested);
            return Ok(());
        }
        let nested = heap::continues_pending(spec, &key, return_address)
            || heap::pop_freed(spec, &key, return_address, block, regs.rip);
        // No function hands a null pointer on.
        if spec.flags & ProbeSpec::MAY_TAIL_CALL != 0
            && block != 0
            && !heap::push_freed(&key, return_address, block, regs.rip)
        {
            count_loss(Loss::TailMapFull);
        }
        if nested {
            count(Counter::Nested);
            return Ok(());
        }
    }
    heap::free(process, block);
    count(Counter::Recorded);
    Ok(())
}
