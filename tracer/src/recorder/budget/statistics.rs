//! When the kernel keeps statistics of the programs: in short phases, since that costs the targets too.

use std::time::{Duration, Instant};

use crate::bpf::Object;
use crate::bpf::run_stats::{RunStats, Runs};

/// A phase is so long, and one begins every so often: at first, and at the least. What programs take changes little, and
/// every CPU is interrupted when the kernel begins to keep statistics, and when it ends.
const PHASE: Duration = Duration::from_millis(50);
const EVERY: Duration = Duration::from_secs(1);
const EVERY_MOST: Duration = Duration::from_secs(10);

/// The phase that is going on, if one is.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    open: Option<(RunStats, Runs)>,
    began: Option<Instant>,
    /// How many there were.
    phases: u32,
    /// The kernel does not keep any (before Linux 5.8), which was said.
    is_refused: bool,
}

impl Statistics {
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether it is time for a phase to begin.
    pub(crate) fn is_due(&self) -> bool {
        !self.is_refused
            && self.open.is_none()
            && self.began.is_none_or(|began| began.elapsed() >= self.every())
    }

    /// Whether it is time for the phase to end.
    pub(crate) fn is_over(&self) -> bool {
        self.open.is_some() && self.began.is_some_and(|began| began.elapsed() >= PHASE)
    }

    /// From the beginning of a phase to that of the next.
    fn every(&self) -> Duration {
        (EVERY * self.phases.div_ceil(4)).clamp(EVERY, EVERY_MOST)
    }

    pub(crate) fn open(&mut self, object: &Object) {
        match RunStats::enable() {
            Ok(stats) => {
                self.open = Some((stats, object.runs()));
                self.began = Some(Instant::now());
                self.phases += 1;
            }
            Err(error) => {
                log::debug!("what the programs take is assumed: {error}");
                self.is_refused = true;
            }
        }
    }

    /// Ends the phase; returns what the programs ran in it.
    pub(crate) fn close(&mut self, object: &Object) -> Option<Runs> {
        let (stats, before) = self.open.take()?;
        let runs = object.runs().since(before);
        drop(stats);
        Some(runs)
    }
}
