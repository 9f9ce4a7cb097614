//! The sums per (process, stack, function), where blocks are followed.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use tracer_ebpf::{BUCKETS, Block, HeapSum, Loss, PendingCall, Sum, SumKey};

use super::amount::Amount;
use crate::{
    aggregate, atomic,
    bounds::mask,
    loss::count_loss,
    maps::{HEAP_SUM_SHARDS, HEAP_SUMS},
    settings, shards,
    unwind::Slot,
};

/// A new sum. A static, since the stack of all functions together has 512 bytes.
static NOTHING: HeapSum = HeapSum {
    sum: Sum::NOTHING,
    blocks: 0,
    freed: 0,
    freed_bytes: 0,
    temporary: 0,
    usable_bytes: 0,
    untracked: 0,
    untracked_bytes: 0,
    blocks_variance: 0,
    freed_variance: 0,
    freed_bytes_variance: 0,
    temporary_variance: 0,
    untracked_variance: 0,
    untracked_bytes_variance: 0,
    sizes: [0; BUCKETS],
    lifetimes: [0; BUCKETS],
};

/// The sum of this key that this CPU adds to; nothing if the table is full.
#[inline(always)]
fn of(key: &SumKey) -> Option<*mut HeapSum> {
    shards::own(&HEAP_SUMS, &HEAP_SUM_SHARDS, key, || {
        make_heap_sum(key.stack, key.process, key.function);
    })
}

/// Makes a sum, and this CPU's shard of it.
///
/// A global function, so that the verifier checks it once. The result means nothing: such a
/// function must have one.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn make_heap_sum(stack: u64, process: u32, function: u32) -> u32 {
    let key = SumKey {
        stack,
        process,
        function,
    };
    shards::make(&HEAP_SUMS, &HEAP_SUM_SHARDS, &key, &NOTHING);
    0
}

/// Makes the sum of a call that has not returned yet, so that its stack is sent while it is at
/// hand.
#[inline(always)]
pub(super) fn prepare(slot: &Slot, key: &SumKey) {
    if let Some(sum) = shards::whole(&HEAP_SUMS, key, &NOTHING) {
        // SAFETY: a pointer to a map value.
        unsafe { aggregate::send_once(slot, &raw mut (*sum).sum, key.process) };
    }
}

/// Adds a call that has returned, and was sampled.
#[inline(always)]
pub(super) fn add_call(call: &PendingCall, failed: bool, address: u64) {
    add(call, failed, address, |_| {});
}

/// The same for one that was not prepared: its stack is in the slot.
#[inline(always)]
pub(super) fn add_whole(slot: &Slot, call: &PendingCall, address: u64) {
    add(call, address == 0, address, |sum| {
        // SAFETY: pointers to map values.
        unsafe {
            // As in `aggregate::add`.
            if (*sum).sent == 0
                && let Some(whole) = HEAP_SUMS.get_ptr_mut(&call.key)
            {
                aggregate::send_once(slot, &raw mut (*whole).sum, call.key.process);
                (*sum).sent = (*whole).sum.sent;
            }
        }
    });
}

#[inline(always)]
fn add(call: &PendingCall, failed: bool, address: u64, with: impl FnOnce(*mut Sum)) {
    let bytes = if failed { 0 } else { call.bytes };
    let mut amount = aggregate::amount(bytes, call.weight as u64);
    if failed {
        amount.failed = amount.calls;
    }
    let Some(sum) = of(&call.key) else {
        count_loss(Loss::StackMapFull);
        aggregate::add_without_stack(&call.key, &amount);
        return;
    };
    // SAFETY: a pointer to a map value, whose fields are only ever added to; the index is masked to
    // the array's length.
    unsafe {
        aggregate::add_to(&raw mut (*sum).sum, &amount);
        with(&raw mut (*sum).sum);
        if address != 0 {
            atomic::add(&raw mut (*sum).blocks, amount.calls);
            if settings::sampled() && amount.calls_variance != 0 {
                atomic::add(&raw mut (*sum).blocks_variance, amount.calls_variance);
            }
            let usable = usable(call, address);
            if usable != 0 {
                atomic::add(&raw mut (*sum).usable_bytes, usable.wrapping_mul(amount.calls));
            }
            let bucket = mask::<{ BUCKETS as u64 - 1 }>(bucket(call.bytes)) as usize;
            atomic::add_short(
                (&raw mut (*sum).sizes).cast::<u32>().add(bucket),
                amount.calls as u32,
            );
        }
    }
}

