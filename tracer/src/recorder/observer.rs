//! The observer of a recording: progress, levels and interim reports while it goes on, and the reason of its end.

use std::process::ExitStatus;
use std::time::Duration;

use super::budget::Followed;
use super::recording::Recording;
use crate::signals::Ending;

/// A reason for the end of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The time was up.
    Duration,
    /// Every target has ended.
    TargetsEnded,
    /// A signal asked for it.
    Signal(Ending),
}

/// The end of the launched command, when it comes.
pub type Child = tokio::task::JoinHandle<std::io::Result<ExitStatus>>;

/// The end of a recording.
#[derive(Debug)]
pub struct Stopped {
    /// Its reason.
    pub why: Stop,
    /// The command's status, if it has ended.
    pub status: Option<ExitStatus>,
    /// The command, if it has not.
    pub child: Option<Child>,
}

/// The progress of a recording.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Time since the start.
    pub elapsed: Duration,
    /// Events seen.
    pub events: u64,
    /// Distinct stacks.
    pub stacks: usize,
    /// Lost events.
    pub lost: u64,
    /// Time that the targets have lost since the last report, in percent of a CPU.
    pub cost_percent: f64,
    /// The present level.
    pub followed: Followed,
}

/// An observer of a recording.
pub trait Observer {
    /// Takes the progress: every second.
    fn on_progress(&mut self, progress: &Progress);

    /// Takes a new level, or the news that the budget cannot be kept.
    fn on_level(&mut self, followed: &Followed);

    /// Returns the interval of interim reports, if there are any.
    fn report_interval(&self) -> Option<Duration>;

    /// Takes the recording so far.
    fn on_interim_report(&mut self, recording: &Recording);
}
