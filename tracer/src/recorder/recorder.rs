//! The recorder: one recording from its targets to its end, and its observer.

use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use tracer_ebpf::CaptureMode;

use super::attach::{AllocatorSearch, Attachments};
use super::budget::{BudgetController, Followed};
use super::event_stream::{EventSinks, EventStream};
use super::exited_processes::ExitedProcesses;
use super::guard::StopGuard;
use super::heap_history::HeapHistory;
use super::kernel_settings::{Purpose, load, variance_unit};
use super::process_table::ProcessTable;
use super::recording::{Recording, RecordingClock, RecordingOptions, RecordingSources};
use super::stack_table::StackTable;
use super::targets::{self, CommandFiles, LaunchedCommand, StartError, TargetScope, Targets, has_tree};
use super::unwind_tables::{TableBatch, Unwinding};
use crate::bpf::Object;
use crate::bpf::load::BpfError;
use crate::process::descriptors;
use crate::process::sideband::Sideband;
use crate::profile::session::Probe;
use crate::recorder::cost::measure::{MeasureError, Measuring};
use crate::settings::{Record, StopPolicy, Unwind};
use crate::signals::Ending;
use crate::symbolize::Namer;
use crate::unwind::Capacity;

/// A reason for the end of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The time was up.
    Duration,
    /// Every target has ended.
    TargetsEnded,
    /// A signal asked for it.
    Signal(Ending),
}

/// The end of the launched command, when it comes.
pub(crate) type ChildStatus = tokio::task::JoinHandle<std::io::Result<ExitStatus>>;

/// The end of a recording.
#[derive(Debug)]
pub(crate) struct Stopped {
    /// Its reason.
    pub(crate) why: Stop,
    /// The command's status, if it has ended.
    pub(crate) status: Option<ExitStatus>,
    /// The command, if it has not.
    pub(crate) child: Option<ChildStatus>,
}

/// The progress of a recording.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Progress {
    /// Time since the start.
    pub(crate) elapsed: Duration,
    /// Events seen.
    pub(crate) events: u64,
    /// Distinct stacks.
    pub(crate) stacks: usize,
    /// Lost events.
    pub(crate) lost: u64,
    /// Time that the targets have lost since the last report, in percent of a CPU.
    pub(crate) cost_percent: f64,
    /// The present level.
    pub(crate) followed: Followed,
}

/// An observer of a recording.
pub(crate) trait Observer {
    /// Takes the progress: every second.
    fn on_progress(&mut self, progress: &Progress);

    /// Takes a new level, or the news that the budget cannot be kept.
    fn on_level(&mut self, followed: &Followed);

    /// Returns the interval of interim reports, if there are any.
    fn report_interval(&self) -> Option<Duration>;

    /// Takes the recording so far.
    fn on_interim_report(&mut self, recording: &Recording);
}

/// A recording in progress.
pub(crate) struct Recorder {
    // Dropped in this order: probes are detached first; the guard resumes what is stopped, once
    // nothing stops any more; then the maps go, which probes write to.
    pub(super) attachments: Attachments,
    pub(super) guard: Option<StopGuard>,
    pub(super) object: Object,
    pub(super) events: EventStream,
    pub(super) processes: ProcessTable,
    pub(super) stacks: StackTable,
    /// Nothing where stacks are walked by frame pointers alone.
    pub(super) unwinding: Option<Unwinding>,
    /// Nothing where blocks are not followed.
    pub(super) heap_history: Option<HeapHistory>,
    pub(super) exited: ExitedProcesses,
    pub(super) budget: BudgetController,
    pub(super) scope: TargetScope,
    pub(super) clock: RecordingClock,
    pub(super) options: RecordingOptions,
    namer: Namer,
    command: LaunchedCommand,
}

/// The targets as they were found, before the kernel side is loaded.
struct FoundTargets {
    targets: Targets,
    sideband: Sideband,
    processes: ProcessTable,
    command: CommandFiles,
    search: AllocatorSearch,
    /// Nothing where stacks are walked by frame pointers alone.
    tables: Option<TableBatch>,
}

impl Recorder {
    /// Finds the targets and attaches to them. A command waits for [`release`](Self::release).
    pub(crate) fn start(settings: &Record) -> Result<Self, StartError> {
        Self::start_for(settings, Purpose::Record)
    }

