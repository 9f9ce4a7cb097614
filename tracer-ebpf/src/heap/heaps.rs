//! What each process holds, exact in time; and what all hold together.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_ktime_get_ns};
use tracer_ebpf::{Heap, Loss};

use super::amount::Amount;
use crate::{
    atomic,
    loss::lose,
    maps::{HEAP, HEAPS},
    settings,
};

/// An empty row. A static, since the stack of all functions together has 512 bytes.
static NOTHING: Heap = Heap {
    live_bytes: 0,
    live: 0,
    peak_bytes: 0,
    peak: 0,
    live_variance: 0,
    live_bytes_variance: 0,
    peak_variance: 0,
    peak_bytes_variance: 0,
    free_calls: 0,
    unmatched: 0,
    missed: 0,
    forked_ns: 0,
    parent: 0,
    child: 0,
    sibling: 0,
    is_over: 0,
};

/// Turns of the loop that raises a peak: others that raise it at the same time are few.
const TURNS: u32 = 8;

/// The row of a process, made if there is none.
#[inline(always)]
pub(super) fn of(process: u32) -> Option<*mut Heap> {
    if let Some(heap) = HEAPS.get_ptr_mut(&process) {
        return Some(heap);
    }
    // Another CPU may be first, which is as good: the look-up that follows tells.
    let made = HEAPS.insert(&process, &NOTHING, BPF_NOEXIST as u64);
    let heap = HEAPS.get_ptr_mut(&process);
    if heap.is_none() && made.is_err() {
        lose(Loss::HeapMapFull);
    }
    heap
}

/// A block is live from now on.
#[inline(always)]
pub(super) fn grow(process: u32, amount: &Amount) {
    if let Some(heap) = of(process) {
        // SAFETY: the pointer is to a map value.
        unsafe { grow_row(heap, amount) };
    }
    if let Some(heap) = HEAP.get_ptr_mut(0) {
        // SAFETY: as above.
        unsafe { grow_row(heap, amount) };
    }
}

/// A block is live no more.
#[inline(always)]
pub(super) fn shrink(process: u32, amount: &Amount) {
    if let Some(heap) = of(process) {
        // SAFETY: the pointer is to a map value.
        unsafe { shrink_row(heap, amount) };
    }
    if let Some(heap) = HEAP.get_ptr_mut(0) {
        // SAFETY: as above.
        unsafe { shrink_row(heap, amount) };
    }
}

/// # Safety
/// `heap` must point to a map value.
#[inline(always)]
unsafe fn grow_row(heap: *mut Heap, amount: &Amount) {
    // SAFETY: the caller's promise; these fields are changed by atomic operations alone.
    unsafe {
        let live = atomic::fetch_add(&raw mut (*heap).live, amount.blocks) + amount.blocks;
        if settings::sampled() {
            atomic::add(&raw mut (*heap).live_variance, amount.variance);
            atomic::add(&raw mut (*heap).live_bytes_variance, amount.bytes_variance);
        }
        let live_bytes = atomic::fetch_add(&raw mut (*heap).live_bytes, amount.bytes) + amount.bytes;
        let peak = &raw mut (*heap).peak_bytes;
        let mut turn = 0;
        while turn < TURNS {
            let before = core::ptr::read_volatile(peak);
            if live_bytes <= before {
                break;
            }
            if atomic::replace(peak, before, live_bytes) {
                core::ptr::write_volatile(&raw mut (*heap).peak, live);
                if settings::sampled() {
                    let variance = core::ptr::read_volatile(&raw const (*heap).live_variance);
                    core::ptr::write_volatile(&raw mut (*heap).peak_variance, variance);
                    let variance = core::ptr::read_volatile(&raw const (*heap).live_bytes_variance);
                    core::ptr::write_volatile(&raw mut (*heap).peak_bytes_variance, variance);
                }
                break;
            }
            turn += 1;
        }
    }
}

