//! The sums per (process, stack, function), where blocks are followed.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_probe_read_user};
use tracer_ebpf::{BUCKETS, Block, HeapSum, Loss, PendingCall, Sum, SumKey};

use crate::{atomic, bounds::mask, loss::lose, maps::HEAP_SUMS, stack::Slot, tally};

/// A new sum. A static, since the stack of all functions together has 512 bytes.
static NOTHING: HeapSum = HeapSum {
    sum: Sum {
        calls: 0,
        bytes: 0,
        bytes_out: 0,
        failed: 0,
        sent: 0,
    },
    blocks: 0,
    freed: 0,
    freed_bytes: 0,
    temporary: 0,
    usable_bytes: 0,
    untracked: 0,
    untracked_bytes: 0,
    sizes: [0; BUCKETS],
    lifetimes: [0; BUCKETS],
};

/// The sum of this key, made if there is none; nothing if the table is full.
#[inline(always)]
fn of(key: &SumKey) -> Option<*mut HeapSum> {
    if let Some(sum) = HEAP_SUMS.get_ptr_mut(key) {
        return Some(sum);
    }
    // Another CPU may be first, which is as good: the look-up that follows tells.
    match HEAP_SUMS.insert(key, &NOTHING, BPF_NOEXIST as u64) {
        Ok(()) | Err(_) => HEAP_SUMS.get_ptr_mut(key),
    }
}

/// Makes the sum of a call that has not returned yet, so that its stack is sent while it is at hand.
#[inline(always)]
pub(super) fn prepare(slot: &Slot, key: &SumKey) {
    if let Some(sum) = of(key) {
        // SAFETY: a pointer to a map value.
        unsafe { tally::send_once(slot, &raw mut (*sum).sum, key.process) };
    }
}

/// Adds a call that has returned.
#[inline(always)]
pub(super) fn add_call(call: &PendingCall, failed: bool, address: u64) {
    add(call, failed, address, |_| {});
}

/// The same for one that was not prepared: its stack is in the slot.
#[inline(always)]
pub(super) fn add_whole(slot: &Slot, call: &PendingCall, address: u64) {
    add(call, address == 0, address, |sum| {
        // SAFETY: a pointer to a map value.
        unsafe { tally::send_once(slot, sum, call.key.process) };
    });
}

#[inline(always)]
fn add(call: &PendingCall, failed: bool, address: u64, with: impl FnOnce(*mut Sum)) {
    let bytes = if failed { 0 } else { call.bytes };
    let amount = Sum {
        calls: 1,
        bytes,
        bytes_out: 0,
        failed: u64::from(failed),
        sent: 0,
    };
    let Some(sum) = of(&call.key) else {
        lose(Loss::StackMapFull);
        tally::add_without_stack(&call.key, &amount);
        return;
    };
    // SAFETY: a pointer to a map value, whose fields are only ever added to; the index is masked to the array's length.
    unsafe {
        tally::add_to(&raw mut (*sum).sum, &amount);
        with(&raw mut (*sum).sum);
        if address != 0 {
            atomic::add(&raw mut (*sum).blocks, 1);
            let usable = usable(call, address);
            if usable != 0 {
                atomic::add(&raw mut (*sum).usable_bytes, usable);
            }
            let bucket = mask::<{ BUCKETS as u64 - 1 }>(bucket(call.bytes)) as usize;
            atomic::increment((&raw mut (*sum).sizes).cast::<u32>().add(bucket));
        }
    }
}

/// Adds a call of which it is not known how it ends.
#[inline(always)]
pub(super) fn add_undecided(key: &SumKey) {
    let amount = Sum {
        calls: 1,
        bytes: 0,
        bytes_out: 0,
        failed: 0,
        sent: 0,
    };
    tally::add_without_stack(key, &amount);
}

/// Adds a block that was given back.
#[inline(always)]
pub(super) fn add_freed(process: u32, block: &Block, now: u64, is_temporary: bool) {
    let key = SumKey {
        stack: block.stack,
        process,
        function: block.function,
    };
    let Some(sum) = of(&key) else {
        let amount = Sum {
            calls: 0,
            bytes: 0,
            bytes_out: block.bytes,
            failed: 0,
            sent: 0,
        };
        tally::add_without_stack(&key, &amount);
        return;
    };
    // SAFETY: as in `add_call`.
    unsafe {
        atomic::add(&raw mut (*sum).freed, 1);
        atomic::add(&raw mut (*sum).freed_bytes, block.bytes);
        if is_temporary {
            atomic::add(&raw mut (*sum).temporary, 1);
        }
        let age_us = now.wrapping_sub(block.time_ns) / 1000;
        let bucket = mask::<{ BUCKETS as u64 - 1 }>(bucket(age_us)) as usize;
        atomic::increment((&raw mut (*sum).lifetimes).cast::<u32>().add(bucket));
    }
}

/// Adds a block that had no room in the table of blocks.
#[inline(always)]
pub(super) fn add_untracked(key: &SumKey, bytes: u64) {
    if let Some(sum) = of(key) {
        // SAFETY: as in `add_call`.
        unsafe {
            atomic::add(&raw mut (*sum).untracked, 1);
            atomic::add(&raw mut (*sum).untracked_bytes, bytes);
        }
    }
}

/// The binary logarithm, rounded down; 0 of 0; 31 of all that is larger.
#[inline(always)]
fn bucket(value: u64) -> u64 {
    if value >= 1 << 31 {
        return 31;
    }
    let mut rest = value;
    let mut bucket = 0;
    // Without branches: the verifier would follow each way.
    let mut step = 16;
    while step != 0 {
        let above = u64::from(rest >> step != 0) * step;
        rest >>= above;
        bucket += above;
        step >>= 1;
    }
    bucket
}

/// `PREV_INUSE`, `IS_MMAPPED`, `NON_MAIN_ARENA`: the low bits of a chunk's size (glibc, `malloc/malloc.c`).
const CHUNK_FLAGS: u64 = 7;
const IS_MMAPPED: u64 = 2;

/// Bytes that a block has room for, by the word before it: the size of its chunk, of which a mapped one keeps two words
/// for itself, another one, since the next chunk's first word is its own.
#[inline(always)]
fn usable(call: &PendingCall, address: u64) -> u64 {
    if call.flags & PendingCall::GLIBC_CHUNKS == 0 {
        return 0;
    }
    let mut size = 0u64;
    // SAFETY: the helper checks the user's address, and writes eight bytes to a local.
    let status =
        unsafe { bpf_probe_read_user((&raw mut size).cast(), 8, address.wrapping_sub(8) as *const _) };
    if status != 0 {
        return 0;
    }
    let header = if size & IS_MMAPPED == 0 { 8 } else { 16 };
    (size & !CHUNK_FLAGS).saturating_sub(header)
}
