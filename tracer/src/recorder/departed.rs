//! The blocks of processes that have ended: they make room in the kernel side's table.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tracer_ebpf::ProcessTotals;

use super::pace::Pace;
use super::recorder::Recorder;
use crate::bpf::load::BpfError;
use crate::process::sideband::monotonic_ns;

/// How often the table is looked through, if processes have ended.
const EVERY: Duration = Duration::from_secs(1);

/// For so long after its end a process counts among those that hold their memory: the last of a recording's targets do not
/// all end at one moment.
const GRACE_NS: u64 = 1_000_000_000;

/// When the table of blocks is to be looked through.
#[derive(Debug, Default)]
pub(super) struct Departed {
    /// A process has ended whose blocks may be in the table.
    pub(super) is_due: bool,
    /// Those whose blocks were taken out.
    done: HashSet<u32>,
    last: Option<Instant>,
    pace: Pace,
}

impl Departed {
    fn is_done(&self, number: u32) -> bool {
        self.done.contains(&number)
    }
}

/// Whether a process, by when it has ended, counts among those that hold their memory at `now_ns`.
pub(super) fn holds(ended_ns: Option<u64>, now_ns: u64) -> bool {
    ended_ns.is_none_or(|ended_ns| ended_ns.saturating_add(GRACE_NS) >= now_ns)
}

/// Processes whose blocks nobody can give back any more: those that are over, and from which no living process has
/// copies of blocks.
fn without_heirs(heaps: &[(u32, ProcessTotals)]) -> HashSet<u32> {
    let parents: HashMap<u32, u32> = heaps
        .iter()
        .map(|(number, heap)| (*number, heap.parent))
        .collect();
    let mut inherited = HashSet::new();
    for (_, heap) in heaps.iter().filter(|(_, heap)| heap.is_over == 0) {
        let mut parent = heap.parent;
        // Ancestors that are known already have known ancestors; numbers cannot make a circle for long, then.
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

impl Recorder {
    /// Takes the blocks of processes that have ended out of the kernel side's table, where it is time for that. What was
    /// counted stays.
    pub(super) fn make_room(&mut self) -> Result<(), BpfError> {
        let departed = &self.departed;
        let is_time = departed.last.is_none_or(|last| last.elapsed() >= EVERY) && departed.pace.is_due();
        if !self.live || !departed.is_due || !is_time {
            return Ok(());
        }
        let began = Instant::now();
        let now_ns = monotonic_ns();
        let mut over = without_heirs(&self.object.process_totals()?);
        over.retain(|number| !self.departed.is_done(*number));
        for number in &over {
            // The kernel side knows of it, whether or not we have heard.
            self.processes.note_end(*number, now_ns);
        }
        let known = over.len();
        over.retain(|number| !holds(self.processes.ended_ns(*number), now_ns));
        // Those that have just ended are for the next time.
        self.departed.is_due = over.len() < known;
        if !over.is_empty() {
            let mut blocks = self.object.blocks()?;
            blocks.retain(|(key, _)| over.contains(&key.process));
            self.object.remove_blocks(blocks.iter().map(|(key, _)| *key))?;
            log::debug!("{} blocks of ended processes were taken out", blocks.len());
            self.departed.done.extend(over);
        }
        self.departed.last = Some(Instant::now());
        self.departed.pace.done(began);
        Ok(())
    }
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
    fn blocks_stay_while_there_are_heirs() {
        let heaps = [
            (1, heap(0, 0, 1)),
            (2, heap(1, 0, 1)),
            (3, heap(2, 0, 0)),
            (4, heap(0, 0, 1)),
            (5, heap(0, 6, 1)),
            (7, heap(3, 0, 1)),
            (8, heap(0, 0, 0)),
        ];
        assert_eq!(without_heirs(&heaps), HashSet::from([4, 7]));
    }

    #[test]
    fn who_has_just_ended_still_holds() {
        assert!(holds(None, 5));
        assert!(holds(Some(5), 5 + GRACE_NS));
        assert!(!holds(Some(5), 6 + GRACE_NS));
        assert!(holds(Some(9), 5));
    }
}
