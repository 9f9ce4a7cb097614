//! The rules of return addresses that were met lately. Programs allocate from the same places again and again: a rule that
//! is kept saves the look-ups of mapping, page, row and rule, which are most of what a frame costs.

use tracer_ebpf::unwind::Rule;

use super::Scratch;
use crate::bounds::mask;

/// Rules that a slot keeps, each at the place that its address says.
const KEPT: usize = 256;

/// A rule, and what it is the rule of.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct KeptRule {
    address: u64,
    /// The process and the state of all tables and mappings: [`stamp`].
    stamp: u64,
    rule: Rule,
}

/// All kept rules of a slot.
pub(super) type KeptRules = [KeptRule; KEPT];

/// The same number only for the same process while no table and no mapping of code has changed.
#[inline(always)]
pub(super) const fn stamp(process: u32, generation: u64) -> u64 {
    (process as u64) << 32 | generation & 0xffff_ffff
}

impl Scratch {
    /// The rule of a return address, if it is kept.
    ///
    /// # Safety
    /// `scratch` must be of a slot that the caller owns.
    #[inline(always)]
    pub(super) unsafe fn kept_rule(scratch: *const Self, address: u64) -> Option<&'static Rule> {
        // SAFETY: the caller's promise; the index is masked to the array's length. The rule stays until the slot's owner
        // keeps another.
        unsafe {
            let kept = (&raw const (*scratch).rules)
                .cast::<KeptRule>()
                .add(place(address));
            if (*kept).address == address && (*kept).stamp == (*scratch).stamp {
                Some(&(*kept).rule)
            } else {
                None
            }
        }
    }

    /// Keeps the rule of a return address.
    ///
    /// # Safety
    /// As for [`Self::kept_rule`].
    #[inline(always)]
    pub(super) unsafe fn keep_rule(scratch: *mut Self, address: u64, rule: &Rule) {
        // SAFETY: as above.
        unsafe {
            let kept = (&raw mut (*scratch).rules).cast::<KeptRule>().add(place(address));
            (*kept).address = address;
            (*kept).stamp = (*scratch).stamp;
            (*kept).rule = *rule;
        }
    }
}

#[inline(always)]
fn place(address: u64) -> usize {
    mask::<{ KEPT as u64 - 1 }>(address ^ (address >> 8) ^ (address >> 16)) as usize
}
