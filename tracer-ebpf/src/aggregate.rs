//! The aggregation of calls in sums, and the records that carry stacks to user space.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_output},
    maps::HashMap,
};
use tracer_ebpf::{
    Counter, Loss, MAX_FRAMES, PROCESS_UNKNOWN, RecordKind, STACK_LOST, StackRecordHeader, Sum, SumKey,
    sampling,
};

use crate::{
    atomic,
    bounds::mask,
    loss::{count, count_loss},
    maps::{LOST, OVERFLOW, RECORDS, SUM_SHARDS, SUMS},
    settings, shards,
    unwind::Slot,
};

/// Adds a call to the sum of its process, stack and function, and sends the stack the first time.
#[inline(always)]
pub(crate) fn add(slot: &Slot, key: &SumKey, amount: &Sum) {
    let Some(sum) = own(&SUMS, key) else {
        count_loss(Loss::StackMapFull);
        add_without_stack(key, amount);
        return;
    };
    // SAFETY: pointers to map values.
    unsafe {
        add_to(sum, amount);
        // A shard has this once the sum has it: most often, nothing is asked of the sum.
        if (*sum).sent == 0
            && let Some(whole) = SUMS.get_ptr_mut(key)
        {
            send_once(slot, whole, key.process);
            (*sum).sent = (*whole).sent;
        }
    }
    count_recorded(key);
}

/// As [`add`], for a stack that was walked, and sent, before.
#[inline(always)]
pub(crate) fn add_known(key: &SumKey, amount: &Sum) {
    let Some(sum) = own(&SUMS, key) else {
        count_loss(Loss::StackMapFull);
        add_without_stack(key, amount);
        return;
    };
    // SAFETY: a pointer to a map value.
    unsafe { add_to(sum, amount) };
    count_recorded(key);
}

/// Sends the slot's stack, if that has not been done for this sum.
///
/// # Safety
/// `sum` must point to a map value.
#[inline(always)]
pub(crate) unsafe fn send_once(slot: &Slot, sum: *mut Sum, process: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*sum).sent == 0 && send_stack(slot, process) {
            (*sum).sent = 1;
        }
    }
}

/// Makes the sum of a call that has not returned yet, so that the stack is sent while it is in the
/// slot.
#[inline(always)]
pub(crate) fn prepare(slot: &Slot, key: &SumKey) {
    if let Some(sum) = shards::whole(&SUMS, key, &NOTHING) {
        // SAFETY: a pointer to a map value.
        unsafe { send_once(slot, sum, key.process) };
    }
}

/// Adds a call whose stack is not known: totals stay exact. The loss is the caller's to count.
#[inline(always)]
pub(crate) fn add_without_stack(key: &SumKey, amount: &Sum) {
    let key = SumKey {
        stack: STACK_LOST,
        ..*key
    };
    let sum = match own(&LOST, &key) {
        Some(sum) => sum,
        None => match OVERFLOW.get_ptr_mut(key.function) {
            Some(sum) => sum,
            None => return,
        },
    };
    // SAFETY: both give pointers to map values.
    unsafe { add_to(sum, amount) };
}

#[inline(always)]
fn count_recorded(key: &SumKey) {
    if key.process == PROCESS_UNKNOWN {
        count_loss(Loss::ProcessMapFull);
    } else {
        count(Counter::Recorded);
    }
}

/// The sum that this CPU adds to. `sums` is the one of `SUMS` and `LOST` that the key belongs to.
#[inline(always)]
fn own(sums: &HashMap<SumKey, Sum>, key: &SumKey) -> Option<*mut Sum> {
    shards::own(sums, &SUM_SHARDS, key, || {
        make_sum(key.stack, key.process, key.function);
    })
}

/// Makes a sum, and this CPU's shard of it.
///
/// A global function, so that the verifier checks it once. The result means nothing: such a
/// function must have one.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn make_sum(stack: u64, process: u32, function: u32) -> u32 {
    let key = SumKey {
        stack,
        process,
        function,
    };
    if stack == STACK_LOST {
        shards::make(&LOST, &SUM_SHARDS, &key, &NOTHING);
    } else {
        shards::make(&SUMS, &SUM_SHARDS, &key, &NOTHING);
    }
    0
}

