//! Scratch slots: room for one walk, owned by one program at a time.

use tracer_ebpf::{SCRATCH_SLOTS, StackRecord, WINDOW_BYTES};

use crate::{atomic, maps::SCRATCH};

/// The state of one walk.
#[repr(C)]
pub(crate) struct Scratch {
    /// 1 while a program owns the slot.
    busy: u64,
    /// The stack below this is done with: the next frame lies at or above it.
    pub(super) stack_pointer: u64,
    /// The frame pointer of the frame to be walked.
    pub(super) frame_pointer: u64,
    /// Identity of the frames so far.
    pub(super) hash: u64,
    /// The address that the window begins at.
    pub(super) window_start: u64,
    /// How many bytes of the window hold the stack.
    pub(super) window_len: u64,
    /// The frames, as user space gets them.
    pub(crate) record: StackRecord,
    /// A copy of a part of the stack; two words more than a copy fills, so that a masked index plus one stays
    /// inside.
    pub(super) window: [u64; WINDOW_BYTES / 8 + 2],
}

/// A slot that this program owns until it is dropped.
pub(crate) struct Slot {
    index: u32,
    scratch: *mut Scratch,
}

impl Slot {
    /// Takes a free slot of this CPU; nothing if all are taken by programs that were preempted.
    #[inline(always)]
    pub(crate) fn take() -> Option<Self> {
        let mut index = 0;
        while index < SCRATCH_SLOTS {
            let scratch = SCRATCH.get_ptr_mut(index)?;
            // SAFETY: the pointer is to a map value, and `busy` is only ever swapped.
            if unsafe { atomic::swap(&raw mut (*scratch).busy, 1) } == 0 {
                return Some(Self { index, scratch });
            }
            index += 1;
        }
        None
    }

    /// The slot's place among its CPU's.
    #[inline(always)]
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// The slot's state. Only the slot's owner has it.
    #[inline(always)]
    pub(crate) fn scratch(&self) -> *mut Scratch {
        self.scratch
    }
}

impl Drop for Slot {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: as in `take`.
        unsafe { atomic::swap(&raw mut (*self.scratch).busy, 0) };
    }
}
