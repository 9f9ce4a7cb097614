//! The number of rounds and calls to measure with.

/// Rounds and calls of a run.
pub(crate) struct Effort {
    /// Fresh processes for each row.
    pub(crate) rounds: usize,
    /// Batches that each process times.
    pub(crate) batches: u64,
    /// Pairs of malloc and free in a batch.
    pub(crate) pairs: u64,
}

/// For figures to quote.
pub(crate) const FULL: Effort = Effort {
    rounds: 3,
    batches: 7,
    pairs: 50_000,
};

/// Rounds in which two builds are told apart by some percent.
pub(crate) const ROUNDS_AGAINST: usize = 25;

/// For a look.
pub(crate) const QUICK: Effort = Effort {
    rounds: 1,
    batches: 5,
    pairs: 10_000,
};

/// A divisor of a batch's pairs, for slow tools. Nanoseconds per pair stay comparable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToolPace(pub(crate) u64);

/// Some microseconds per pair.
pub(crate) const USUAL: ToolPace = ToolPace(1);
/// Some tens of microseconds, or kilobytes, per pair.
pub(crate) const SLOW: ToolPace = ToolPace(5);
/// Some hundreds of microseconds.
pub(crate) const SLOWEST: ToolPace = ToolPace(100);

/// The fewest pairs of a batch: less would measure the clock.
const FEWEST_PAIRS: u64 = 100;

impl Effort {
    /// The pairs of a batch at a pace.
    pub(crate) fn pairs_at(&self, pace: ToolPace) -> u64 {
        (self.pairs / pace.0).max(FEWEST_PAIRS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_tools_do_less() {
        assert_eq!(FULL.pairs_at(USUAL), 50_000);
        assert_eq!(FULL.pairs_at(SLOW), 10_000);
        assert_eq!(QUICK.pairs_at(SLOWEST), FEWEST_PAIRS);
    }
}
