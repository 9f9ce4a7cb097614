//! Values that LLVM must not reason about: bounds that the verifier has to see, idioms that have no
//! instruction.

/// `value & MASK`, in a form that LLVM cannot reason away. Verifiers before Linux 6.8 lose bounds
/// easily: they need to see the masking right before the pointer arithmetic, whatever LLVM was able
/// to prove about `value`.
#[inline(always)]
pub(crate) fn mask<const MASK: u64>(value: u64) -> u64 {
    let mut masked = value;
    // SAFETY: one ALU instruction on a register; no memory, no stack.
    unsafe {
        core::arch::asm!(
            "{0} &= {mask}",
            inout(reg) masked,
            mask = const MASK,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    masked
}

/// `value`, of which LLVM knows nothing any more: it would make an overflow check out of a
/// multiplication and a division, which needs a 128-bit product that the target has not.
#[inline(always)]
pub(crate) fn opaque(value: u64) -> u64 {
    let mut same = value;
    // SAFETY: one ALU instruction on a register; no memory, no stack. (An empty template would give
    // two line records to one instruction, which the kernel rejects.)
    unsafe {
        core::arch::asm!("{0} += 0", inout(reg) same, options(pure, nomem, nostack, preserves_flags));
    }
    same
}
