//! Atomic read-modify-write. A uprobe program can be preempted by another one on the same CPU, so
//! that even per-CPU values need it.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg};

/// Adds `amount` to `*target`.
///
/// # Safety
/// `target` must point into a map value, aligned to 8 bytes, that only atomic writes change.
#[inline(always)]
pub(crate) unsafe fn add(target: *mut u64, amount: u64) {
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(target, amount) };
}

/// Adds `amount` to `*target`; returns what was there. Needs Linux 5.12.
///
/// Not relaxed: for a relaxed addition LLVM 22 emits the instruction that does not fetch, even
/// where the result is used, and gives the amount for it (seen: every process had the same number).
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub(crate) unsafe fn fetch_add(target: *mut u64, amount: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(target, amount) }
}

/// Adds `amount` to `*target`.
///
/// # Safety
/// As for [`add`], aligned to 4 bytes.
#[inline(always)]
pub(crate) unsafe fn add_short(target: *mut u32, amount: u32) {
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(target, amount) };
}

/// Puts `value` into `*target` if `expected` is there. True if it was. Needs Linux 5.12.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub(crate) unsafe fn replace(target: *mut u64, expected: u64, value: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(target, expected, value).1
    }
}

/// Puts `value` into `*target`; returns what was there. Needs Linux 5.12.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub(crate) unsafe fn swap(target: *mut u64, value: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { atomic_xchg::<u64, { AtomicOrdering::Relaxed }>(target, value) }
}

/// Puts 0 into `*target`, which only programs of this CPU look at, after all that was written
/// before: they are interrupted by one another, and do not run side by side, so that a plain store
/// does.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub(crate) unsafe fn release(target: *mut u64) {
    // SAFETY: the caller's promise. One store, of which LLVM does not know what memory it touches:
    // what was written before stays before it. There is no instruction for a fence.
    unsafe {
        core::arch::asm!(
            "*(u64 *)({target} + 0) = {zero}",
            target = in(reg) target,
            zero = in(reg) 0u64,
            options(nostack, preserves_flags)
        );
    }
}
