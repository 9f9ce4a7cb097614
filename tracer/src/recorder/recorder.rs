//! Starting: find the targets and their allocators, load the programs, attach the probes.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::control::{Control, Followed};
use super::copied::Copied;
use super::departed::Departed;
use super::examined::Examined;
use super::figures::Unit;
use super::guard::Guard;
use super::history::History;
use super::loading::{halvings, load};
use super::probes::Probes;
use super::processes::Processes;
use super::snapshots::Snapshots;
use super::start_error::StartError;
use super::tables::Tables;
use super::targets::Targets;
use crate::bpf::copies::Copies;
use crate::bpf::load::{LIVE_PROGRAMS, PROCESS_PROGRAMS, REGION_PROGRAMS, TABLE_PROGRAMS};
use crate::bpf::records::{Records, Stack};
use crate::bpf::{Attached, Object, UprobeScope};
use crate::cost::measure::Measuring;
use crate::probe_plan::functions::Table;
use crate::process::cgroup::Cgroup;
use crate::process::files::{Files, MappedFile};
use crate::process::history::Lives;
use crate::process::launch::Held;
use crate::process::proc_fs;
use crate::process::sideband::{Sideband, monotonic_ns};
use crate::report::session::Probe;
use crate::settings::{Record, StopForCode, Target, Unwind};
use crate::symbolize::{self, Namer};

/// What a recorder is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A recording.
    Record,
    /// To see what a recording would cost.
    Estimate,
}

/// A recording in progress.
#[expect(missing_debug_implementations, reason = "the ring of aya has none")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "settings and states, each of its own"
)]
pub struct Recorder {
    // Probes go first when a recorder is dropped, then the maps that they write to.
    pub(super) probes: Probes,
    pub(super) control: Control,
    pub(super) tracepoints: Attached,
    // Resumes what is stopped, once nothing stops any more.
    pub(super) guard: Option<Guard>,
    /// How often a process was stopped until it was let go on.
    pub(super) stops: u64,
    pub(super) object: Object,
    pub(super) records: Records,
    pub(super) sideband: Sideband,
    pub(super) lives: Lives,
    pub(super) processes: Processes,
    pub(super) stacks: HashMap<u64, Stack>,
    pub(super) seen_in: HashMap<(u32, u64), u64>,
    pub(super) scope: UprobeScope,
    pub(super) examined: Examined,
    /// The same, for probes of one process alone.
    pub(super) examined_in: HashMap<u32, Examined>,
    /// Which functions are looked for.
    pub(super) functions: Table,
    /// What the user has asked for and was found.
    pub(super) asked_for: HashSet<String>,
    pub(super) tables: Option<Tables>,
    pub(super) copies: Option<Copies>,
    pub(super) copied: Copied,
    pub(super) snapshots: Snapshots,
    pub(super) namer: Namer,
    pub(super) departed: Departed,
    /// Blocks at least so old are counted apart, where ages are reported at all.
    pub(super) older_than: Duration,
    pub(super) frame_pointers: bool,
    pub(super) heap: bool,
    pub(super) live: bool,
    /// The unit of the kernel side's variances.
    pub(super) unit: Unit,
    pub(super) target: Target,
    pub(super) cgroup: Option<Cgroup>,
    /// The probes are off, and none is to be attached any more.
    pub(super) is_over: bool,
    pub(super) started: Instant,
    /// How long was recorded, once that is over, and when it was.
    pub(super) duration: Option<Duration>,
    pub(super) ended: Option<Instant>,
    pub(super) ended_ns: Option<u64>,
    held: Option<Held>,
    command_name: String,
}

/// Prepares to measure what hits of probes cost here.
fn begin_measuring(settings: &Record, object: &mut Object) -> Option<Measuring> {
    let begun = settings.heap.then(|| Measuring::begin(object))?;
    begun
        .inspect_err(|error| log::debug!("{error}: what hits of probes cost is assumed"))
        .ok()
}

