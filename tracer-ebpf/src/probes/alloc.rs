//! Calls to allocators, at their entry: one program per call shape. What the macro makes of each calls the function here, which is
//! inlined: that call would have a frame of its own.

use aya_ebpf::{bindings::pt_regs, macros::uprobe, programs::ProbeContext};
use tracer_ebpf::{CallKey, Counter, Loss, ProbeSite, STACK_UNWALKED, SumKey, TailCall, TailKey, intake};

use super::{
    hit::{self, Hit},
    weigh,
};
use crate::{
    aggregate,
    bounds::{mask, opaque},
    heap,
    loss::{count, lose},
    settings, tail_call, thread_stack,
    unwind::{Slot, Start},
};

/// `malloc(size)`
#[uprobe]
#[inline(always)]
pub(crate) fn alloc_size(ctx: ProbeContext) -> u32 {
    entry(&ctx, &Request::of(regs(&ctx).rdi))
}

/// `aligned_alloc(alignment, size)`
#[uprobe]
#[inline(always)]
pub(crate) fn alloc_aligned(ctx: ProbeContext) -> u32 {
    let regs = regs(&ctx);
    entry(
        &ctx,
        &Request {
            // A larger alignment is more than malloc gives, so such a call cannot go on as one.
            passes_on: regs.rdi <= MALLOC_ALIGNMENT,
            ..Request::of(regs.rsi)
        },
    )
}

/// `calloc(n, size)`
#[uprobe]
#[inline(always)]
pub(crate) fn alloc_count(ctx: ProbeContext) -> u32 {
    let regs = regs(&ctx);
    entry(&ctx, &Request::of_product(product(regs.rdi, regs.rsi)))
}

/// `posix_memalign(p, alignment, size)`
#[uprobe]
#[inline(always)]
pub(crate) fn alloc_out(ctx: ProbeContext) -> u32 {
    let regs = regs(&ctx);
    entry(
        &ctx,
        &Request {
            out: regs.rdi,
            passes_on: false,
            ..Request::of(regs.rdx)
        },
    )
}

/// `realloc(block, size)`
#[uprobe]
#[inline(always)]
pub(crate) fn realloc_size(ctx: ProbeContext) -> u32 {
    let regs = regs(&ctx);
    entry(&ctx, &Request::of(regs.rsi).resizing(regs.rdi))
}

/// `reallocarray(block, n, size)`
#[uprobe]
#[inline(always)]
pub(crate) fn realloc_array(ctx: ProbeContext) -> u32 {
    let regs = regs(&ctx);
    let product = product(regs.rsi, regs.rdx);
    entry(&ctx, &Request::of_product(product).resizing(regs.rdi))
}

/// `reallocarray` behind its multiplication (`mul`), which has left the product in `rax` and `rdx`.
#[uprobe]
#[inline(always)]
pub(crate) fn realloc_product(ctx: ProbeContext) -> u32 {
    let regs = regs(&ctx);
    let product = (regs.rdx == 0).then_some(regs.rax);
    entry(&ctx, &Request::of_product(product).resizing(regs.rdi))
}

/// `mi_heap_malloc(heap, size)`
#[uprobe]
#[inline(always)]
pub(crate) fn alloc_heap_size(ctx: ProbeContext) -> u32 {
    entry(&ctx, &Request::of(regs(&ctx).rsi))
}

/// `mi_heap_calloc(heap, n, size)`
#[uprobe]
#[inline(always)]
pub(crate) fn alloc_heap_count(ctx: ProbeContext) -> u32 {
    let regs = regs(&ctx);
    entry(&ctx, &Request::of_product(product(regs.rsi, regs.rdx)))
}

/// `mi_calloc(n, size)`, which has moved the number.
#[uprobe]
#[inline(always)]
pub(crate) fn alloc_factors(ctx: ProbeContext) -> u32 {
    let regs = regs(&ctx);
    entry(&ctx, &Request::of_product(product(regs.rax, regs.rsi)))
}

/// `mi_heap_calloc(heap, n, size)`, which has moved the number.
#[uprobe]
#[inline(always)]
pub(crate) fn alloc_heap_factors(ctx: ProbeContext) -> u32 {
    let regs = regs(&ctx);
    entry(&ctx, &Request::of_product(product(regs.rax, regs.rdx)))
}

/// `mi_heap_realloc(heap, block, size)`
#[uprobe]
#[inline(always)]
pub(crate) fn realloc_heap(ctx: ProbeContext) -> u32 {
    let regs = regs(&ctx);
    entry(&ctx, &Request::of(regs.rdx).resizing(regs.rsi))
}