    /// Does the same for another purpose.
    pub(super) fn start_for(settings: &Record, purpose: Purpose) -> Result<Self, StartError> {
        let targets = Targets::find(settings)?;
        descriptors::raise_limit();
        let sideband = Sideband::open().map_err(StartError::Sideband)?;
        let mut processes = ProcessTable::new(targets::new_in_scope(settings));
        targets.snapshot(&settings.target, &mut processes)?;
        let command = targets.command_files(settings, &mut processes);
        let mut files = command.files.clone();
        files.extend(processes.history().all_mapped_files());
        // Both while the kernel verifies the programs.
        let mut search = AllocatorSearch::new(settings);
        if settings.heap {
            let mut files = files.clone();
            files.extend(command.speculative.iter().cloned());
            search.examine_ahead(files);
        }
        let tables = (settings.unwind != Unwind::FramePointer).then(|| TableBatch::begin(files));
        let mut found = FoundTargets {
            targets,
            sideband,
            processes,
            command,
            search,
            tables,
        };
        match load(settings, purpose) {
            Err(StartError::Bpf(error)) if settings.unwind == Unwind::Auto => {
                let settings = Record {
                    unwind: Unwind::FramePointer,
                    ..settings.clone()
                };
                found.tables = None;
                let object = load(&settings, purpose)?;
                log::warn!("stacks are walked by frame pointers alone: {error}");
                Self::attach(&settings, purpose, found, object)
            }
            object => Self::attach(settings, purpose, found, object?),
        }
    }

    fn attach(
        settings: &Record,
        purpose: Purpose,
        found: FoundTargets,
        mut object: Object,
    ) -> Result<Self, StartError> {
        let FoundTargets {
            mut targets,
            sideband,
            processes,
            command,
            search,
            tables,
        } = found;
        let measuring = prepare_measuring(settings, &mut object);
        let events = EventStream::new(&mut object, sideband)?;
        let unwinding = match &tables {
            None => None,
            Some(batch) => {
                let frame_pointers = settings.unwind == Unwind::Auto;
                let capacity = Capacity::of_bytes(settings.limits.unwind_bytes);
                let mut unwinding = Unwinding::new(&mut object, capacity, frame_pointers)?;
                unwinding.place_batch(&mut object, batch)?;
                Some(unwinding)
            }
        };
        let stops_for_tables = settings.stop_for_code != StopPolicy::Never && unwinding.is_some();
        let stops_children = settings.stop_children != StopPolicy::Never && has_tree(settings);
        let guard = if stops_for_tables || stops_children {
            Some(StopGuard::start(&object)?)
        } else {
            None
        };
        let mut recorder = Self {
            attachments: Attachments::new(settings, search, purpose == Purpose::Estimate),
            guard,
            object,
            events,
            processes,
            stacks: StackTable::default(),
            unwinding,
            heap_history: settings.live.then(|| HeapHistory::new(settings.ages)),
            exited: ExitedProcesses::default(),
            budget: BudgetController::new(settings),
            scope: TargetScope::new(settings.target.clone(), targets.cgroup.take()),
            clock: RecordingClock::start(),
            options: RecordingOptions {
                heap: settings.heap,
                unit: variance_unit(settings),
                older_than: settings.older_than.unwrap_or_default(),
            },
            namer: Namer::new(settings.symbols.clone()),
            command: std::mem::take(&mut targets.command),
        };
        recorder.attach_to(&targets.pids, &command, settings, purpose, measuring)?;
        Ok(recorder)
    }

    fn attach_to(
        &mut self,
        pids: &[u32],
        command: &CommandFiles,
        settings: &Record,
        purpose: Purpose,
        measuring: Option<Measuring>,
    ) -> Result<(), StartError> {
        // Traps are measured on another CPU while probes are planned and attached. They come out
        // dearer so, which a budget's estimates would be wrong by: there memtap waits.
        let is_exact = settings.overhead_max_percent.is_some() || purpose == Purpose::Estimate;
        let measuring = measuring.and_then(|it| or_assume(it.start()));
        let measuring = measuring.map(|it| if is_exact { it.settle() } else { it });
        self.scope.enter_cgroup(&mut self.object)?;
        self.attachments.attach_tracepoints(&mut self.object, settings)?;
        for pid in pids {
            self.processes.track(&mut self.object, *pid)?;
        }
        self.attachments.expect_children();
        // Last: from here on the targets pay.
        if settings.heap {
            self.attachments.attach_allocators(
                &mut self.object,
                &mut self.processes,
                settings,
                pids,
                command,
            )?;
        }
        if !self.scope.is_everything() {
            // Targets that are still to come may run what others run: that is known by now.
            self.processes.close_files_of_others();
        }
        let (object, attachments) = (&mut self.object, &mut self.attachments);
        match purpose {
            Purpose::Record => {
                self.clock.started =
                    self.budget
                        .begin(object, attachments, &self.processes, settings, measuring)?;
            }
            Purpose::Estimate => {
                self.clock.started =
                    self.budget
                        .begin_estimate(object, attachments, &self.processes, measuring)?;
            }
        }
        self.events.begin();
        Ok(())
    }

