//! The line that says, while it records, how it goes.

use std::io::{IsTerminal as _, Write as _};

use super::announce;
use crate::recorder::Progress;
use crate::report::units;

/// A line on standard error that replaces itself; nothing where that is no terminal.
#[derive(Debug)]
pub(super) struct ProgressLine {
    shown: bool,
    wanted: bool,
    events_before: u64,
    seconds_before: f64,
}

impl ProgressLine {
    /// Returns a line that is shown if it is wanted, and standard error is a terminal.
    pub(super) fn new(is_wanted: bool) -> Self {
        let wanted = is_wanted && std::io::stderr().is_terminal();
        Self {
            shown: false,
            wanted,
            events_before: 0,
            seconds_before: 0.0,
        }
    }

    /// Shows how it goes.
    pub(super) fn show(&mut self, progress: &Progress) {
        if !self.wanted {
            return;
        }
        let seconds = progress.elapsed.as_secs_f64();
        let events = progress.events.saturating_sub(self.events_before);
        let rate = rate(events, seconds - self.seconds_before);
        (self.events_before, self.seconds_before) = (progress.events, seconds);
        let whole = progress.elapsed.as_secs();
        let line = format!(
            "  {:02}:{:02}  {}  {}/s  {}  {} lost  cost {:.1} %",
            whole / 60,
            whole % 60,
            units::counted(progress.events.into(), "call"),
            units::group(rate.into()),
            units::counted(progress.stacks as u128, "stack"),
            units::group(progress.lost.into()),
            progress.cost_percent,
        );
        let followed = &progress.followed;
        let line = if followed.interval_bytes > 1 || followed.share < 1.0 {
            format!("{line}  {}", announce::words(followed))
        } else {
            line
        };
        self.put(&line);
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if self.shown {
            self.put("");
            self.shown = false;
        }
    }

    fn put(&mut self, line: &str) {
        let mut stderr = std::io::stderr().lock();
        // To the line's start, erase it, write the new one.
        let written = write!(stderr, "\r\x1b[2K{line}").and_then(|()| stderr.flush());
        self.wanted = written.is_ok();
        self.shown = true;
    }
}

/// Events a second, rounded down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rate for people: the fraction is dropped, and 2^53 events in a second do not happen"
)]
fn rate(events: u64, seconds: f64) -> u64 {
    if seconds > 0.0 {
        (events as f64 / seconds) as u64
    } else {
        0
    }
}