impl Recorder {
    /// Finds the targets and attaches to them. A command waits for [`release`](Self::release).
    pub fn start(settings: &Record) -> Result<Self, StartError> {
        Self::start_for(settings, Purpose::Record)
    }

    /// The same, for what is wanted of it.
    pub(super) fn start_for(settings: &Record, purpose: Purpose) -> Result<Self, StartError> {
        let targets = Targets::find(settings)?;
        Files::raise_limit();
        let sideband = Sideband::open().map_err(StartError::Sideband)?;
        match load(settings, purpose) {
            Err(StartError::Bpf(error)) if settings.unwind == Unwind::Auto => {
                let settings = Record {
                    unwind: Unwind::FramePointer,
                    ..settings.clone()
                };
                let object = load(&settings, purpose)?;
                log::warn!("stacks are walked by frame pointers alone: {error}");
                Self::attach(&settings, purpose, targets, sideband, object)
            }
            object => Self::attach(settings, purpose, targets, sideband, object?),
        }
    }

    fn attach(
        settings: &Record,
        purpose: Purpose,
        targets: Targets,
        sideband: Sideband,
        mut object: Object,
    ) -> Result<Self, StartError> {
        let measuring = begin_measuring(settings, &mut object);
        let records = object.records()?;
        let (tables, copies) = match settings.unwind {
            Unwind::FramePointer => (None, None),
            Unwind::Auto | Unwind::Dwarf => (
                Some(Tables::new(&object, settings.limits.tables)?),
                Some(object.copies()?),
            ),
        };
        let guard = if settings.stop_for_code != StopForCode::Never && tables.is_some() {
            Some(Guard::start(&object)?)
        } else {
            None
        };
        let mut recorder = Self {
            probes: Probes::new(settings.probing),
            control: Control::new(settings.live),
            tracepoints: Attached::default(),
            guard,
            stops: 0,
            object,
            records,
            sideband,
            lives: Lives::default(),
            processes: Processes::default(),
            stacks: HashMap::new(),
            seen_in: HashMap::new(),
            scope: UprobeScope::Machine,
            examined: Examined::default(),
            examined_in: HashMap::new(),
            functions: Table::new(settings.functions.clone())
                .with_separate_symbols(symbolize::debug_file_of, &settings.symbols.debug_directories),
            asked_for: HashSet::new(),
            tables,
            copies,
            copied: Copied::default(),
            snapshots: Snapshots {
                history: settings.live_report.map(|_| History::default()),
                ..Snapshots::default()
            },
            namer: Namer::new(settings.symbols.clone()),
            departed: Departed::default(),
            older_than: settings
                .live_report
                .and_then(|live| live.older_than)
                .unwrap_or_default(),
            frame_pointers: settings.unwind == Unwind::Auto,
            heap: settings.heap,
            live: settings.live,
            unit: Unit {
                halvings: halvings(settings),
            },
            target: settings.target.clone(),
            cgroup: None,
            is_over: false,
            started: Instant::now(),
            duration: None,
            ended: None,
            ended_ns: None,
            held: None,
            command_name: String::new(),
        };
        recorder.probes.counts_frees = purpose == Purpose::Estimate;
        let scoped = !settings.follow;
        recorder.look_at(&targets, &settings.target)?;
        let command_files = targets.command_files(&mut recorder.lives);
        let command_paths = targets.command_paths().to_vec();
        recorder.make_tables(&command_files)?;
        let mut points = PROCESS_PROGRAMS.to_vec();
        if settings.unwind != Unwind::FramePointer {
            points.extend(TABLE_PROGRAMS);
        }
        if settings.region {
            points.extend(REGION_PROGRAMS);
        }
        if settings.live {
            points.extend(LIVE_PROGRAMS);
        }
        if let Some(cgroup) = &targets.cgroup {
            recorder.object.set_cgroup(cgroup.directory())?;
        }
        recorder
            .object
            .attach_tracepoints(&mut recorder.tracepoints, &points)?;
        recorder.admit(targets, settings)?;
        let measured = measuring.map(Measuring::finish);
        // Last: from here on the targets pay.
        if settings.heap {
            recorder.attach_named(settings)?;
            recorder.attach_allocators(&command_files, settings, scoped)?;
            recorder.probes.are_as_wanted(settings.live)?;
            recorder.found_all(settings)?;
            recorder.attach_in_wait(&command_paths);
        }
        let attaching = recorder.probes.attaching;
        match purpose {
            Purpose::Record => recorder.begin_budget(settings, measured, attaching)?,
            Purpose::Estimate => recorder.begin_estimate(measured)?,
        }
        Ok(recorder)
    }

