//! How often probes were hit, and what of it is taken in.

use std::collections::HashMap;

use aya::maps::{Array, MapData, PerCpuArray};
use tracer_ebpf::{CaptureMode, CountWord, HitCounts, Process, ProcessCounts};

use super::compat::batch;
use super::error::BpfError;
use super::object::Counted;
use super::object::Object;

impl Object {
    /// Sets what the kernel side captures.
    pub fn set_capture_mode(&mut self, mode: CaptureMode) -> Result<(), BpfError> {
        let failed = |error| BpfError::map("CAPTURE_MODE", error);
        let mut map = Array::<&mut MapData, u64>::try_from(self.map_mut("CAPTURE_MODE")?).map_err(failed)?;
        map.set(0, mode.number(), 0).map_err(failed)
    }

    /// Hits of probes in allocators since the start, over all CPUs.
    pub fn hit_counts(&self) -> Result<Box<HitCounts>, BpfError> {
        let failed = |error| BpfError::map("HITS", error);
        let map = self
            .ebpf
            .map("HITS")
            .ok_or_else(|| BpfError::Missing("map HITS".to_owned()))?;
        let hits = PerCpuArray::<&MapData, HitCounts>::try_from(map).map_err(failed)?;
        let mut total = Box::<HitCounts>::default();
        for counts in hits.get(&0, 0).map_err(failed)?.iter() {
            for (total, count) in total.by_site.iter_mut().zip(counts.by_site) {
                *total += count;
            }
            for (total, count) in total.by_size.iter_mut().zip(counts.by_size) {
                *total += count;
            }
        }
        Ok(total)
    }

    /// What was counted of each process image by CPUs of their own, by its number. Hits that no CPU
    /// could count so are in [`listed_processes`](Self::listed_processes).
    pub fn counted_by_process(&self) -> Result<HashMap<u32, Counted>, BpfError> {
        let failed = |error| BpfError::map("PROCESS_COUNTS", error);
        let map = self
            .ebpf
            .map("PROCESS_COUNTS")
            .ok_or_else(|| BpfError::Missing("map PROCESS_COUNTS".to_owned()))?;
        let counts = PerCpuArray::<&MapData, ProcessCounts>::try_from(map).map_err(failed)?;
        let mut counted = self.counted.clone();
        for cpu in counts.get(&0, 0).map_err(failed)?.iter() {
            for (hits, frees) in cpu.hits.iter().zip(cpu.frees) {
                let (hits, frees) = (CountWord::unpack(*hits), CountWord::unpack(frees));
                add_counted(&mut counted, hits.process, u64::from(hits.count), 0);
                add_counted(&mut counted, frees.process, 0, u64::from(frees.count));
            }
        }
        Ok(counted)
    }

    /// Takes in what a CPU has counted, and counts anew.
    pub fn take_counted(&mut self, new: Counted) {
        add_counted(&mut self.counted, new.process, new.hits, new.frees);
    }

    /// The processes in the kernel side's table, by process id.
    pub fn listed_processes(&self) -> Result<Vec<(u32, Process)>, BpfError> {
        batch::read_all(self.map_fd("PROCESSES")?).map_err(|error| BpfError::map("PROCESSES", error))
    }
}

/// Adds what was counted of a process; nobody's words have counted nothing.
fn add_counted(counted: &mut HashMap<u32, Counted>, process: u32, hits: u64, frees: u64) {
    if hits == 0 && frees == 0 {
        return;
    }
    let of_process = counted.entry(process).or_insert(Counted {
        process,
        hits: 0,
        frees: 0,
    });
    of_process.hits += hits;
    of_process.frees += frees;
}
