//! Walking the user's stack: one bulk copy of its top, and a walk inside the copy.
//!
//! A helper call to read user memory costs about the same for 8 bytes as for a page, so the stack is copied a
//! window at a time. A window ends where its page ends: pages of a stack below an address in use are mapped,
//! so a copy that does not cross into the next page does not fault for running past the stack's top.

mod copy;
mod frame_pointer;
mod scratch;

pub(crate) use scratch::{Scratch, Slot};

use aya_ebpf::bindings::pt_regs;
use tracer_ebpf::{MAX_FRAMES, StackEnd};

use crate::bounds::mask;

/// `step`'s answer while there is more to walk; any other is a [`StackEnd`].
pub(crate) const MORE: u32 = 0;

impl Slot {
    /// Begins a walk at the first instruction of a function, or after `pushed_bytes` of pushes there: the
    /// return address on the stack is the first frame. Returns it; nothing if the stack cannot be read.
    #[inline(always)]
    pub(crate) fn begin_at_entry(&self, regs: *const pt_regs, pushed_bytes: u64) -> Option<u64> {
        let scratch = self.scratch();
        // SAFETY: `regs` is the program's context, and the slot is ours.
        unsafe {
            let stack_pointer = (*regs).rsp + pushed_bytes;
            (*scratch).begin((*regs).rbp);
            if !copy::fill(scratch, stack_pointer) {
                return None;
            }
            let return_address = (*scratch).window[0];
            (*scratch).stack_pointer = stack_pointer + 8;
            (*scratch).push(return_address);
            Some(return_address)
        }
    }

    /// Begins a walk anywhere: the given instruction is the first frame.
    #[inline(always)]
    pub(crate) fn begin_inside(&self, instruction: u64, stack_pointer: u64, frame_pointer: u64) {
        let scratch = self.scratch();
        // SAFETY: the slot is ours.
        unsafe {
            (*scratch).begin(frame_pointer);
            (*scratch).stack_pointer = stack_pointer;
            (*scratch).push(instruction);
        }
    }

    /// Walks to the end of the stack, and returns the identity of what was found.
    #[inline(always)]
    pub(crate) fn walk(&self) -> u64 {
        let mut end = MORE;
        let mut turn = 0;
        // One turn more than there are frames, to tell a stack that just fits from one that does not.
        while turn <= MAX_FRAMES {
            end = frame_pointer::step_frame_pointer(self.index());
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
    pub(crate) fn unreadable(&self) -> u64 {
        // SAFETY: the slot is ours.
        unsafe { (*self.scratch()).finish(StackEnd::ReadFault as u32) }
    }
}

impl Scratch {
    #[inline(always)]
    fn begin(&mut self, frame_pointer: u64) {
        self.frame_pointer = frame_pointer;
        self.hash = 0;
        self.window_len = 0;
        self.record.header.frames_len = 0;
    }

    /// Adds a frame, which must have room.
    #[inline(always)]
    fn push(&mut self, address: u64) {
        let index = mask::<{ MAX_FRAMES as u64 }>(self.record.header.frames_len as u64);
        // SAFETY: `frames` has MAX_FRAMES + 1 elements, and MAX_FRAMES is a mask of one less.
        unsafe { *(&raw mut self.record.frames).cast::<u64>().add(index as usize) = address };
        self.record.header.frames_len = index as u16 + 1;
        self.hash = mix(self.hash ^ address);
    }

    #[inline(always)]
    fn finish(&mut self, end: u32) -> u64 {
        self.record.header.end = end as u16;
        let hash = mix(self.hash ^ end as u64);
        // 0 stands for a lost stack.
        let hash = if hash == 0 { 1 } else { hash };
        self.record.header.hash = hash;
        hash
    }
}

/// One round of a multiply-and-shift mixer with the 64-bit golden ratio; two different stacks of a million
/// meet with a probability of about 3e-8.
#[inline(always)]
fn mix(value: u64) -> u64 {
    let product = value.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    product ^ (product >> 29)
}