    /// Lets a launched command run.
    pub(crate) fn release(&mut self) -> Result<Option<std::process::Child>, StartError> {
        if self.command.is_held() {
            self.clock.started = Instant::now();
            self.budget.restart(self.clock.started);
            self.events.begin();
        }
        self.command.release()
    }

    /// Reads all events; `at_end` also those that an earlier one may still follow. Returns true if
    /// a target may have ended.
    pub(super) fn drain(&mut self, at_end: bool) -> bool {
        let (mut sinks, events) = self.sinks();
        events.dispatch(&mut sinks, at_end)
    }

    /// The parts that events go to, and their stream.
    pub(super) fn sinks(&mut self) -> (EventSinks<'_>, &mut EventStream) {
        let sinks = EventSinks {
            object: &mut self.object,
            attachments: &mut self.attachments,
            guard: self.guard.as_mut(),
            processes: &mut self.processes,
            stacks: &mut self.stacks,
            unwinding: self.unwinding.as_mut(),
            heap_history: self.heap_history.as_mut(),
            exited: &mut self.exited,
            scope: &self.scope,
            elapsed: self.clock.started.elapsed(),
        };
        (sinks, &mut self.events)
    }

    /// Everything that a recording is made from.
    pub(super) fn sources(&self) -> RecordingSources<'_> {
        RecordingSources {
            options: self.options,
            clock: self.clock,
            object: &self.object,
            processes: &self.processes,
            stacks: &self.stacks,
            unwinding: self.unwinding.as_ref(),
            heap_history: self.heap_history.as_ref(),
            budget: &self.budget,
            namer: &self.namer,
            probes: self.attachments.listed(),
            probed: self.attachments.probed(),
            stops: self.guard.as_ref().map_or(0, StopGuard::stops),
            life_records_lost: self.events.life_records_lost(),
            late_processes: self.attachments.late_processes(),
        }
    }

    /// Detaches the probes, and makes a profile of what was counted.
    pub(crate) fn collect(mut self) -> Result<Recording, BpfError> {
        // The memory of the maps during the recording.
        let memory = self.memory();
        self.finish();
        Ok(Recording {
            memory,
            ..self.sources().recording()?
        })
    }

    /// Ends the recording: detaches everything, and reads the events for the last time.
    pub(super) fn finish(&mut self) {
        self.clock.end();
        self.events.end();
        if let Err(error) = self.budget.end(&self.object) {
            log::debug!("{error}");
        }
        // All at the same moment: detaching takes a while.
        if let Err(error) = self.object.set_capture_mode(CaptureMode::Nothing) {
            log::debug!("{error}");
        }
        let present = self.processes.present_targets();
        let present = present.into_iter().map(|(_, pid)| pid);
        self.attachments.finish(&mut self.object, present);
        if let Err(error) = self.budget.read_last(&self.object) {
            log::debug!("{error}");
        }
        // Nothing is stopped any more, and what is stopped runs again now, not when all names were
        // looked up.
        if let Some(guard) = &mut self.guard {
            guard.finish();
        }
        self.drain(true);
    }

    /// The probes that were attached.
    #[must_use]
    pub(crate) fn probes(&self) -> &[Probe] {
        self.attachments.listed()
    }

    /// The allocators in a file that has probes, by name.
    #[must_use]
    pub(crate) fn allocators(&self, file: &Path) -> &[String] {
        self.attachments.allocators(file)
    }

    /// The present level.
    #[must_use]
    pub(crate) fn followed(&self) -> Followed {
        self.budget.followed()
    }

    /// Bytes of kernel memory that the maps take, by map.
    #[must_use]
    pub(crate) fn memory(&self) -> std::collections::BTreeMap<String, u64> {
        self.object.memory()
    }

    /// The present targets: names and process ids.
    #[must_use]
    pub(crate) fn found(&self) -> Vec<(String, u32)> {
        self.processes.present_targets()
    }
}

/// Prepares a measurement of the cost of traps, where allocator calls are recorded.
fn prepare_measuring(settings: &Record, object: &mut Object) -> Option<Measuring> {
    settings.heap.then(|| or_assume(Measuring::prepare(object)))?
}

/// A measurement, or nothing where it fails: the cost of traps is assumed then.
fn or_assume(measuring: Result<Measuring, MeasureError>) -> Option<Measuring> {
    measuring
        .inspect_err(|error| log::debug!("{error}: what hits of probes cost is assumed"))
        .ok()
}
