//! The totals of each process, exact in time, and those of the machine.
//!
//! A peak is exact because each change of what is live has its place among all others: all CPUs of
//! a process change the same two words. The machine's totals are changed only where several
//! processes have held blocks. Everything else that is counted of a process is counted by each CPU
//! for itself.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_ktime_get_ns};
use tracer_ebpf::{LiveWord, Loss, ProcessTotals, SEVERAL_PROCESSES};

use super::amount::Amount;
use crate::{
    atomic,
    loss::count_loss,
    maps::{MACHINE_TOTALS, ONLY_PROCESS, PROCESS_TOTALS},
    process_counts, settings,
};

/// An empty row. A static, since the stack of all functions together has 512 bytes.
static NOTHING: ProcessTotals = ProcessTotals {
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

/// Attempts to raise a peak: CPUs that raise it at the same time are few.
const TURNS: u32 = 8;

/// The row of a process, made if there is none.
#[inline(always)]
pub(super) fn of(process: u32) -> Option<*mut ProcessTotals> {
    if let Some(heap) = PROCESS_TOTALS.get_ptr_mut(&process) {
        return Some(heap);
    }
    make_totals(process);
    PROCESS_TOTALS.get_ptr_mut(&process)
}

/// Makes the row of a process, and counts it in the machine's totals from now on together with that
/// of the process that has been alone so far. A process that is alone is not counted there: what it
/// holds is what the machine holds.
///
/// A global function, so that the verifier checks it once. The result means nothing: such a
/// function must have one.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn make_totals(process: u32) -> u32 {
    let is_made = PROCESS_TOTALS
        .insert(&process, &NOTHING, BPF_NOEXIST as u64)
        .is_ok();
    let (Some(heap), Some(only)) = (PROCESS_TOTALS.get_ptr_mut(&process), ONLY_PROCESS.get_ptr_mut(0)) else {
        count_loss(Loss::HeapMapFull);
        return 0;
    };
    if !is_made {
        // Another CPU was first, which is as good.
        return 0;
    }
    // SAFETY: pointers to map values. Who makes a row is one, and so is who swaps the number of a
    // process out.
    unsafe {
        if atomic::replace(only, 0, process as u64) {
            return 0;
        }
        let before = atomic::swap(only, SEVERAL_PROCESSES);
        if before != SEVERAL_PROCESSES
            && let Some(first) = PROCESS_TOTALS.get_ptr_mut(&(before as u32))
        {
            count_in_all(first);
        }
        count_in_all(heap);
    }
    0
}

/// Adds what a process holds to the machine's totals; from now on, changes of it change them too.
///
/// # Safety
/// `heap` must point to a map value, for which this has not been called yet.
#[inline(always)]
unsafe fn count_in_all(heap: *mut ProcessTotals) {
    // SAFETY: the caller's promise; words are changed by atomic operations alone.
    unsafe {
        let bytes = LiveWord(atomic::fetch_add(
            &raw mut (*heap).live_bytes,
            LiveWord::COUNTED_IN_ALL,
        ));
        let live = LiveWord(atomic::fetch_add(&raw mut (*heap).live, LiveWord::COUNTED_IN_ALL));
        let Some(all) = MACHINE_TOTALS.get_ptr_mut(0) else {
            return;
        };
        let held = Amount {
            blocks: live.value(),
            bytes: bytes.value(),
            variance: (*heap).live_variance,
            bytes_variance: (*heap).live_bytes_variance,
        };
        // What it has held alone, and then what it adds to others.
        let variances = (
            &raw const (*heap).peak_variance,
            &raw const (*heap).peak_bytes_variance,
        );
        raise(all, (*heap).peak_bytes, (*heap).peak, variances);
        if !bytes.has_ended() {
            grow_row(all, &held);
        }
    }
}

/// Adds a block that is live from now on.
#[inline(always)]
pub(super) fn grow(process: u32, amount: &Amount) {
    if let Some(heap) = of(process) {
        // SAFETY: the pointer is to a map value.
        let counted = unsafe { grow_row(heap, amount) };
        if let (Some(counted), Some(all)) = (counted, MACHINE_TOTALS.get_ptr_mut(0)) {
            // SAFETY: as above.
            unsafe { grow_row(all, &counted) };
        }
    }
}

/// Takes a block off that is live no more.
#[inline(always)]
pub(super) fn shrink(process: u32, amount: &Amount) {
    if let Some(heap) = of(process) {
        // SAFETY: the pointer is to a map value.
        let counted = unsafe { shrink_row(heap, amount) };
        if let (Some(counted), Some(all)) = (counted, MACHINE_TOTALS.get_ptr_mut(0)) {
            // SAFETY: as above.
            unsafe { shrink_row(all, &counted) };
        }
    }
}

