//! Scratch slots: room for one walk, owned by one program at a time.

use core::mem::ManuallyDrop;

use tracer_ebpf::{PendingCall, SCRATCH_SLOTS, StackRecord, WINDOW_BYTES};

use super::mapping::{Answer, CACHED, CodeMapping};
use super::rule_cache::CachedRules;
use super::walk_cache::Words;
use crate::{atomic, maps::SCRATCH};

/// The state of one walk, and the caches of its slot.
#[repr(C)]
pub(crate) struct Scratch {
    /// 1 while a program owns the slot.
    busy: u64,

    /// The code address of the frame to be walked.
    pub(super) instruction: u64,
    /// Its stack pointer.
    pub(super) stack_pointer: u64,
    /// Its frame pointer, if it is known.
    pub(super) frame_pointer: u64,
    /// Identity of the frames so far.
    pub(super) hash: u64,
    /// The identity of a stack that user space is to finish, or 0.
    pub(super) provisional: u64,
    /// 1 if `instruction` is a return address: the call before it is what is looked up.
    pub(super) is_return: u32,
    /// 1 while `frame_pointer` is known.
    pub(super) frame_pointer_known: u32,
    /// 1 once the walk has gone through a frame that a signal interrupted, by what may be another
    /// function's rule.
    pub(super) through_signal: u32,
    /// The cached mapping of the last frame, or `mapping::NONE`.
    pub(super) current_mapping: u32,

    /// The process that the cached mappings are of.
    pub(super) mapped_process: u32,
    /// The next cached mapping to be replaced.
    pub(super) next_mapping: u32,
    /// 1 once the walk has gone through code whose table is still being made.
    pub(super) table_awaited: u32,
    /// 1 once it is known that no copy of this stack can be sent.
    pub(super) copy_refused: u32,
    /// The state of all tables and mappings that the cached ones, and the last walk, are from.
    pub(super) generation: u64,
    /// The address that the kernel is asked for.
    pub(super) asked: u64,
    /// The kernel's answer.
    pub(super) answer: Answer,
    /// Mappings of recent walks.
    pub(super) mappings: [CodeMapping; CACHED],

    /// The call that is being begun.
    pub(crate) call: PendingCall,

    /// The stamp of entries of `rules` that are valid.
    pub(super) stamp: u64,
    /// The rule cache.
    pub(super) rules: CachedRules,

    /// The walk cache: words that the last walk read.
    pub(super) words: Words,

    /// The frames, as they are sent to user space.
    pub(crate) record: StackRecord,
    /// The address that the window begins at.
    pub(super) window_start: u64,
    /// How many bytes of the window hold the stack.
    pub(super) window_len: u64,
    /// A copy of a part of the stack; two words more than a copy fills, so that a masked index plus
    /// one stays inside.
    pub(super) window: [u64; WINDOW_BYTES / 8 + 2],
}

/// A slot that this program owns until it is dropped.
pub(crate) struct Slot {
    index: u32,
    scratch: *mut Scratch,
}

impl Slot {
    /// Takes a free slot of this CPU; nothing if all are taken by programs that were preempted. A
    /// thread gets the same slot as last time where it can: the slot remembers its last walk.
    #[inline(always)]
    pub(crate) fn take(thread: u32) -> Option<Self> {
        let mut turn = 0;
        while turn < SCRATCH_SLOTS {
            let index = thread.wrapping_add(turn) & (SCRATCH_SLOTS - 1);
            let scratch = SCRATCH.get_ptr_mut(index)?;
            // SAFETY: the pointer is to a map value, and `busy` is only ever swapped.
            if unsafe { atomic::swap(&raw mut (*scratch).busy, 1) } == 0 {
                return Some(Self { index, scratch });
            }
            turn += 1;
        }
        None
    }

    /// The slot of an index that the program has taken, for a function that it calls. It stays the
    /// program's.
    #[inline(always)]
    pub(crate) fn borrowed(index: u32) -> Option<ManuallyDrop<Self>> {
        let scratch = SCRATCH.get_ptr_mut(index)?;
        Some(ManuallyDrop::new(Self { index, scratch }))
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
        unsafe { atomic::release(&raw mut (*self.scratch).busy) };
    }
}
