//! Exited processes: their blocks are reclaimed, which makes room in the kernel side's map.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tracer_ebpf::ProcessTotals;

use super::process_table::ProcessTable;
use crate::bpf::load::BpfError;
use crate::bpf::{Object, heap};
use crate::clock::{WorkPace, monotonic_ns};

/// The least time between two searches for blocks of exited processes.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(1);

/// A process still counts as holding its memory for so long after its end: the last targets of a
/// recording do not all end at one moment.
const END_GRACE_NS: u64 = 1_000_000_000;

/// The exited processes whose blocks were reclaimed, and the time of the next search.
#[derive(Debug, Default)]
pub(super) struct ExitedProcesses {
    /// A process has ended whose blocks may be in the map.
    is_due: bool,
    /// Images whose blocks were reclaimed, by number.
    reclaimed: HashSet<u32>,
    last: Option<Instant>,
    pace: WorkPace,
}

impl ExitedProcesses {
    /// Notes that a process has ended, or that another image has taken its place.
    pub(super) fn note_exit(&mut self) {
        self.is_due = true;
    }

    /// Removes the blocks of exited processes from the kernel side's map, if that is due. Sums
    /// stay.
    pub(super) fn reclaim(
        &mut self,
        object: &mut Object,
        processes: &mut ProcessTable,
    ) -> Result<(), BpfError> {
        let is_time = self.last.is_none_or(|last| last.elapsed() >= RECLAIM_INTERVAL) && self.pace.is_due();
        if !self.is_due || !is_time {
            return Ok(());
        }
        let began = Instant::now();
        let now_ns = monotonic_ns();
        let mut exited = reclaimable(&heap::process_totals(object)?);
        exited.retain(|number| !self.reclaimed.contains(number));
        for number in &exited {
            // The kernel side knows of the end, even if no record of it has come.
            processes.note_end(*number, now_ns);
        }
        let known = exited.len();
        exited.retain(|number| !still_holds(processes.ended_ns(*number), now_ns));
        // Processes that have just ended are left for the next time.
        self.is_due = exited.len() < known;
        if !exited.is_empty() {
            let mut blocks = heap::blocks(object)?;
            blocks.retain(|(key, _)| exited.contains(&key.process));
            heap::remove_blocks(object, blocks.iter().map(|(key, _)| *key))?;
            log::debug!("{} blocks of ended processes were taken out", blocks.len());
            self.reclaimed.extend(exited);
        }
        self.last = Some(Instant::now());
        self.pace.note_run(began);
        Ok(())
    }
}

/// Returns true if a process counts as holding its memory at `now_ns`, by the time of its end.
pub(super) fn still_holds(ended_ns: Option<u64>, now_ns: u64) -> bool {
    ended_ns.is_none_or(|ended_ns| ended_ns.saturating_add(END_GRACE_NS) >= now_ns)
}

/// Process images whose blocks nobody can free any more: they are over, and no living process has
/// copies of their blocks.
fn reclaimable(heaps: &[(u32, ProcessTotals)]) -> HashSet<u32> {
    let parents: HashMap<u32, u32> = heaps
        .iter()
        .map(|(number, heap)| (*number, heap.parent))
        .collect();
    let mut inherited = HashSet::new();
    for (_, heap) in heaps.iter().filter(|(_, heap)| heap.is_over == 0) {
        let mut parent = heap.parent;
        // Known ancestors have known ancestors, which also ends a circle of numbers.
        while parent != 0 && inherited.insert(parent) {
            parent = parents.get(&parent).copied().unwrap_or(0);
        }
    }
    let over = heaps
        .iter()
        .filter(|(_, heap)| heap.is_over != 0 && heap.child == 0);
    over.map(|(number, _)| *number)
        .filter(|number| !inherited.contains(number))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heap(parent: u32, child: u32, is_over: u32) -> ProcessTotals {
        ProcessTotals {
            parent,
            child,
            is_over,
            ..ProcessTotals::default()
        }
    }

    #[test]
    fn blocks_stay_while_a_descendant_may_free_them() {
        let heaps = [
            (1, heap(0, 0, 1)),
            (2, heap(1, 0, 1)),
            (3, heap(2, 0, 0)),
            (4, heap(0, 0, 1)),
            (5, heap(0, 6, 1)),
            (7, heap(3, 0, 1)),
            (8, heap(0, 0, 0)),
        ];
        assert_eq!(reclaimable(&heaps), HashSet::from([4, 7]));
    }

    #[test]
    fn a_process_that_has_just_ended_still_holds() {
        assert!(still_holds(None, 5));
        assert!(still_holds(Some(5), 5 + END_GRACE_NS));
        assert!(!still_holds(Some(5), 6 + END_GRACE_NS));
        assert!(still_holds(Some(9), 5));
    }
}
