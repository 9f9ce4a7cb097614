//! The rule cache: unwind rules of recent return addresses. Programs allocate from the same places
//! again and again: a cached rule saves the look-ups of mapping, page, row and rule, which are most
//! of what a frame costs.

use tracer_ebpf::unwind::Rule;

use super::Scratch;
use crate::bounds::mask;

/// Entries of a slot, each found by its address alone. A power of two.
const MAX_RULES: usize = 256;

/// An entry: a rule with the return address and the state that it is for.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct CachedRule {
    address: u64,
    /// The process and the state of all tables and mappings, as [`stamp`] packs them.
    stamp: u64,
    rule: Rule,
}

/// The cache of one slot.
pub(super) type CachedRules = [CachedRule; MAX_RULES];

/// A number that changes with the process, and with every change of a table or of a mapping of
/// code.
#[inline(always)]
pub(super) const fn stamp(process: u32, generation: u64) -> u64 {
    (process as u64) << 32 | generation & 0xffff_ffff
}

/// The rule of a return address, if it is in the cache.
///
/// # Safety
/// `scratch` must be of a slot that the caller owns.
#[inline(always)]
pub(super) unsafe fn cached_rule(scratch: *const Scratch, address: u64) -> Option<&'static Rule> {
    // SAFETY: the caller's promise; the index is masked to the array's length. The rule stays
    // until the slot's owner caches another one.
    unsafe {
        let entry = (&raw const (*scratch).rules)
            .cast::<CachedRule>()
            .add(place(address));
        if (*entry).address == address && (*entry).stamp == (*scratch).stamp {
            Some(&(*entry).rule)
        } else {
            None
        }
    }
}

/// Caches the rule of a return address.
///
/// # Safety
/// As for [`cached_rule`].
#[inline(always)]
pub(super) unsafe fn cache_rule(scratch: *mut Scratch, address: u64, rule: &Rule) {
    // SAFETY: as above.
    unsafe {
        let entry = (&raw mut (*scratch).rules)
            .cast::<CachedRule>()
            .add(place(address));
        (*entry).address = address;
        (*entry).stamp = (*scratch).stamp;
        (*entry).rule = *rule;
    }
}

#[inline(always)]
fn place(address: u64) -> usize {
    mask::<{ MAX_RULES as u64 - 1 }>(address ^ (address >> 8) ^ (address >> 16)) as usize
}
