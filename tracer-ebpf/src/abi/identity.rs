//! What a stack is known by: a hash of its addresses, innermost first, and of how its walk ended.
//! Both sides compute it: the kernel side frame by frame, user space for the walks that it
//! finishes.
#![expect(
    clippy::inline_always,
    reason = "the kernel side's programs have calls only where the verifier gains by one"
)]

/// One round of a multiply-and-shift mixer with the 64-bit golden ratio; two different stacks of a
/// million meet with a probability of about 3e-8.
#[inline(always)]
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let product = value.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    product ^ (product >> 29)
}

/// The hash of a stack's frames, with one more. That of no frames is 0.
#[inline(always)]
#[must_use]
pub const fn push(hash: u64, address: u64) -> u64 {
    mix(hash ^ address)
}

/// A stack's identity, from the hash of its frames and the number of its
/// [`StackEnd`](crate::StackEnd). Never [`STACK_LOST`](crate::STACK_LOST).
#[inline(always)]
#[must_use]
pub const fn finish(hash: u64, end: u32) -> u64 {
    let hash = mix(hash ^ end as u64);
    if hash == crate::STACK_LOST { 1 } else { hash }
}
