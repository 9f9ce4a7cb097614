//! What something takes of our own time.

use std::time::{Duration, Instant};

use crate::clock;

/// What something took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Took {
    /// Our own CPU time, in seconds.
    pub(crate) own_s: f64,
    /// In seconds.
    pub(crate) clock_s: f64,
}

impl Took {
    /// Does something.
    pub(crate) fn by<T>(act: impl FnOnce() -> T) -> (T, Self) {
        let (began, before) = (Instant::now(), own_time());
        let made = act();
        let took = Self {
            own_s: own_time().saturating_sub(before).as_secs_f64(),
            clock_s: began.elapsed().as_secs_f64(),
        };
        (made, took)
    }
}

/// CPU time of memtap.
fn own_time() -> Duration {
    clock::own_cpu_time()
}
