//! The counters of events and losses: each event ends in exactly one of them.

use tracer_ebpf::{Counter, Loss};

use crate::{atomic, maps::COUNTERS};

/// Counts an event.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    bump(counter.index());
}

/// Counts a loss.
#[inline(always)]
pub(crate) fn count_loss(loss: Loss) {
    bump(loss.index());
}

#[inline(always)]
fn bump(index: u32) {
    if let Some(slot) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: the pointer is to a map value; counters are only ever added to.
        unsafe { atomic::add(slot, 1) };
    }
}
