//! The frame-pointer step: each frame holds the address of the frame before and its own return address.

use tracer_ebpf::{MAX_FRAMES, StackEnd};

use super::{MORE, copy};
use crate::maps::SCRATCH;

/// The largest frame that is believed: what main threads may have of stack by default.
const MAX_FRAME_BYTES: u64 = 8 << 20;

/// Nothing is mapped below this (`vm.mmap_min_addr`): a smaller number is no address.
const LEAST_ADDRESS: u64 = 4096;

/// Walks one frame. Returns [`MORE`], or a [`StackEnd`].
///
/// A global function, so that the verifier checks it once and not for every turn of the loop that calls it
/// (Linux 5.6).
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn step_frame_pointer(slot: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot) else {
        return StackEnd::ReadFault as u32;
    };
    // SAFETY: the caller owns the slot of this index on this CPU; programs do not migrate.
    unsafe {
        let frame = (*scratch).frame_pointer;
        if frame < LEAST_ADDRESS {
            // The ABI marks the outermost frame with zero (System V AMD64, 3.4.1); libc's start-up code has a
            // small number there instead when it calls `main`.
            return StackEnd::Complete as u32;
        }
        let distance = frame.wrapping_sub((*scratch).stack_pointer);
        if frame & 7 != 0 || distance > MAX_FRAME_BYTES {
            return StackEnd::FramePointer as u32;
        }
        let Some([outer, return_address]) = copy::pair(scratch, frame) else {
            return StackEnd::ReadFault as u32;
        };
        if return_address == 0 {
            return StackEnd::Complete as u32;
        }
        if (*scratch).record.header.frames_len as usize >= MAX_FRAMES {
            return StackEnd::Truncated as u32;
        }
        (*scratch).push(return_address);
        (*scratch).stack_pointer = frame + 16;
        (*scratch).frame_pointer = outer;
        MORE
    }
}
