//! The event loop of a recording.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use tokio::time::{Instant as LoopInstant, Interval, MissedTickBehavior};
use tracer_ebpf::Counter;

use super::guard::StopGuard;
use super::recorder::{ChildStatus, Observer, Progress, Recorder, Stop, Stopped};
use super::unwind_tables::Unwinding;
use crate::signals::Endings;

/// Interval at which the rings are read. New stacks of 20 ms fit the smallest ring many times over.
const DRAIN_INTERVAL: Duration = Duration::from_millis(20);

/// The same while the probes of a budget are detached, and no stacks come.
const DRAIN_INTERVAL_DETACHED: Duration = Duration::from_millis(60);

/// Interval at which tables that are being compiled are placed.
const PLACE_INTERVAL: Duration = Duration::from_millis(1);

/// Interval of progress reports, and of looks at processes whose end may have been missed.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

impl Recorder {
    /// Records until it is time to stop. `child` yields when the launched command has ended.
    pub(crate) async fn watch(
        &mut self,
        duration: Option<Duration>,
        mut child: Option<ChildStatus>,
        observer: &mut impl Observer,
    ) -> std::io::Result<Stopped> {
        let started = LoopInstant::from_std(self.clock.started);
        let deadline = duration.map(|duration| started + duration);
        let mut reports = observer
            .report_interval()
            .map(|every| tokio::time::interval_at(started + every, every));
        if let Some(reports) = &mut reports {
            reports.set_missed_tick_behavior(MissedTickBehavior::Skip);
        }
        let mut placing = tokio::time::interval(PLACE_INTERVAL);
        placing.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut endings = Endings::new()?;
        let mut drained = LoopInstant::now();
        let mut reported = Instant::now();
        let mut status = None;
        self.report_level(observer);
        let why = loop {
            let next = drained + self.drain_interval();
            tokio::select! {
                biased;
                ending = endings.next() => break Stop::Signal(ending),
                () = at(deadline) => break Stop::Duration,
                ended = ended(&mut child) => {
                    child = None;
                    status = Some(ended?);
                    if self.drain_and_remove_ended() {
                        break Stop::TargetsEnded;
                    }
                }
                () = at(self.budget.due().map(LoopInstant::from_std)) => {
                    self.budget.act(&mut self.object, self.attachments.uprobes_mut());
                    self.report_level(observer);
                }
                // New code, or a ring that fills up: tables are compiled and placed as fast as can
                // be.
                ready = self.events.urgent() => {
                    ready?;
                    self.drain(false);
                }
                ready = copies_urgent(&mut self.unwinding) => {
                    ready?;
                    self.drain(false);
                }
                // What it does not guard must not be stopped.
                () = guard_ended(self.guard.as_ref()) => {
                    self.drain(false);
                }
                _ = placing.tick(), if self.unwinding.as_ref().is_some_and(Unwinding::is_compiling) => {
                    self.drain(false);
                }
                () = tick(&mut reports) => {
                    self.drain(false);
                    match self.sources().recording() {
                        Ok(recording) => observer.on_interim_report(&recording),
                        Err(error) => log::warn!("{error}: no report of what was recorded so far"),
                    }
                }
                () = at(Some(next)) => {
                    drained = LoopInstant::now();
                    let exits = self.drain(false);
                    if self.options.heap {
                        self.budget.read_if_due(&mut self.object, self.attachments.uprobes_mut());
                    }
                    let is_due = reported.elapsed() >= PROGRESS_INTERVAL;
                    if is_due {
                        reported = Instant::now();
                        observer.on_progress(&self.progress());
                        self.evict_ended();
                    }
                    // Ended processes make room in the kernel side's table, also while the launched
                    // command goes on: a build starts more than there is room for.
                    if (exits || is_due) && self.drain_and_remove_ended() && child.is_none() {
                        break Stop::TargetsEnded;
                    }
                }
            }
        };
        Ok(Stopped { why, status, child })
    }

    fn drain_interval(&self) -> Duration {
        if self.budget.probes_are_detached() {
            DRAIN_INTERVAL_DETACHED
        } else {
            DRAIN_INTERVAL
        }
    }

    fn report_level(&mut self, observer: &mut impl Observer) {
        if let Some(news) = self.budget.take_news() {
            observer.on_level(&news);
        }
    }

    /// Returns true if no target is left, and none may come.
    fn drain_and_remove_ended(&mut self) -> bool {
        self.drain(false);
        self.processes.remove_ended(&mut self.object) && !self.scope.waits_for_more()
    }

    /// Takes in new members of the cgroup, forgets ended processes that were never targets, and
    /// reclaims the room of their tables.
    fn evict_ended(&mut self) {
        self.sinks().0.take_in_members();
        self.processes.evict_ended();
        self.attachments.remove_ended();
        if let Some(unwinding) = &mut self.unwinding {
            unwinding.reclaim(&mut self.object, &self.processes);
        }
    }

    fn progress(&mut self) -> Progress {
        let counts = self.object.counts().unwrap_or_default();
        Progress {
            elapsed: self.clock.started.elapsed(),
            events: counts.events(Counter::Recorded) + counts.events(Counter::Unsampled),
            stacks: self.stacks.len(),
            lost: counts.lost_total(),
            cost_percent: self.budget.report_percent(),
            followed: self.budget.followed(),
        }
    }
}

async fn at(deadline: Option<LoopInstant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

async fn copies_urgent(unwinding: &mut Option<Unwinding>) -> std::io::Result<()> {
    match unwinding {
        Some(unwinding) => unwinding.urgent().await,
        None => std::future::pending().await,
    }
}

async fn guard_ended(guard: Option<&StopGuard>) {
    match guard {
        Some(guard) => guard.ended().await,
        None => std::future::pending().await,
    }
}

async fn ended(child: &mut Option<ChildStatus>) -> std::io::Result<ExitStatus> {
    match child {
        Some(child) => child.await.map_err(std::io::Error::other)?,
        None => std::future::pending().await,
    }
}