/// `mi_recalloc(block, n, size)` on its way to `mi_heap_recalloc(heap, block, n, size)`
#[uprobe]
#[inline(always)]
pub(crate) fn realloc_heap_array(ctx: ProbeContext) -> u32 {
    let regs = regs(&ctx);
    let product = product(regs.rdx, regs.rcx);
    entry(&ctx, &Request::of_product(product).resizing(regs.rsi))
}

/// The registers at the probe.
#[inline(always)]
pub(super) fn regs(ctx: &ProbeContext) -> &pt_regs {
    // SAFETY: the context of a uprobe is the thread's registers, which outlive the program.
    unsafe { &*ctx.regs }
}

/// What a call asks for.
pub(crate) struct Request {
    /// Bytes asked for; 0 for a product that overflows: such a call fails, and asks for no number of bytes.
    pub(crate) bytes: u64,
    /// The block to resize, or 0.
    pub(crate) block: u64,
    /// Where the result is put, or 0.
    pub(crate) out: u64,
    /// Whether what is asked for is a product that overflows.
    pub(crate) overflows: bool,
    /// Whether a call with these arguments may go on by a tail jump, where its function has one and nothing overflows.
    passes_on: bool,
}

/// What `malloc` aligns to on this architecture: `alignof(max_align_t)` (System V AMD64, 3.1.2).
const MALLOC_ALIGNMENT: u64 = 16;

/// `n * size`; nothing where it overflows.
#[inline(always)]
pub(super) fn product(n: u64, size: u64) -> Option<u64> {
    let product = opaque(n.wrapping_mul(size));
    (n == 0 || product / n == size).then_some(product)
}

/// A uprobe program must return 0: another answer costs the target more.
#[inline(always)]
fn entry(ctx: &ProbeContext, request: &Request) -> u32 {
    thread_stack::require(ctx);
    if hit::begin(ctx, Some(request.bytes))
        && let Err(loss) = try_entry(ctx, request)
    {
        lose(loss);
    }
    0
}

#[inline(always)]
fn try_entry(ctx: &ProbeContext, request: &Request) -> Result<(), Loss> {
    let &Request { bytes, block, .. } = request;
    let Some(hit) = hit::target(ctx)? else {
        return Ok(());
    };
    let regs = regs(ctx);
    let weight = if settings::sampled() {
        match weigh::weigh(regs, &hit, request)? {
            0 => return Ok(()),
            weight => weight,
        }
    } else {
        1
    };
    let Hit {
        process,
        thread,
        site,
    } = hit;
    let Some(slot) = Slot::take(thread) else {
        let key = SumKey {
            stack: 0,
            process,
            function: site.function,
        };
        aggregate::add_without_stack(&key, &aggregate::amount(bytes, weight));
        return Err(Loss::ScratchBusy);
    };
    let pushed_bytes = site.pushed_bytes as u64;
    let start = Start {
        thread,
        process,
        instruction: regs.rip,
        stack_pointer: regs.rsp + pushed_bytes,
        frame_pointer: regs.rbp,
    };
    let stack = match slot.look(regs, pushed_bytes) {
        Some(return_address) if settings::live() => {
            begin(&slot, site, request, &start, return_address, weight as u32);
            return Ok(());
        }
        Some(return_address) => {
            let key = TailKey {
                stack_pointer: start.stack_pointer,
                thread,
                reserved: 0,
            };
            let call = TailCall {
                return_address,
                bytes,
                block,
                probe: regs.rip,
            };
            let mut nested = called_by_allocator(site, return_address.wrapping_sub(regs.rip).cast_signed());
            if !settings::sampled() {
                nested = nested || tail_call::take(site, &key, &call);
                // A function in the middle of a chain of jumps passes the call on.
                if request.passes_on(site) && !tail_call::make(&key, &call) {
                    lose(Loss::TailMapFull);
                }
            }
            if nested {
                count(Counter::Nested);
                return Ok(());
            }
            if !settings::wants_size(bytes) {
                count(Counter::Filtered);
                return Ok(());
            }
            if settings::intake() == intake::UNWALKED {
                let key = SumKey {
                    stack: STACK_UNWALKED,
                    process,
                    function: site.function,
                };
                aggregate::add_known(&key, &aggregate::amount(bytes, weight));
                return Ok(());
            }
            slot.walk_from_entry(&start, return_address)
        }
        None => slot.unreadable(&start),
    };
    #[cfg(feature = "hot-log")]
    aya_log_ebpf::trace!(
        ctx,
        "function {} asks for {} bytes, stack {:x}, process {}",
        site.function,
        bytes,
        stack,
        process
    );
    aggregate::add(
        &slot,
        &SumKey {
            stack,
            process,
            function: site.function,
        },
        &aggregate::amount(bytes, weight),
    );
    Ok(())
}

