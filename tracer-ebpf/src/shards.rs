//! Sums that each CPU adds to in a shard of its own.
//!
//! One entry that all CPUs add to is one cache line that they all wait for. Programs do not change
//! their CPU while they run, and those that interrupt one another there add atomically, so that a
//! shard is exact. Readers add the shards up: each number only ever grows, and nothing moves from
//! one place to another, so that nothing is seen twice or not at all.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_get_smp_processor_id, maps::HashMap};
use tracer_ebpf::SumKey;

/// The CPU that this program runs on, to its end.
#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() }
}

/// The sum itself, made if there is none; nothing if the table is full.
#[inline(always)]
pub(crate) fn whole<V>(sums: &HashMap<SumKey, V>, key: &SumKey, nothing: &V) -> Option<*mut V> {
    if let Some(sum) = sums.get_ptr_mut(key) {
        return Some(sum);
    }
    // Another CPU may be first, which is as good: the look-up that follows tells.
    match sums.insert(key, nothing, BPF_NOEXIST as u64) {
        Ok(()) | Err(_) => sums.get_ptr_mut(key),
    }
}

/// This CPU's shard of a sum, or the sum itself where there is no room for it; nothing if there is
/// none for the sum either. `make` is called where there is no shard, for a global function that
/// calls [`make`].
#[inline(always)]
pub(crate) fn own<V>(
    sums: &HashMap<SumKey, V>,
    shards: &HashMap<SumKey, V>,
    key: &SumKey,
    make: impl FnOnce(),
) -> Option<*mut V> {
    let own_key = key.on_cpu(cpu());
    if let Some(shard) = shards.get_ptr_mut(&own_key) {
        return Some(shard);
    }
    make();
    if let Some(shard) = shards.get_ptr_mut(&own_key) {
        return Some(shard);
    }
    sums.get_ptr_mut(key)
}

/// Makes a sum and this CPU's shard of it, if there is room for them.
#[inline(always)]
pub(crate) fn make<V>(sums: &HashMap<SumKey, V>, shards: &HashMap<SumKey, V>, key: &SumKey, nothing: &V) {
    // A shard comes after its sum, so that the sums alone decide which stacks there is room for.
    if whole(sums, key, nothing).is_some() {
        let own_key = key.on_cpu(cpu());
        // Full, or another program of this CPU was first: the look-up that follows tells.
        shards
            .insert(&own_key, nothing, BPF_NOEXIST as u64)
            .unwrap_or_default();
    }
}
