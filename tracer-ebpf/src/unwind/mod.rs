//! Walking the user's stack: bulk copies of it, and steps from frame to frame inside the copies.
//!
//! A helper call to read user memory costs about the same for 8 bytes as for a page, so the stack
//! is copied a window at a time. A window ends where its page ends: pages of a stack below an
//! address in use are mapped, so a copy that does not cross into the next page does not fault for
//! running past the stack's top.
//!
//! A step ([`step`]) finds the mapping of the code ([`mapping`]), the rule in the file's unwind
//! table ([`row_lookup`]), and by it the caller's registers. A walk keeps every word that it read
//! ([`walk_cache`]): when the same thread comes from the same place and all those words are the
//! same, so is the stack.

mod deferred;
mod mapping;
mod row_lookup;
mod rule_cache;
mod scratch;
mod stack_window;
mod step;
mod vma_cache;
mod walk_cache;

pub(crate) use scratch::{Scratch, Slot};
pub(crate) use vma_cache::{CachedVma, VmaKey, may_have_cached};

use aya_ebpf::bindings::pt_regs;
use tracer_ebpf::{Counter, MAX_FRAMES, StackEnd, identity};

use crate::{bounds::mask, loss::count, settings};

/// A step's answer while there is more to walk; any other is a [`StackEnd`].
pub(crate) const MORE: u32 = 0;

/// A step's answer where the walk is better finished in user space: the code's table, or its
/// mapping, is not at hand.
pub(crate) const UNFINISHED: u32 = 1 << 16;

/// The state that a walk begins with.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    /// The thread.
    pub(crate) thread: u32,
    /// The number of its process's image.
    pub(crate) process: u32,
    /// The code address that the walk begins at.
    pub(crate) instruction: u64,
    /// The stack pointer there; at a function's entry it points to the return address.
    pub(crate) stack_pointer: u64,
    /// The frame pointer there.
    pub(crate) frame_pointer: u64,
}

impl Slot {
    /// Copies the top of the stack at the first instruction of a function, or after `pushed_bytes`
    /// of pushes there. Returns the address that the function returns to; nothing if the stack
    /// cannot be read.
    #[inline(always)]
    pub(crate) fn look(&self, regs: *const pt_regs, pushed_bytes: u64) -> Option<u64> {
        let scratch = self.scratch();
        // SAFETY: `regs` is the program's context, and the slot is ours.
        unsafe {
            let stack_pointer = (*regs).rsp + pushed_bytes;
            let most = walk_cache::bytes_wanted(&*scratch, stack_pointer);
            stack_window::fill(scratch, stack_pointer, most).then(|| (*scratch).window[0])
        }
    }

    /// A word of the stack.
    #[inline(always)]
    pub(crate) fn word(&self, address: u64) -> Option<u64> {
        // SAFETY: the slot is ours.
        unsafe { stack_window::word(self.scratch(), address) }
    }

    /// Walks from a function's entry, after [`look`](Self::look): the return address is the first
    /// frame.
    #[inline(always)]
    pub(crate) fn walk_from_entry(&self, start: &Start, return_address: u64) -> u64 {
        if let Some(hash) = walk_cache::remembered(self, start) {
            return hash;
        }
        let scratch = self.scratch();
        // SAFETY: the slot is ours.
        unsafe {
            (*scratch).begin(start);
            walk_cache::note(&mut *scratch, start.stack_pointer, return_address);
            (*scratch).stack_pointer = start.stack_pointer + 8;
            (*scratch).push(return_address, 1);
        }
        self.walk()
    }

