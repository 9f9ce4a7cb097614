//! Operations on a slot for the walk benchmark alone.

use super::Slot;

impl Slot {
    /// Makes sure that the next walk is not answered from memory. Mappings that were found stay:
    /// they are kept for the walks of new stacks too.
    #[inline(always)]
    pub(crate) fn evict(&self) {
        // SAFETY: the slot is ours.
        unsafe { (*self.scratch()).evict() };
    }
}
