//! Reading the live heap, and making room in it.

use std::collections::HashMap;

use aya::Pod;
use aya::maps::{Array, MapData, MapError};
use tracer_ebpf::{Block, BlockKey, CallKey, HeapSum, PendingCall, ProcessTotals, SEVERAL_PROCESSES, SumKey};

use super::compat::batch;
use super::error::BpfError;
use super::object::Object;

impl Object {
    /// The sums of every stack, where blocks are followed.
    pub fn heap_sums(&self) -> Result<Vec<(SumKey, HeapSum)>, BpfError> {
        self.with_shards(&["HEAP_SUMS", "HEAP_SUM_SHARDS"])
    }

    /// What each process holds, by its number.
    pub fn process_totals(&self) -> Result<Vec<(u32, ProcessTotals)>, BpfError> {
        let rows: Vec<(u32, ProcessTotals)> = batch::read_all(self.map_fd("PROCESS_TOTALS")?)
            .map_err(|error| BpfError::map("PROCESS_TOTALS", error))?;
        let mut heaps: HashMap<u32, ProcessTotals> = rows
            .into_iter()
            .map(|(process, row)| (process, row.with_plain_numbers()))
            .collect();
        for (process, counted) in self.counted_by_process()? {
            if counted.frees > 0 {
                heaps.entry(process).or_default().free_calls += counted.frees;
            }
        }
        Ok(heaps.into_iter().collect())
    }

    /// What all processes hold together.
    pub fn machine_totals(&self) -> Result<ProcessTotals, BpfError> {
        let only: u64 = self.first_of("ONLY_PROCESS")?;
        if let Ok(process) = u32::try_from(only) {
            return self.totals_of(process);
        }
        debug_assert_eq!(only, SEVERAL_PROCESSES);
        self.first_of("MACHINE_TOTALS")
    }

    /// What is held where no other process has ever held anything.
    fn totals_of(&self, process: u32) -> Result<ProcessTotals, BpfError> {
        let failed = |error| BpfError::map("PROCESS_TOTALS", error);
        let map = self.ebpf.map("PROCESS_TOTALS");
        let map = map.ok_or_else(|| BpfError::Missing("map PROCESS_TOTALS".to_owned()))?;
        let heaps = aya::maps::HashMap::<&MapData, u32, ProcessTotals>::try_from(map).map_err(failed)?;
        let heap = match heaps.get(&process, 0) {
            Ok(heap) => heap.with_plain_numbers(),
            Err(MapError::KeyNotFound) => return Ok(ProcessTotals::default()),
            Err(error) => return Err(failed(error)),
        };
        Ok(if heap.is_over == 0 {
            heap
        } else {
            // With its process went what it held.
            ProcessTotals {
                live_bytes: 0,
                live: 0,
                live_variance: 0,
                live_bytes_variance: 0,
                ..heap
            }
        })
    }

    /// The only entry of an array.
    fn first_of<V: Pod>(&self, name: &str) -> Result<V, BpfError> {
        let map = self.ebpf.map(name);
        let map = map.ok_or_else(|| BpfError::Missing(format!("map {name}")))?;
        let array = Array::<&MapData, V>::try_from(map).map_err(|error| BpfError::map(name, error))?;
        array.get(&0, 0).map_err(|error| BpfError::map(name, error))
    }

    /// Every block that is live.
    pub fn blocks(&self) -> Result<Vec<(BlockKey, Block)>, BpfError> {
        batch::read_all(self.map_fd("BLOCKS")?).map_err(|error| BpfError::map("BLOCKS", error))
    }

    /// Takes blocks out of the table. Those that are not there any more are skipped.
    pub fn remove_blocks(&mut self, keys: impl Iterator<Item = BlockKey>) -> Result<(), BpfError> {
        let mut blocks =
            aya::maps::HashMap::<&mut MapData, BlockKey, Block>::try_from(self.map_mut("BLOCKS")?)
                .map_err(|error| BpfError::map("BLOCKS", error))?;
        for key in keys {
            match blocks.remove(&key) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(BpfError::map("BLOCKS", error)),
            }
        }
        Ok(())
    }

    /// Calls of allocators that have not returned, without those that are an allocator's own.
    pub fn pending_calls(&self) -> Result<Vec<(CallKey, PendingCall)>, BpfError> {
        let mut calls: Vec<(CallKey, PendingCall)> = batch::read_all(self.map_fd("PENDING_CALLS")?)
            .map_err(|error| BpfError::map("PENDING_CALLS", error))?;
        calls.retain(|(_, call)| call.flags & PendingCall::NESTED == 0);
        Ok(calls)
    }
}
