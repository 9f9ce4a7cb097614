//! Atomic read-modify-write. A uprobe program can be preempted by another one on the same CPU, so that even
//! per-CPU values need it.

use core::intrinsics::{AtomicOrdering, atomic_xadd, atomic_xchg};

/// Adds `amount` to `*target`; returns what was there.
///
/// # Safety
/// `target` must point into a map value, aligned to 8 bytes, that only atomic writes change.
#[inline(always)]
pub(crate) unsafe fn add(target: *mut u64, amount: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(target, amount) }
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