/// # Safety
/// As for [`grow_row`].
#[inline(always)]
unsafe fn shrink_row(heap: *mut Heap, amount: &Amount) {
    // SAFETY: the caller's promise.
    unsafe {
        atomic::add(&raw mut (*heap).live, amount.blocks.wrapping_neg());
        atomic::add(&raw mut (*heap).live_bytes, amount.bytes.wrapping_neg());
        if settings::sampled() {
            atomic::add(&raw mut (*heap).live_variance, amount.variance.wrapping_neg());
            atomic::add(
                &raw mut (*heap).live_bytes_variance,
                amount.bytes_variance.wrapping_neg(),
            );
        }
    }
}

/// Counts a call of `free`.
#[inline(always)]
pub(super) fn called_free(process: u32) {
    if let Some(heap) = of(process) {
        // SAFETY: the pointer is to a map value.
        unsafe { atomic::add(&raw mut (*heap).free_calls, 1) };
    }
}

/// Counts a block that was given back and is not known.
#[inline(always)]
pub(super) fn unmatched(process: u32) {
    if let Some(heap) = of(process) {
        // SAFETY: the pointer is to a map value.
        unsafe { atomic::add(&raw mut (*heap).unmatched, 1) };
    }
}

/// Counts a block that was allocated again though no free of it was seen.
#[inline(always)]
pub(super) fn missed(process: u32) {
    if let Some(heap) = of(process) {
        // SAFETY: the pointer is to a map value.
        unsafe { atomic::add(&raw mut (*heap).missed, 1) };
    }
}

/// What a process holds.
///
/// # Safety
/// `heap` must point to a map value.
#[inline(always)]
unsafe fn held(heap: *const Heap) -> Amount {
    // SAFETY: the caller's promise.
    unsafe {
        Amount {
            blocks: (*heap).live,
            bytes: (*heap).live_bytes,
            variance: (*heap).live_variance,
            bytes_variance: (*heap).live_bytes_variance,
        }
    }
}

/// A process has made a child with copies of its blocks.
#[inline(always)]
pub(crate) fn forked(parent: u32, child: u32) {
    let Some(from) = HEAPS.get_ptr_mut(&parent) else {
        // It has no blocks.
        return;
    };
    let Some(to) = of(child) else { return };
    // SAFETY: pointers to map values; the child has not run yet, so that its row is only ours.
    unsafe {
        let now = bpf_ktime_get_ns();
        let copied = held(from);
        (*to).live_bytes = copied.bytes;
        (*to).live = copied.blocks;
        (*to).peak_bytes = copied.bytes;
        (*to).peak = copied.blocks;
        (*to).live_variance = copied.variance;
        (*to).live_bytes_variance = copied.bytes_variance;
        (*to).peak_variance = copied.variance;
        (*to).peak_bytes_variance = copied.bytes_variance;
        (*to).parent = parent;
        (*to).forked_ns = now;
        (*to).sibling = (*from).child;
        (*from).child = child;
        if let Some(all) = HEAP.get_ptr_mut(0) {
            grow_row(all, &copied);
        }
    }
}

/// A process has executed another program: its blocks are gone, and its figures stand as they were.
#[inline(always)]
pub(crate) fn executed(before: u32) {
    end(before);
}

/// A process has ended: likewise.
#[inline(always)]
pub(crate) fn exited(process: u32) {
    end(process);
}

#[inline(always)]
fn end(process: u32) {
    let Some(heap) = HEAPS.get_ptr_mut(&process) else {
        return;
    };
    // SAFETY: the pointer is to a map value.
    unsafe {
        if (*heap).is_over != 0 {
            return;
        }
        (*heap).is_over = 1;
        if let Some(all) = HEAP.get_ptr_mut(0) {
            shrink_row(all, &held(heap));
        }
        // Those before it are still there; the others are found by their younger siblings.
        if let Some(parent) = HEAPS.get_ptr_mut(&(*heap).parent)
            && (*parent).child == process
        {
            (*parent).child = (*heap).sibling;
        }
    }
}
