//! How often probes were hit, and what of it is taken in.

use aya::maps::{Array, MapData, PerCpuArray};
use tracer_ebpf::{CaptureMode, HitCounts, Process};

use super::compat::batch;
use super::error::BpfError;
use super::load::Object;

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

    /// The processes in the kernel side's table, by process id.
    pub fn listed_processes(&self) -> Result<Vec<(u32, Process)>, BpfError> {
        batch::read_all(self.map_fd("PROCESSES")?).map_err(|error| BpfError::map("PROCESSES", error))
    }
}