/// A new sum. A static, since the stack of all functions together has 512 bytes.
static NOTHING: Sum = Sum::NOTHING;

/// The figures of a call of so many bytes with this sample weight.
#[inline(always)]
pub(crate) fn amount(bytes: u64, weight: u64) -> Sum {
    let mut amount = Sum {
        calls: 1,
        bytes,
        ..Sum::NOTHING
    };
    if settings::sampled() {
        amount.calls = weight;
        amount.bytes = bytes.wrapping_mul(weight);
        amount.hits = 1;
        amount.calls_variance = sampling::count_variance(weight);
        amount.bytes_variance = sampling::bytes_variance(bytes, weight, settings::variance_shift());
    }
    amount
}

/// # Safety
/// `sum` must point to a map value.
#[inline(always)]
pub(crate) unsafe fn add_to(sum: *mut Sum, amount: &Sum) {
    // SAFETY: the caller's promise; the fields are only ever added to.
    unsafe {
        atomic::add(&raw mut (*sum).calls, amount.calls);
        if amount.bytes != 0 {
            atomic::add(&raw mut (*sum).bytes, amount.bytes);
        }
        if amount.bytes_out != 0 {
            atomic::add(&raw mut (*sum).bytes_out, amount.bytes_out);
        }
        if amount.failed != 0 {
            atomic::add(&raw mut (*sum).failed, amount.failed);
        }
        if settings::sampled() && amount.hits != 0 {
            atomic::add(&raw mut (*sum).hits, amount.hits);
            // Zero for all that is sampled for sure.
            if amount.calls_variance != 0 {
                atomic::add(&raw mut (*sum).calls_variance, amount.calls_variance);
                atomic::add(&raw mut (*sum).bytes_variance, amount.bytes_variance);
            }
        }
    }
}

/// Sends the slot's stack. False if the ring is full.
#[inline(always)]
fn send_stack(slot: &Slot, process: u32) -> bool {
    // SAFETY: the slot is the caller's; the clock is a helper without arguments.
    let sent = unsafe {
        let record = &raw mut (*slot.scratch()).record;
        (*record).header.kind = RecordKind::Stack as u32;
        (*record).header.time_ns = bpf_ktime_get_ns();
        (*record).header.process = process;
        let frames = mask::<{ MAX_FRAMES as u64 }>((*record).header.frames_len as u64);
        let len = size_of::<StackRecordHeader>() as u64 + 8 * frames;
        output(record.cast(), len, false)
    };
    count(if sent {
        Counter::StackSent
    } else {
        Counter::StackDeferred
    });
    sent
}

/// Sends a record of fixed size. False if the ring is full. `urgent`: user space is to come at
/// once.
#[inline(always)]
pub(crate) fn send_record<T>(record: &T, urgent: bool) -> bool {
    // SAFETY: a reference to `size_of::<T>()` initialised bytes on the program's stack.
    unsafe {
        output(
            (&raw const *record).cast_mut().cast(),
            size_of::<T>() as u64,
            urgent,
        )
    }
}

/// The flags for a record: whether it wakes user space up.
#[inline(always)]
pub(crate) fn record_flags(urgent: bool) -> u64 {
    // A wake-up costs the target some six microseconds, so that user space polls by a timer. A
    // record that cannot wait, and a ring that fills up, wake it.
    let urgent =
        urgent || RECORDS.query(BPF_RB_AVAIL_DATA as u64) > RECORDS.query(BPF_RB_RING_SIZE as u64) / 4;
    if urgent {
        BPF_RB_FORCE_WAKEUP as u64
    } else {
        BPF_RB_NO_WAKEUP as u64
    }
}

/// # Safety
/// `bytes` must point to `len` initialised bytes of a map value or of the program's stack.
#[inline(always)]
unsafe fn output(bytes: *mut core::ffi::c_void, len: u64, urgent: bool) -> bool {
    let flags = record_flags(urgent);
    // SAFETY: the caller's promise; the map is a ring buffer.
    unsafe { bpf_ringbuf_output((&raw const RECORDS).cast_mut().cast(), bytes, len, flags) == 0 }
}
