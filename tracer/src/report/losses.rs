//! Losses in words.

use tracer_ebpf::Loss;

use super::units;
use crate::profile::Losses;

/// Returns one phrase per loss that happened; none where nothing was lost.
#[must_use]
pub(crate) fn phrases(losses: &Losses) -> Vec<String> {
    Loss::ALL
        .iter()
        .filter(|loss| losses.get(**loss) > 0)
        .map(|loss| in_words(*loss, losses.get(*loss)))
        .collect()
}

/// The meaning and the cause of each loss: a noun to count, and the rest of the phrase.
const WORDS: [(Loss, &str, &str); 14] = [
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
        Loss::LateProbes,
        "process",
        "whose first calls were not seen (probes came late)",
    ),
    (
        Loss::LifeRecordLost,
        "record",
        "of process life, so that some addresses may have no names (ring of the kernel's events full)",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loss_has_words() {
        for loss in Loss::ALL {
            assert!(!in_words(*loss, 1).contains(loss.label()), "{loss:?}");
        }
    }

    #[test]
    fn only_what_happened_is_said() {
        assert!(phrases(&Losses::default()).is_empty());
        assert_eq!(
            phrases(&Losses::new([(Loss::ScratchBusy, 1200), (Loss::RingFull, 0)])),
            ["1,200 calls without a stack (no scratch slot free)"]
        );
    }
}
