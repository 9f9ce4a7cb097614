//! What failed to reach the report whole, for people and for programs.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, Serializer};
use tracer_ebpf::Loss;

use super::units;

/// How often each way of losing happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses(BTreeMap<Loss, u64>);

impl Losses {
    /// From counts; those of the same loss are added up, those that are missing are zero.
    pub fn new(counts: impl IntoIterator<Item = (Loss, u64)>) -> Self {
        let mut losses = Self::default();
        for (loss, count) in counts {
            let sum = losses.0.entry(loss).or_default();
            *sum = sum.saturating_add(count);
        }
        losses
    }

    /// How often one loss happened.
    #[must_use]
    pub fn get(&self, loss: Loss) -> u64 {
        self.0.get(&loss).copied().unwrap_or_default()
    }

    /// How often any loss happened; with `--strict` anything above zero fails.
    #[must_use]
    pub fn total(&self) -> u128 {
        self.0.values().map(|it| u128::from(*it)).sum()
    }

    /// In words, one phrase per loss that happened; none where nothing was lost.
    #[must_use]
    pub fn in_words(&self) -> Vec<String> {
        Loss::ALL
            .iter()
            .filter(|loss| self.get(**loss) > 0)
            .map(|loss| in_words(*loss, self.get(*loss)))
            .collect()
    }
}

/// What losses mean to whoever reads the report, and what caused them: a noun to count, and the rest.
const WORDS: [(Loss, &str, &str); 12] = [
    (
        Loss::CallMapFull,
        "call",
        "of which it is not known whether they succeeded (table of calls full)",
    ),
    (
        Loss::LiveMapFull,
        "block",
        "not followed, so that live figures are a lower bound (table of blocks full; --max-blocks makes it larger)",
    ),
    (
        Loss::HeapMapFull,
        "event",
        "of processes without live figures (table of processes full; --max-processes makes it larger)",
    ),
    (
        Loss::StackMapFull,
        "call",
        "without a stack (table of sums full; --max-stacks makes it larger)",
    ),
    (
        Loss::ScratchBusy,
        "call",
        "without a stack (no scratch slot free)",
    ),
    (Loss::RingFull, "call", "without a stack (ring full)"),
    (
        Loss::ProcessMapFull,
        "call",
        "of unknown processes (table of processes full)",
    ),
    (Loss::UnknownSite, "call", "not counted (unknown probe site)"),
    (
        Loss::PendingMapFull,
        "system call",
        "not counted (table of pending calls full)",
    ),
    (
        Loss::TailMapFull,
        "call",
        "perhaps counted twice (table of tail calls full)",
    ),
    (
        Loss::ProcessRecordLost,
        "record",
        "of a new process, which has no name here (ring full)",
    ),
    (
        Loss::UnfinishedCall,
        "call",
        "not counted (had not returned at the end)",
    ),
];

/// A loss that happened, in words.
fn in_words(loss: Loss, count: u64) -> String {
    match WORDS.iter().find(|(it, _, _)| *it == loss) {
        Some((_, noun, what)) => format!("{} {what}", units::counted(count.into(), noun)),
        None => format!("{} × {}", units::group(count.into()), loss.label()),
    }
}

impl Serialize for Losses {
    /// `total`, then every loss by its label, zero or not: a reader need not know which ones there are.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Loss::ALL.len() + 1))?;
        map.serialize_entry("total", &self.total())?;
        for loss in Loss::ALL {
            map.serialize_entry(loss.label(), &self.get(*loss))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up() {
        let losses = Losses::new([
            (Loss::RingFull, 2),
            (Loss::RingFull, 3),
            (Loss::UnknownSite, u64::MAX),
        ]);
        assert_eq!(losses.get(Loss::RingFull), 5);
        assert_eq!(losses.total(), u128::from(u64::MAX) + 5);
        let json = serde_json::to_string(&Losses::new([(Loss::RingFull, 5)])).unwrap();
        assert!(json.starts_with(r#"{"total":5,"stack_map_full":0,"scratch_busy":0,"ring_full":5,"#));
    }

    #[test]
    fn every_loss_has_words() {
        for loss in Loss::ALL {
            assert!(!in_words(*loss, 1).contains(loss.label()), "{loss:?}");
        }
    }

    #[test]
    fn only_what_happened_is_said() {
        assert!(Losses::default().in_words().is_empty());
        assert_eq!(
            Losses::new([(Loss::ScratchBusy, 1200), (Loss::RingFull, 0)]).in_words(),
            ["1,200 calls without a stack (no scratch slot free)"]
        );
    }
}