/// Adds to a row. Returns what is to be added to the machine's.
///
/// # Safety
/// `heap` must point to a map value.
#[inline(always)]
unsafe fn grow_row(heap: *mut ProcessTotals, amount: &Amount) -> Option<Amount> {
    // SAFETY: the caller's promise; these fields are changed by atomic operations alone.
    unsafe {
        let live = LiveWord(atomic::fetch_add(&raw mut (*heap).live, amount.blocks));
        if settings::sampled() {
            atomic::add(&raw mut (*heap).live_variance, amount.variance);
            atomic::add(&raw mut (*heap).live_bytes_variance, amount.bytes_variance);
        }
        let bytes = LiveWord(atomic::fetch_add(&raw mut (*heap).live_bytes, amount.bytes));
        let variances = (
            &raw const (*heap).live_variance,
            &raw const (*heap).live_bytes_variance,
        );
        raise(
            heap,
            bytes.value().wrapping_add(amount.bytes),
            live.value().wrapping_add(amount.blocks),
            variances,
        );
        amount.counted_in_all(live, bytes)
    }
}

/// Raises the peak of a row, if so many bytes are more. `variances`: of the blocks and of their
/// bytes.
///
/// # Safety
/// All must point to map values.
#[inline(always)]
unsafe fn raise(heap: *mut ProcessTotals, live_bytes: u64, live: u64, variances: (*const u64, *const u64)) {
    // SAFETY: the caller's promise; these fields are changed by whole words alone.
    unsafe {
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
                    let variance = core::ptr::read_volatile(variances.0);
                    core::ptr::write_volatile(&raw mut (*heap).peak_variance, variance);
                    let variance = core::ptr::read_volatile(variances.1);
                    core::ptr::write_volatile(&raw mut (*heap).peak_bytes_variance, variance);
                }
                break;
            }
            turn += 1;
        }
    }
}

/// Takes from a row. Returns what is to be taken from the machine's.
///
/// # Safety
/// As for [`grow_row`].
#[inline(always)]
unsafe fn shrink_row(heap: *mut ProcessTotals, amount: &Amount) -> Option<Amount> {
    // SAFETY: the caller's promise.
    unsafe {
        let live = LiveWord(atomic::fetch_add(
            &raw mut (*heap).live,
            amount.blocks.wrapping_neg(),
        ));
        let bytes = LiveWord(atomic::fetch_add(
            &raw mut (*heap).live_bytes,
            amount.bytes.wrapping_neg(),
        ));
        if settings::sampled() {
            atomic::add(&raw mut (*heap).live_variance, amount.variance.wrapping_neg());
            atomic::add(
                &raw mut (*heap).live_bytes_variance,
                amount.bytes_variance.wrapping_neg(),
            );
        }
        amount.counted_in_all(live, bytes)
    }
}

/// Counts a call of `free`.
#[inline(always)]
pub(super) fn called_free(process: u32) {
    if !process_counts::count_free(process)
        && let Some(heap) = of(process)
    {
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

/// The blocks that a process holds.
///
/// # Safety
/// `heap` must point to a map value.
#[inline(always)]
unsafe fn held(heap: *const ProcessTotals) -> Amount {
    // SAFETY: the caller's promise.
    unsafe {
        Amount {
            blocks: LiveWord((*heap).live).value(),
            bytes: LiveWord((*heap).live_bytes).value(),
            variance: (*heap).live_variance,
            bytes_variance: (*heap).live_bytes_variance,
        }
    }
}

/// Begins the totals of a child that has copies of its parent's blocks.
#[inline(always)]
pub(crate) fn forked(parent: u32, child: u32) {
    let Some(from) = PROCESS_TOTALS.get_ptr_mut(&parent) else {
        // It has no blocks.
        return;
    };
    let Some(to) = of(child) else { return };
    // SAFETY: pointers to map values; the child has not run yet, so that its row is only ours. It
    // is counted in the machine's totals by now, since its parent was there before.
    unsafe {
        let copied = held(from);
        grow(child, &copied);
        (*to).parent = parent;
        (*to).forked_ns = bpf_ktime_get_ns();
        (*to).sibling = (*from).child;
        (*from).child = child;
    }
}

/// Ends the totals of a process image that has executed another program: its blocks are gone, its
/// figures stand.
#[inline(always)]
pub(crate) fn executed(before: u32) {
    end(before);
}

/// Ends the totals of a process that has exited, likewise.
#[inline(always)]
pub(crate) fn exited(process: u32) {
    end(process);
}

#[inline(always)]
fn end(process: u32) {
    let Some(heap) = PROCESS_TOTALS.get_ptr_mut(&process) else {
        return;
    };
    // SAFETY: the pointer is to a map value.
    unsafe {
        if (*heap).is_over != 0 {
            return;
        }
        (*heap).is_over = 1;
        let held = held(heap);
        // If it is not counted in the machine's totals by now, it never will be.
        let bytes = LiveWord(atomic::fetch_add(&raw mut (*heap).live_bytes, LiveWord::ENDED));
        if bytes.is_counted_in_all()
            && let Some(all) = MACHINE_TOTALS.get_ptr_mut(0)
        {
            shrink_row(all, &held);
        }
        // Those before it are still there; the others are found by their younger siblings.
        if let Some(parent) = PROCESS_TOTALS.get_ptr_mut(&(*heap).parent)
            && (*parent).child == process
        {
            (*parent).child = (*heap).sibling;
        }
    }
}
