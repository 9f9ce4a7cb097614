//! Waiting: drain what the kernel side sends, notice the ends of processes, stop when it is time.

use std::collections::HashSet;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use tracer_ebpf::{Counter, intake};

use super::budget::control::Followed;
use super::collect::Recording;
use super::recorder::Recorder;
use crate::bpf::Record;
use crate::bpf::copies::Copies;
use crate::process::proc_fs;
use crate::process::sideband::{Life, LifeEvent, monotonic_ns};
use crate::settings::Target;
use crate::signals::{Ending, Endings};

/// How often the rings are read. New stacks of 20 ms fit the smallest ring many times over.
const DRAIN_EVERY: Duration = Duration::from_millis(20);

/// The same while the probes of a budget are out, and there are no stacks.
const DRAIN_WITHOUT_PROBES: Duration = Duration::from_millis(60);

/// How often tables that are being made are looked for.
const TABLES_EVERY: Duration = Duration::from_millis(1);

/// How often progress is told, and processes are looked at that may have ended unheard.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why a recording stopped.
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

/// How a recording stopped.
#[derive(Debug)]
pub struct Stopped {
    /// Why.
    pub why: Stop,
    /// The command's status, if it has ended.
    pub status: Option<ExitStatus>,
    /// The command, if it has not.
    pub child: Option<Child>,
}

/// How a recording goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Since the start.
    pub elapsed: Duration,
    /// Events seen.
    pub events: u64,
    /// Distinct stacks.
    pub stacks: usize,
    /// Losses.
    pub lost: u64,
    /// What the targets have paid since the last time, in percent of a CPU.
    pub cost_percent: f64,
    /// How much is followed.
    pub followed: Followed,
}

/// Who wants to know while it records.
pub trait Audience {
    /// How it goes: every second.
    fn progress(&mut self, progress: &Progress);

    /// How much is followed has changed, or cannot be as was asked for.
    fn level(&mut self, followed: &Followed);

    /// How often [`so_far`](Self::so_far) is to be called, if at all.
    fn interval(&self) -> Option<Duration>;

    /// What was recorded so far.
    fn so_far(&mut self, recording: &Recording);
}

impl Recorder {
    /// Records until it is time to stop. `child` yields when the launched command has ended; `audience` is told every
    /// second how it goes, and as often as it likes what was recorded so far.
    pub async fn watch(
        &mut self,
        duration: Option<Duration>,
        mut child: Option<Child>,
        audience: &mut impl Audience,
    ) -> std::io::Result<Stopped> {
        let every = audience.interval();
        let mut reports = every.map(|every| tokio::time::interval_at(self.started_at() + every, every));
        if let Some(reports) = &mut reports {
            reports.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        }
        let mut endings = Endings::new()?;
        let mut drained = tokio::time::Instant::now();
        let mut tables = tokio::time::interval(TABLES_EVERY);
        tables.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let deadline = duration.map(|duration| self.started_at() + duration);
        let mut status = None;
        if let Some(news) = self.control.news.take() {
            audience.level(&news);
        }
        let mut looked = Instant::now();
        loop {
            let next = drained + self.drain_every();
            tokio::select! {
                biased;
                ending = endings.next() => return Ok(Stopped { why: Stop::Signal(ending), status, child }),
                () = at(deadline) => return Ok(Stopped { why: Stop::Duration, status, child }),
                ended = ended(&mut child) => {
                    child = None;
                    status = Some(ended?);
                    if self.drain_and_look() {
                        return Ok(Stopped { why: Stop::TargetsEnded, status, child });
                    }
                }
                () = at(self.control.due().map(tokio::time::Instant::from_std)) => {
                    self.keep_budget();
                    if let Some(news) = self.control.news.take() {
                        audience.level(&news);
                    }
                }
                ready = self.records.urgent() => {
                    // New code, or a ring that fills up: tables are made and taken in as fast as can be.
                    ready?;
                    self.drain(false);
                }
                ready = copies_urgent(&mut self.copies) => {
                    ready?;
                    self.drain(false);
                }
                _ = tables.tick(), if self.awaits_tables() => {
                    self.drain(false);
                }
                () = tick(&mut reports) => {
                    self.drain(false);
                    match self.recording() {
                        Ok(recording) => audience.so_far(&recording),
                        Err(error) => log::warn!("{error}: no report of what was recorded so far"),
                    }
                }
                () = at(Some(next)) => {
                    drained = tokio::time::Instant::now();
                    let exits = self.drain(false);
                    if self.heap
                        && self.control.may_look()
                        && let Err(error) = self.look()
                    {
                        log::debug!("{error}");
                    }
                    let due = looked.elapsed() >= LOOK_EVERY;
                    if due {
                        looked = Instant::now();
                        let progress = self.progress();
                        audience.progress(&progress);
                        self.forget();
                    }
                    if (exits || due) && child.is_none() && self.drain_and_look() {
                        return Ok(Stopped { why: Stop::TargetsEnded, status, child });
                    }
                }
            }
        }
    }

    fn drain_every(&self) -> Duration {
        if self.control.is_out() {
            DRAIN_WITHOUT_PROBES
        } else {
            DRAIN_EVERY
        }
    }

