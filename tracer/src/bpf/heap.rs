//! Reading the live heap, and making room in it.

use aya::maps::{Array, HashMap, MapData};
use tracer_ebpf::{Block, BlockKey, CallKey, Heap, HeapSum, PendingCall, SumKey};

use super::compat::batch;
use super::load::{BpfError, Object};

impl Object {
    /// The sums of every stack, where blocks are followed.
    pub fn heap_sums(&self) -> Result<Vec<(SumKey, HeapSum)>, BpfError> {
        batch::read_all(self.map_fd("HEAP_SUMS")?).map_err(|error| BpfError::map("HEAP_SUMS", error))
    }

    /// What each process holds, by its number.
    pub fn heaps(&self) -> Result<Vec<(u32, Heap)>, BpfError> {
        batch::read_all(self.map_fd("HEAPS")?).map_err(|error| BpfError::map("HEAPS", error))
    }

    /// What all processes hold together.
    pub fn heap(&self) -> Result<Heap, BpfError> {
        let map = self
            .ebpf
            .map("HEAP")
            .ok_or_else(|| BpfError::Missing("map HEAP".to_owned()))?;
        let heap = Array::<&MapData, Heap>::try_from(map).map_err(|error| BpfError::map("HEAP", error))?;
        heap.get(&0, 0).map_err(|error| BpfError::map("HEAP", error))
    }

    /// Every block that is live.
    pub fn blocks(&self) -> Result<Vec<(BlockKey, Block)>, BpfError> {
        batch::read_all(self.map_fd("BLOCKS")?).map_err(|error| BpfError::map("BLOCKS", error))
    }

    /// Takes blocks out of the table. Those that are not there any more are passed over.
    pub fn remove_blocks(&mut self, keys: impl Iterator<Item = BlockKey>) -> Result<(), BpfError> {
        let mut blocks = HashMap::<&mut MapData, BlockKey, Block>::try_from(self.map_mut("BLOCKS")?)
            .map_err(|error| BpfError::map("BLOCKS", error))?;
        for key in keys {
            match blocks.remove(&key) {
                Ok(()) | Err(aya::maps::MapError::KeyNotFound) => {}
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