/// Adds a call of which it is not known how it ends.
#[inline(always)]
pub(super) fn add_undecided(key: &SumKey, weight: u32) {
    aggregate::add_without_stack(key, &aggregate::amount(0, weight as u64));
}

/// Adds a block that was freed.
#[inline(always)]
pub(super) fn add_freed(process: u32, block: &Block, amount: &Amount, now: u64, is_temporary: bool) {
    let key = SumKey {
        stack: block.stack,
        process,
        function: block.function as u32,
    };
    let Some(sum) = of(&key) else {
        let amount = Sum {
            bytes_out: amount.bytes,
            ..Sum::NOTHING
        };
        aggregate::add_without_stack(&key, &amount);
        return;
    };
    // SAFETY: as in `add_call`.
    unsafe {
        atomic::add(&raw mut (*sum).freed, amount.blocks);
        atomic::add(&raw mut (*sum).freed_bytes, amount.bytes);
        if is_temporary {
            atomic::add(&raw mut (*sum).temporary, amount.blocks);
        }
        if settings::sampled() && amount.variance != 0 {
            atomic::add(&raw mut (*sum).freed_variance, amount.variance);
            atomic::add(&raw mut (*sum).freed_bytes_variance, amount.bytes_variance);
            if is_temporary {
                atomic::add(&raw mut (*sum).temporary_variance, amount.variance);
            }
        }
        let age_us = now.wrapping_sub(block.time_ns) / 1000;
        let bucket = mask::<{ BUCKETS as u64 - 1 }>(bucket(age_us)) as usize;
        atomic::add_short(
            (&raw mut (*sum).lifetimes).cast::<u32>().add(bucket),
            amount.blocks as u32,
        );
    }
}

/// Adds a block that had no room in the table of blocks, or whose address is not known.
#[inline(always)]
pub(super) fn add_untracked(key: &SumKey, amount: &Amount) {
    if let Some(sum) = of(key) {
        // SAFETY: as in `add_call`.
        unsafe {
            atomic::add(&raw mut (*sum).untracked, amount.blocks);
            atomic::add(&raw mut (*sum).untracked_bytes, amount.bytes);
            if settings::sampled() && amount.variance != 0 {
                atomic::add(&raw mut (*sum).untracked_variance, amount.variance);
                atomic::add(&raw mut (*sum).untracked_bytes_variance, amount.bytes_variance);
            }
        }
    }
}

/// The binary logarithm, rounded down; 0 of 0; 31 of all that is larger.
#[inline(always)]
pub(crate) fn bucket(value: u64) -> u64 {
    u64::from(binary_logarithm(value))
}

/// Computes [`bucket`].
///
/// A global function, so that the verifier follows its shifts once, and not in each state in which
/// a size or an age is counted.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn binary_logarithm(value: u64) -> u32 {
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
    bucket as u32
}

/// `PREV_INUSE`, `IS_MMAPPED`, `NON_MAIN_ARENA`: the low bits of a chunk's size (glibc,
/// `malloc/malloc.c`).
const CHUNK_FLAGS: u64 = 7;
const IS_MMAPPED: u64 = 2;

/// Bytes that a block has room for, by the word before it: the size of its chunk, of which a mapped
/// one keeps two words for itself, another one, since the next chunk's first word is its own.
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
