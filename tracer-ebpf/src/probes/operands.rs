//! The values of a call at a probe, read where the probe's spec says that they are.

use aya_ebpf::{
    bindings::pt_regs,
    helpers::{bpf_probe_read_user, generated::bpf_get_attach_cookie},
    programs::ProbeContext,
};
use tracer_ebpf::{MAX_CODE_RANGES, Operand, ProbeScope, ProbeSpec};

use crate::{
    bounds::{mask, opaque},
    maps::SPECS,
};

/// The return address lies so many bytes below the CFA.
pub(super) const RETURN_ADDRESS_BYTES: u64 = 8;

/// The registers at the probe.
#[inline(always)]
pub(super) fn regs(ctx: &ProbeContext) -> &pt_regs {
    // SAFETY: the context of a uprobe is the thread's registers, which outlive the program.
    unsafe { &*ctx.regs }
}

/// The spec of the probe that was hit.
#[inline(always)]
pub(super) fn spec(ctx: &ProbeContext) -> Option<&'static ProbeSpec> {
    // SAFETY: the context is this program's own.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.regs.cast()) };
    let spec = SPECS.get_ptr(ProbeScope::upper_half_of(cookie))?;
    // SAFETY: the pointer is to a map value that the loader wrote before it attached the probe, and
    // nobody writes again.
    Some(unsafe { &*spec })
}

/// The CFA of the probed function: the stack pointer before the call.
#[inline(always)]
pub(super) fn cfa(regs: &pt_regs, spec: &ProbeSpec) -> u64 {
    regs.rsp + spec.operands.cfa_bytes as u64
}

/// The value of an operand; 0 where it cannot be read, or is not there.
#[inline(always)]
pub(super) fn value(regs: &pt_regs, cfa: u64, operand: Operand) -> u64 {
    let bits = operand.bits();
    if bits & Operand::REGISTER != 0 {
        return register(regs, bits);
    }
    if bits & Operand::SLOT == 0 {
        return 0;
    }
    let address = cfa - (bits & Operand::SLOT_BYTES) as u64;
    // SAFETY: the helper checks the user's address.
    unsafe { bpf_probe_read_user(address as *const u64) }.unwrap_or(0)
}

/// The register whose number is in the lowest bits. One load for each, which LLVM must not make one
/// of: the context can only be read at offsets that the verifier knows. The first three arguments
/// come first: most values are there.
#[inline(always)]
pub(super) fn register(regs: &pt_regs, bits: u32) -> u64 {
    let number = bits & 15;
    if number == 7 {
        return opaque(regs.rdi);
    }
    if number == 6 {
        return opaque(regs.rsi);
    }
    if number == 2 {
        return opaque(regs.rdx);
    }
    match number {
        0 => opaque(regs.rax),
        1 => opaque(regs.rcx),
        3 => opaque(regs.rbx),
        4 => opaque(regs.rsp),
        5 => opaque(regs.rbp),
        8 => opaque(regs.r8),
        9 => opaque(regs.r9),
        10 => opaque(regs.r10),
        11 => opaque(regs.r11),
        12 => opaque(regs.r12),
        13 => opaque(regs.r13),
        14 => opaque(regs.r14),
        _ => opaque(regs.r15),
    }
}

/// The request of a call.
pub(crate) struct Request {
    /// Bytes asked for; 0 for a product that overflows: such a call fails, and asks for no number
    /// of bytes.
    pub(crate) bytes: u64,
    /// The block to resize, or 0.
    pub(crate) block: u64,
    /// The address that the result is written to, or 0.
    pub(crate) out: u64,
    /// Whether the product that is asked for overflows.
    pub(crate) overflows: bool,
    /// Whether a call with these arguments may go on by a tail call to `malloc`, if it resizes no
    /// block.
    is_plain: bool,
}

/// The alignment that `malloc` gives on this architecture: `alignof(max_align_t)` (System V AMD64,
/// 3.1.2). A call that asks for more cannot go on as one of `malloc`.
const MALLOC_ALIGNMENT: u64 = 16;