    /// Remembers what running processes have mapped.
    fn look_at(&mut self, targets: &Targets, target: &Target) -> Result<(), StartError> {
        let all;
        let pids = match target {
            Target::Pids(pids) => pids,
            Target::Command(_) => return Ok(()),
            Target::All | Target::Comm(_) | Target::Cgroup(_) => {
                all = proc_fs::all().map_err(StartError::Proc)?;
                &all
            }
        };
        for pid in pids {
            if let Err(error) = self.lives.snapshot(*pid)
                && targets.pids.contains(pid)
                && matches!(target, Target::Pids(_))
            {
                log::debug!("process {pid}: {error}");
                return Err(StartError::Ended(*pid));
            }
        }
        Ok(())
    }

    /// Makes the unwind tables of every file that the targets have mapped, or will map first.
    fn make_tables(&mut self, command_files: &[Arc<MappedFile>]) -> Result<(), StartError> {
        if let Some(tables) = &mut self.tables {
            let mut files = command_files.to_vec();
            files.extend(self.lives.all_mapped_files());
            tables.make_now(&mut self.object, &files)?;
            tables.make_of_vdso(&mut self.object)?;
        }
        Ok(())
    }

    /// Makes the found processes targets.
    fn admit(&mut self, targets: Targets, settings: &Record) -> Result<(), StartError> {
        if matches!(settings.target, Target::Pids(_)) && !settings.follow {
            self.scope = UprobeScope::Process(0);
        }
        let now = monotonic_ns();
        for pid in &targets.pids {
            let number = self.processes.add(*pid, now);
            self.object.add_process(*pid, number)?;
        }
        self.command_name = targets.command_name;
        self.held = targets.held;
        self.cgroup = targets.cgroup;
        Ok(())
    }

    /// Lets a launched command go.
    pub fn release(&mut self) -> Result<Option<Child>, StartError> {
        let Some(held) = self.held.take() else {
            return Ok(None);
        };
        self.started = Instant::now();
        let failed = |error| StartError::Command {
            command: self.command_name.clone(),
            error,
        };
        held.release().map(Some).map_err(failed)
    }

    /// The probes that were attached.
    #[must_use]
    pub fn probes(&self) -> &[Probe] {
        self.probes.listed()
    }

    /// The allocators in a file that has probes, by name.
    #[must_use]
    pub fn allocators(&self, file: &Path) -> &[String] {
        self.probes.allocators(file)
    }

    /// How much is followed now.
    #[must_use]
    pub fn followed(&self) -> Followed {
        self.control.followed()
    }

    /// Bytes of kernel memory that the maps take, by map.
    #[must_use]
    pub fn memory(&self) -> std::collections::BTreeMap<String, u64> {
        self.object.memory()
    }

    /// The processes that were found at the start: (name, pid).
    #[must_use]
    pub fn found(&self) -> Vec<(String, u32)> {
        let mut found: Vec<_> = self
            .processes
            .present()
            .map(|(_, tracked)| (tracked.comm.clone(), tracked.pid))
            .collect();
        found.sort_by_key(|(_, pid)| *pid);
        found
    }
}