/// Begins a call whose block is followed.
#[inline(always)]
pub(super) fn begin(
    slot: &Slot,
    site: &ProbeSite,
    request: &Request,
    start: &Start,
    return_address: u64,
    weight: u32,
) {
    let place = CallKey {
        stack_pointer: start.stack_pointer,
        thread: start.thread,
        reserved: 0,
    };
    if called_by_allocator(site, return_address.wrapping_sub(start.instruction).cast_signed()) {
        if heap::may_pass_on(site) {
            heap::pass_on(slot, &place, return_address);
        } else {
            heap::forget(&place);
        }
        count(Counter::Nested);
        return;
    }
    if heap::is_passed_on(site, &place, return_address) {
        count(Counter::Nested);
        return;
    }
    if !settings::wants_size(request.bytes) {
        heap::forget(&place);
        count(Counter::Filtered);
        return;
    }
    let key = SumKey {
        stack: slot.walk_from_entry(start, return_address),
        process: start.process,
        function: site.function,
    };
    // The verifier need not look at this where the shape tells.
    if request.block == 0 && site.tail & ProbeSite::ENTRY_ONLY != 0 {
        heap::add_unseen(slot, request, &place, &key, weight);
    } else {
        heap::begin(slot, site, request, &place, &key, return_address, weight);
    }
}

impl Request {
    /// A new block of so many bytes.
    #[inline(always)]
    fn of(bytes: u64) -> Self {
        Self {
            bytes,
            block: 0,
            out: 0,
            overflows: false,
            passes_on: true,
        }
    }

    /// The same, of a product; nothing: of one that overflows.
    #[inline(always)]
    fn of_product(product: Option<u64>) -> Self {
        Self {
            overflows: product.is_none(),
            ..Self::of(product.unwrap_or(0))
        }
    }

    /// The same for a block that is there.
    #[inline(always)]
    fn resizing(self, block: u64) -> Self {
        Self { block, ..self }
    }

    /// A request for a new block, of a product that overflows where there is no number of bytes.
    #[inline(always)]
    pub(super) fn of_block(bytes: Option<u64>) -> Self {
        Self {
            bytes: bytes.unwrap_or(0),
            block: 0,
            out: 0,
            overflows: bytes.is_none(),
            passes_on: false,
        }
    }

    /// Whether the call may go on by a jump to one that allocates. `realloc` passes on to `malloc` only where there is no
    /// block; `reallocarray` to `realloc` always. A site that can be jumped to itself (`realloc`) has both marks.
    #[inline(always)]
    pub(super) fn passes_on(&self, site: &ProbeSite) -> bool {
        site.tail & ProbeSite::TAIL_MAKES != 0
            && !self.overflows
            && (site.tail & ProbeSite::TAIL_MAKES_ALWAYS != 0 || self.passes_on && self.block == 0)
    }

    /// Whether the call may go on by a jump at all: where nothing is asked for, to `free` too.
    #[inline(always)]
    pub(crate) fn may_be_met_again(&self, site: &ProbeSite) -> bool {
        self.passes_on(site)
            || site.tail & ProbeSite::TAIL_FREES != 0 && self.block != 0 && self.bytes == 0 && !self.overflows
    }
}

/// Whether the return address, at this distance from the probe, is inside an allocator function.
#[inline(always)]
pub(crate) fn called_by_allocator(site: &ProbeSite, distance: i64) -> bool {
    // The first range covers all: one comparison for nearly every call.
    let all = &site.callers[0];
    if distance < all.start || distance >= all.end {
        return false;
    }
    let mut i = 1u64;
    while i < site.callers_len as u64 {
        let index = mask::<{ tracer_ebpf::MAX_CODE_RANGES as u64 - 1 }>(i) as usize;
        // SAFETY: the index is masked to the array's length, a power of two.
        let range = unsafe {
            &*(&raw const site.callers)
                .cast::<tracer_ebpf::CodeRange>()
                .add(index)
        };
        if distance >= range.start && distance < range.end {
            return true;
        }
        i += 1;
        if i >= tracer_ebpf::MAX_CODE_RANGES as u64 {
            break;
        }
    }
    false
}
