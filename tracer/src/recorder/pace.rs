//! How often something that costs time may be done.

use std::time::{Duration, Instant};

/// What is done may take this share of our time at the most: one part in so many.
const SHARE: u32 = 20;

/// When it was done last, and how long that took.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<(Instant, Duration)>,
}

impl Pace {
    pub(super) fn is_due(&self) -> bool {
        self.last.is_none_or(|(at, took)| at.elapsed() >= took * SHARE)
    }

    /// It was done, and has been since `began`.
    pub(super) fn done(&mut self, began: Instant) {
        self.last = Some((Instant::now(), began.elapsed()));
    }
}