    /// Reads both rings. True if a target may have ended.
    pub(super) fn drain(&mut self, all: bool) -> bool {
        self.object.flush_messages();
        let stopped = self.stopped();
        if let Some(tables) = &mut self.tables
            && let Err(error) = tables.take_made(&mut self.object)
        {
            log::warn!("{error}: some stacks may end early");
        }
        while let Some(record) = self.records.take() {
            match record {
                Record::Stack(stack) => {
                    self.seen_in
                        .entry((stack.process, stack.hash))
                        .or_insert(stack.time_ns);
                    self.stacks.entry(stack.hash).or_insert(stack);
                }
                Record::File(new) => self.learn(&new),
                Record::Counts(new) => self.object.take_counted(new),
                Record::Process(new) => {
                    if !self.lives.knows(new.tgid)
                        && let Err(error) = self.lives.snapshot(new.tgid)
                    {
                        log::debug!("process {} ({}): {error}", new.tgid, new.comm);
                    }
                    self.processes.announce(new);
                    // It may have taken the place of another image.
                    self.departed.is_due = true;
                }
            }
        }
        let mut exits = false;
        for event in self.sideband.take(all) {
            let LifeEvent { pid, .. } = event;
            if event.what == Life::Exited && self.processes.has_pid(pid) {
                exits = true;
                self.processes.note_exit(pid, event.time_ns);
            }
            if let Some(file) = self.lives.apply(event) {
                let may_be_traced = self.target == Target::All || self.cgroup.is_some();
                if may_be_traced || self.processes.has_pid(pid) {
                    self.meet(&file, pid);
                }
                self.expect_code(&file, pid);
            }
        }
        // After the events: they say what was mapped where.
        if all {
            self.finish_all_walks();
        } else {
            self.finish_walks(false);
        }
        self.let_go_on(&stopped);
        self.departed.is_due |= exits;
        if let Err(error) = self.look_at_heap() {
            log::warn!("{error}: peaks have no stacks, growth is not known");
        }
        // At the end, ages are still to be read.
        if !self.is_over
            && let Err(error) = self.make_room()
        {
            log::warn!("{error}: the blocks of processes that have ended stay in the table");
        }
        exits
    }

    /// Takes ended processes out of the kernel side's table. True if no target is left.
    fn drain_and_look(&mut self) -> bool {
        self.drain(false);
        let ended: Vec<(u32, u32)> = self
            .processes
            .present()
            .filter(|(_, tracked)| !proc_fs::is_running(tracked.pid))
            .map(|(number, tracked)| (number, tracked.pid))
            .collect();
        for (number, pid) in ended {
            let hits = self.object.remove_process(pid, number).unwrap_or_else(|error| {
                log::debug!("process {pid}: {error}");
                None
            });
            self.processes.end(number, monotonic_ns(), hits.unwrap_or(0));
        }
        !self.waits_for_more() && self.processes.present().next().is_none()
    }

    /// Forgets processes that have ended and were never targets, and gives back what they took.
    fn forget(&mut self) {
        let wanted: HashSet<u32> = self.processes.pids().collect();
        self.lives.forget_ended(|pid| wanted.contains(&pid));
        if let Some(tables) = &mut self.tables
            && let Err(error) = tables.release(&mut self.object, self.lives.present_files())
        {
            log::warn!("{error}: the unwind tables of processes that have ended stay");
        }
    }

    /// Whether there may be targets later, though there is none now.
    fn waits_for_more(&self) -> bool {
        match &self.cgroup {
            Some(cgroup) => cgroup.exists(),
            None => matches!(self.target, Target::All | Target::Comm(_)),
        }
    }

    fn started_at(&self) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.started)
    }

    fn progress(&mut self) -> Progress {
        let counts = self.object.counts().unwrap_or_default();
        Progress {
            elapsed: self.started.elapsed(),
            events: counts.events(Counter::Tallied) + counts.events(Counter::Unsampled),
            stacks: self.stacks.len(),
            lost: counts.lost_total(),
            cost_percent: self.control.tell_percent(),
            followed: self.control.followed(),
        }
    }

    /// Ends the recording: takes the probes off, several at once, and reads the rings for the last time.
    pub(super) fn finish(&mut self) {
        self.duration = Some(self.started.elapsed());
        self.ended = Some(Instant::now());
        self.ended_ns = Some(monotonic_ns());
        if let Err(error) = self.end_budget() {
            log::debug!("{error}");
        }
        // All at the same moment: taking probes off takes a while.
        if let Err(error) = self.object.set_intake(intake::NOTHING) {
            log::debug!("{error}");
        }
        self.probes.detach();
        if let Err(error) = self.count_last() {
            log::debug!("{error}");
        }
        self.tracepoints.detach();
        // Nothing is stopped any more, and what is stopped goes on now, not when all names were looked up.
        self.guard = None;
        self.is_over = true;
        self.drain(true);
    }
}

async fn at(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

async fn copies_urgent(copies: &mut Option<Copies>) -> std::io::Result<()> {
    match copies {
        Some(copies) => copies.urgent().await,
        None => std::future::pending().await,
    }
}

async fn ended(child: &mut Option<Child>) -> std::io::Result<ExitStatus> {
    match child {
        Some(child) => child.await.map_err(std::io::Error::other)?,
        None => std::future::pending().await,
    }
}
