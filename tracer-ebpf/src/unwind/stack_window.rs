//! The window: a bulk copy of a part of the user's stack.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use tracer_ebpf::WINDOW_BYTES;

use super::Scratch;
use crate::bounds::mask;

/// The least that a copy takes: a frame pointer and a return address.
const LEAST_BYTES: u64 = 16;

/// Copies the stack from `start`, `most` bytes of it and not beyond the end of its page. False, and
/// the window is empty, if it cannot be read.
///
/// # Safety
/// `scratch` must be of a slot that the caller owns.
#[inline(always)]
pub(super) unsafe fn fill(scratch: *mut Scratch, start: u64, most: u64) -> bool {
    const PAGE: u64 = WINDOW_BYTES as u64;
    let rest = PAGE - (start & (PAGE - 1));
    let rest = if rest < most { rest } else { most };
    let len = if rest < LEAST_BYTES { LEAST_BYTES } else { rest };
    // One bit more than the largest length, which is a power of two itself.
    let len = mask::<{ 2 * PAGE - 1 }>(len);
    if len > PAGE {
        return false;
    }
    // SAFETY: the window has room for a page, and the helper checks the user's address.
    let status =
        unsafe { bpf_probe_read_user((&raw mut (*scratch).window).cast(), len as u32, start as *const _) };
    // SAFETY: the caller owns the slot.
    unsafe {
        (*scratch).window_start = start;
        (*scratch).window_len = if status == 0 { len } else { 0 };
    }
    status == 0
}

/// The word at `address`, from the window, which moves there if need be. Nothing if it cannot be
/// read.
///
/// # Safety
/// As for [`fill`].
#[inline(always)]
pub(super) unsafe fn word(scratch: *mut Scratch, address: u64) -> Option<u64> {
    // SAFETY: the caller owns the slot; the index is masked to less than the window's length.
    unsafe {
        let mut offset = address.wrapping_sub((*scratch).window_start);
        // An address below the window gives an offset near 2^64, to which nothing may be added.
        if offset >= (*scratch).window_len || offset + 8 > (*scratch).window_len || offset & 7 != 0 {
            if !fill(scratch, address, WINDOW_BYTES as u64) {
                return None;
            }
            offset = 0;
        }
        let index = mask::<{ WINDOW_BYTES as u64 / 8 - 1 }>(offset >> 3) as usize;
        Some(*(&raw const (*scratch).window).cast::<u64>().add(index))
    }
}

/// The two words at `address`, from the window, which moves there if need be. Nothing if they
/// cannot be read or the address is not a multiple of 8 away from the window's start.
///
/// # Safety
/// As for [`fill`].
#[inline(always)]
pub(super) unsafe fn pair(scratch: *mut Scratch, address: u64) -> Option<[u64; 2]> {
    // SAFETY: the caller owns the slot; the index is masked to less than the window's length less
    // two.
    unsafe {
        let mut offset = address.wrapping_sub((*scratch).window_start);
        // An address below the window gives an offset near 2^64, to which nothing may be added.
        if offset >= (*scratch).window_len || offset + LEAST_BYTES > (*scratch).window_len || offset & 7 != 0
        {
            if !fill(scratch, address, WINDOW_BYTES as u64) {
                return None;
            }
            offset = 0;
        }
        let index = mask::<{ WINDOW_BYTES as u64 / 8 - 1 }>(offset >> 3) as usize;
        let words = (&raw const (*scratch).window).cast::<u64>();
        Some([*words.add(index), *words.add(index + 1)])
    }
}