    /// Walks from the return of a system call: the instruction after it is the first frame.
    #[inline(always)]
    pub(crate) fn walk_from_inside(&self, start: &Start) -> u64 {
        let scratch = self.scratch();
        // SAFETY: the slot is ours.
        unsafe {
            let most = walk_cache::bytes_wanted(&*scratch, start.stack_pointer);
            // Where nothing can be read, the walk finds that out.
            let _is_read = stack_window::fill(scratch, start.stack_pointer, most);
        }
        if let Some(hash) = walk_cache::remembered(self, start) {
            return hash;
        }
        // SAFETY: the slot is ours.
        unsafe {
            (*scratch).begin(start);
            (*scratch).stack_pointer = start.stack_pointer;
            (*scratch).push(start.instruction, 1);
        }
        self.walk()
    }

    /// Walks to the end of the stack, and returns the identity of what was found.
    #[inline(always)]
    fn walk(&self) -> u64 {
        let mut end = MORE;
        let mut turn = 0;
        // One frame more than there is room for, to tell a stack that just fits from one that does
        // not; and a turn for each of the two ways in which a walk can be interrupted for a copy.
        while turn <= MAX_FRAMES / step::AT_ONCE + 2 {
            end = step::step_stack(self.index());
            if end == UNFINISHED {
                end = deferred::send_copy(self.index());
            }
            if end != MORE {
                break;
            }
            turn += 1;
        }
        // SAFETY: the slot is ours.
        unsafe { (*self.scratch()).finish(end) }
    }

    /// Ends a walk that could not begin.
    #[inline(always)]
    pub(crate) fn unreadable(&self, start: &Start) -> u64 {
        // SAFETY: the slot is ours.
        unsafe {
            (*self.scratch()).begin(start);
            walk_cache::evict(&mut *self.scratch());
            (*self.scratch()).finish(StackEnd::ReadFault as u32)
        }
    }

    /// Makes sure that the next walk is not answered from memory. Mappings that were found stay:
    /// they are kept for the walks of new stacks too.
    #[cfg(feature = "bench")]
    #[inline(always)]
    pub(crate) fn evict(&self) {
        // SAFETY: the slot is ours.
        unsafe { walk_cache::evict(&mut *self.scratch()) };
    }
}

impl Scratch {
    #[inline(always)]
    fn begin(&mut self, start: &Start) {
        self.frame_pointer = start.frame_pointer;
        self.frame_pointer_known = 1;
        self.hash = 0;
        self.provisional = 0;
        self.through_signal = 0;
        self.table_awaited = 0;
        self.copy_refused = u32::from(settings::copies_max() == 0);
        self.current_mapping = mapping::NONE;
        self.record.header.frames_len = 0;
        self.enter_process(start.process);
        walk_cache::remember(self, start);
    }

    /// Adds a frame. [`MORE`], or [`StackEnd::Truncated`] if there is no room for it. `is_return`:
    /// 1 for a return address, 0 for an instruction that was interrupted.
    #[inline(always)]
    fn push(&mut self, address: u64, is_return: u32) -> u32 {
        let len = self.record.header.frames_len as u64;
        if len >= MAX_FRAMES as u64 {
            return StackEnd::Truncated as u32;
        }
        let index = mask::<{ MAX_FRAMES as u64 }>(len);
        // SAFETY: `frames` has MAX_FRAMES + 1 elements, and MAX_FRAMES is a mask of one less.
        unsafe { *(&raw mut self.record.frames).cast::<u64>().add(index as usize) = address };
        self.record.header.frames_len = index as u16 + 1;
        self.hash = identity::push(self.hash, address);
        self.instruction = address;
        self.is_return = is_return;
        MORE
    }

    #[inline(always)]
    fn finish(&mut self, end: u32) -> u64 {
        let end = if end == StackEnd::Complete as u32 && self.through_signal != 0 {
            StackEnd::Signal as u32
        } else {
            end
        };
        if self.table_awaited != 0 {
            count(Counter::TableAwaited);
        }
        walk_cache::end_words(self);
        self.record.header.end = end as u16;
        let hash = if self.provisional == 0 {
            identity::finish(self.hash, end)
        } else {
            self.provisional
        };
        self.record.header.hash = hash;
        hash
    }
}
