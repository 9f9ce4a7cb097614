//! Reading the live heap, and making room in it.

use std::collections::HashMap;

use aya::Pod;
use aya::maps::MapError;
use tracer_ebpf::{Block, BlockKey, CallKey, HeapSum, PendingCall, ProcessTotals, SEVERAL_PROCESSES, SumKey};

use super::error::BpfError;
use super::object::Object;
use super::{compat, processes, sums};

/// The sums of every stack, where blocks are followed.
pub fn sums(object: &Object) -> Result<Vec<(SumKey, HeapSum)>, BpfError> {
    sums::with_shards(object, &["HEAP_SUMS", "HEAP_SUM_SHARDS"])
}

/// The totals of each process, by its number.
pub fn process_totals(object: &Object) -> Result<Vec<(u32, ProcessTotals)>, BpfError> {
    let rows: Vec<(u32, ProcessTotals)> = object.entries("PROCESS_TOTALS")?;
    let mut heaps: HashMap<u32, ProcessTotals> = rows
        .into_iter()
        .map(|(process, row)| (process, row.with_plain_numbers()))
        .collect();
    for (process, counted) in processes::counted(object)? {
        if counted.frees > 0 {
            heaps.entry(process).or_default().free_calls += counted.frees;
        }
    }
    Ok(heaps.into_iter().collect())
}

/// The totals of all processes together.
pub fn machine_totals(object: &Object) -> Result<ProcessTotals, BpfError> {
    let only: u64 = first_of(object, "ONLY_PROCESS")?;
    if let Ok(process) = u32::try_from(only) {
        return totals_of(object, process);
    }
    debug_assert_eq!(only, SEVERAL_PROCESSES);
    first_of(object, "MACHINE_TOTALS")
}

/// The totals of the machine where no other process has ever held a block.
fn totals_of(object: &Object, process: u32) -> Result<ProcessTotals, BpfError> {
    let totals = object.hash_map::<u32, ProcessTotals>("PROCESS_TOTALS")?;
    let totals = match totals.get(&process, 0) {
        Ok(totals) => totals.with_plain_numbers(),
        Err(MapError::KeyNotFound) => return Ok(ProcessTotals::default()),
        Err(error) => return Err(BpfError::map("PROCESS_TOTALS", error)),
    };
    Ok(if totals.is_over == 0 {
        totals
    } else {
        // With its process went what it held.
        ProcessTotals {
            live_bytes: 0,
            live: 0,
            live_variance: 0,
            live_bytes_variance: 0,
            ..totals
        }
    })
}

/// The only entry of an array.
fn first_of<V: Pod>(object: &Object, name: &str) -> Result<V, BpfError> {
    let array = object.array(name)?;
    array.get(&0, 0).map_err(|error| BpfError::map(name, error))
}

/// Every block that is live.
pub fn blocks(object: &Object) -> Result<Vec<(BlockKey, Block)>, BpfError> {
    object.entries("BLOCKS")
}

/// Takes blocks out of the table. Those that are not there any more are skipped.
pub fn remove_blocks(object: &mut Object, keys: impl Iterator<Item = BlockKey>) -> Result<(), BpfError> {
    let mut blocks = object.hash_map_mut::<BlockKey, Block>("BLOCKS")?;
    for key in keys {
        compat::removed(blocks.remove(&key)).map_err(|error| BpfError::map("BLOCKS", error))?;
    }
    Ok(())
}

/// Calls of allocators that have not returned, without those that are an allocator's own.
pub fn pending_calls(object: &Object) -> Result<Vec<(CallKey, PendingCall)>, BpfError> {
    let mut calls: Vec<(CallKey, PendingCall)> = object.entries("PENDING_CALLS")?;
    calls.retain(|(_, call)| call.flags & PendingCall::NESTED == 0);
    Ok(calls)
}