impl Request {
    /// Reads the request at a probe.
    #[inline(always)]
    pub(super) fn read(regs: &pt_regs, spec: &ProbeSpec) -> Self {
        let operands = &spec.operands;
        let cfa = cfa(regs, spec);
        let size = value(regs, cfa, operands.size);
        let mut request = Self {
            bytes: size,
            block: 0,
            out: 0,
            overflows: false,
            is_plain: true,
        };
        // One test for nearly every call: a size is all that there is.
        let rest = operands.factor.bits()
            | operands.high.bits()
            | operands.block.bits()
            | operands.out.bits()
            | operands.alignment.bits();
        if rest == 0 {
            return request;
        }
        if !operands.factor.is_none() {
            request = request.of_product(product(value(regs, cfa, operands.factor), size));
        } else if !operands.high.is_none() {
            let fits = value(regs, cfa, operands.high) == 0;
            request = request.of_product(fits.then_some(size));
        }
        request.block = value(regs, cfa, operands.block);
        request.out = value(regs, cfa, operands.out);
        request.is_plain = operands.out.is_none() && value(regs, cfa, operands.alignment) <= MALLOC_ALIGNMENT;
        request
    }

    #[inline(always)]
    fn of_product(self, product: Option<u64>) -> Self {
        Self {
            bytes: product.unwrap_or(0),
            overflows: product.is_none(),
            ..self
        }
    }

    /// Whether the call may go on by a tail call to a function that allocates. `realloc` goes on to
    /// `malloc` only where there is no block; `reallocarray` to `realloc` always. A function that
    /// can be reached so itself (`realloc`) has both flags.
    #[inline(always)]
    pub(crate) fn may_tail_call(&self, spec: &ProbeSpec) -> bool {
        spec.flags & ProbeSpec::MAY_TAIL_CALL != 0
            && !self.overflows
            && (spec.flags & ProbeSpec::ALWAYS_TAIL_CALLS != 0 || self.is_plain && self.block == 0)
    }

    /// Whether the call may go on by any tail call: where nothing is asked for, to `free` too.
    #[inline(always)]
    pub(crate) fn may_tail_call_any(&self, spec: &ProbeSpec) -> bool {
        self.may_tail_call(spec)
            || spec.flags & ProbeSpec::MAY_TAIL_CALL_FREE != 0
                && self.block != 0
                && self.bytes == 0
                && !self.overflows
    }
}

/// `n * size`; nothing where it overflows.
#[inline(always)]
fn product(n: u64, size: u64) -> Option<u64> {
    let product = opaque(n.wrapping_mul(size));
    (n == 0 || product / n == size).then_some(product)
}

/// Whether the return address, at this distance from the instruction that the ranges are told from,
/// is inside an allocator function.
#[inline(always)]
pub(crate) fn called_by_allocator(spec: &ProbeSpec, distance: i64) -> bool {
    // The first range covers all: one comparison for nearly every call.
    let all = &spec.callers[0];
    if distance < all.start || distance >= all.end {
        return false;
    }
    is_in_callers(spec.index, distance) != 0
}

/// Whether a distance is in one of a spec's ranges behind the first: 1.
///
/// A global function, so that the verifier checks its loop once, and not with all that comes after
/// it.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn is_in_callers(index: u32, distance: i64) -> u32 {
    let Some(spec) = SPECS.get_ptr(index) else {
        return 0;
    };
    // SAFETY: the pointer is to a map value that the loader wrote before it attached the probe, and
    // nobody writes again.
    let spec = unsafe { &*spec };
    let mut i = 1u64;
    while i < spec.callers_len as u64 {
        let index = mask::<{ MAX_CODE_RANGES as u64 - 1 }>(i) as usize;
        // SAFETY: the index is masked to the array's length, a power of two.
        let range = unsafe {
            &*(&raw const spec.callers)
                .cast::<tracer_ebpf::CodeRange>()
                .add(index)
        };
        if distance >= range.start && distance < range.end {
            return 1;
        }
        i += 1;
        if i >= MAX_CODE_RANGES as u64 {
            break;
        }
    }
    0
}
