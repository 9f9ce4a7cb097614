//! Probes: discovery of allocators, the choice of each function's probes, and their way in and out.

mod discovery;
mod function_probes;
mod uprobes;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) use discovery::{AllocatorSearch, NoPlan, no_allocator_in};
pub(super) use uprobes::{AttachedUprobes, ProbeChoice};

use self::discovery::{no_allocator, warn_of_hidden};
use super::pacing::WorkTime;
use super::process_table::ProcessTable;
use super::targets::{CommandFiles, StartError};
use crate::bpf::links::AttachError;
use crate::bpf::load::{LIVE_PROGRAMS, PROCESS_PROGRAMS, REGION_PROGRAMS, TABLE_PROGRAMS};
use crate::bpf::{Attached, Object, UprobeScope};
use crate::cost::SiteKind;
use crate::probe_plan::functions::FunctionTable;
use crate::probe_plan::libraries;
use crate::probe_plan::plan::{Found, Plan};
use crate::process::files::MappedFile;
use crate::process::proc_fs;
use crate::report::session::Probe;
use crate::settings::{Record, Target, Unwind};
use crate::symbolize;

/// The most named processes that have probes of their own, for which others pay nothing. The kernel
/// asks each process's probe at every hit: one takes 510 ns, one of ten 650, of fifty 1,340, of two
/// hundred 4,700; and detaching so many takes 10 s and more. Beyond this the probes are in all
/// processes that map the file, and the program checks the process.
const MAX_SCOPES: usize = 16;

/// Everything that is attached, and everything that decides on it. Dropping it detaches all,
/// uprobes first.
pub(super) struct Attachments {
    uprobes: AttachedUprobes,
    tracepoints: Attached,
    search: AllocatorSearch,
    /// Functions and prefixes that the user has named and that were found.
    found_names: HashSet<String>,
    has_process_scopes: bool,
    /// Allocators that are mapped later are attached to.
    is_open: bool,
}

impl Attachments {
    /// Returns the state before anything is attached. `counts_frees`: calls that free are probed,
    /// though blocks are not followed.
    pub(super) fn new(settings: &Record, counts_frees: bool) -> Self {
        let choice = ProbeChoice {
            probing: settings.probing,
            live: settings.live,
            counts_frees,
        };
        Self {
            uprobes: AttachedUprobes::new(choice),
            tracepoints: Attached::default(),
            search: AllocatorSearch::new(
                FunctionTable::new(settings.functions.clone())
                    .with_separate_symbols(symbolize::debug_file_of, &settings.symbols.debug_directories),
            ),
            found_names: HashSet::new(),
            has_process_scopes: !settings.follow
                && matches!(&settings.target, Target::Pids(pids) if pids.len() <= MAX_SCOPES),
            is_open: settings.heap,
        }
    }

    /// Attaches the tracepoints of process life, of mappings and of regions, as far as they are
    /// wanted.
    pub(super) fn attach_tracepoints(
        &mut self,
        object: &mut Object,
        settings: &Record,
    ) -> Result<(), AttachError> {
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
        object.attach_tracepoints(&mut self.tracepoints, &points)
    }

    /// Attaches to the allocators of the targets, and to those that a target may load later.
    pub(super) fn attach_allocators(
        &mut self,
        object: &mut Object,
        processes: &mut ProcessTable,
        settings: &Record,
        command: &CommandFiles,
    ) -> Result<(), StartError> {
        self.attach_named_files(object, processes, settings)?;
        match &settings.target {
            Target::Pids(pids) if !settings.follow => {
                self.attach_to_processes(object, processes, pids)?;
            }
            Target::Command(words) => {
                let name = words.first().map(|name| name.to_string_lossy().into_owned());
                self.attach_to_command(object, &command.files, &name.unwrap_or_default())?;
            }
            Target::Pids(pids) => self.attach_to_any(object, processes, pids)?,
            Target::All | Target::Comm(_) | Target::Cgroup(_) => {
                let pids = proc_fs::all().map_err(StartError::Proc)?;
                self.attach_to_any(object, processes, &pids)?;
            }
        }
        if self.uprobes.lacks_inner_probes() {
            return Err(StartError::NoSingle);
        }
        self.require_named(settings)?;
        self.attach_speculatively(object, processes, &settings.target, &command.paths);
        Ok(())
    }

    /// Attaches to named processes: each must have an allocator.
    fn attach_to_processes(
        &mut self,
        object: &mut Object,
        processes: &ProcessTable,
        pids: &[u32],
    ) -> Result<(), StartError> {
        if pids.len() > MAX_SCOPES {
            log::warn!(
                "more than {MAX_SCOPES} processes are named: others that map the same libraries pay for a trap at \
                 each call too"
            );
        }
        for pid in pids {
            let scope = self.scope_of(*pid);
            let files = processes.history().mapped_files(*pid);
            let plans = self
                .search
                .plans_in(&files, UprobeScope::Process(*pid), &|_| true);
            let plans = plans.map_err(|missing| no_allocator_in(*pid, missing))?;
            self.uprobes.prepare(object, &plans)?;
            for plan in &plans {
                if scope == UprobeScope::Machine && !self.search.is_new(&plan.file, scope) {
                    continue;
                }
                self.attach_plan(object, plan, scope)
                    .map_err(|error| match error {
                        AttachError::Uprobe { .. } if error.is_gone() => StartError::Ended(*pid),
                        other => other.into(),
                    })?;
            }
        }
        Ok(())
    }

    /// Attaches to the files that a command will map.
    fn attach_to_command(
        &mut self,
        object: &mut Object,
        files: &[Arc<MappedFile>],
        name: &str,
    ) -> Result<(), StartError> {
        let program = files.first().map(|file| file.path.clone()).unwrap_or_default();
        let is_wanted = |path: &Path| path == program;
        match self.search.plans_in(files, UprobeScope::Machine, &is_wanted) {
            Ok(plans) => self.attach_plans(object, &plans),
            // The functions that the user named are elsewhere.
            Err(NoPlan::Nothing(_)) if !self.uprobes.listed().is_empty() => Ok(()),
            Err(missing) => Err(no_allocator(name, missing)),
        }
    }

    /// Attaches to processes of which any may have an allocator.
    fn attach_to_any(
        &mut self,
        object: &mut Object,
        processes: &ProcessTable,
        pids: &[u32],
    ) -> Result<(), StartError> {
        let mut files = Vec::new();
        for pid in pids {
            files.extend(processes.history().mapped_files(*pid));
        }
        let plans = self.search.plans_in(&files, UprobeScope::Machine, &|_| false);
        let plans = plans.map_err(|missing| no_allocator("any process", missing))?;
        self.attach_plans(object, &plans)
    }

    /// Attaches to files for every process.
    fn attach_plans(&mut self, object: &mut Object, plans: &[Plan]) -> Result<(), StartError> {
        for plan in plans {
            self.attach_plan(object, plan, UprobeScope::Machine)?;
        }
        Ok(())
    }

    fn attach_plan(
        &mut self,
        object: &mut Object,
        plan: &Plan,
        scope: UprobeScope,
    ) -> Result<(), AttachError> {
        self.found_names.extend(plan.asked_for.iter().cloned());
        self.uprobes.attach(object, plan, scope)
    }

    /// Attaches to the files that the user names with functions of theirs, whoever maps them.
    fn attach_named_files(
        &mut self,
        object: &mut Object,
        processes: &mut ProcessTable,
        settings: &Record,
    ) -> Result<(), StartError> {
        if matches!(settings.target, Target::Pids(_)) && !settings.follow {
            return Ok(());
        }
        for function in &settings.functions.functions {
            let Some(path) = function.file.as_ref().filter(|path| path.is_absolute()) else {
                continue;
            };
            let file = processes.history_mut().files().of_path(path);
            let file = file.map_err(|error| StartError::NoFile {
                path: path.display().to_string(),
                error,
            })?;
            if !self.search.is_new(&file, UprobeScope::Machine) {
                continue;
            }
            if let Some(Found::Allocator(plan)) = self.search.examine(&file) {
                self.attach_plans(object, &[plan])?;
            }
        }
        Ok(())
    }

    /// Fails if a function or a prefix that the user named was found nowhere.
    fn require_named(&self, settings: &Record) -> Result<(), StartError> {
        let prefixes = settings.functions.prefixes.iter();
        let prefixes =
            prefixes.map(|prefix| (prefix.clone(), format!("an allocator with the prefix {prefix}")));
        let functions = settings.functions.functions.iter();
        let functions =
            functions.map(|function| (function.name(), format!("the function {}", function.name())));
        for (name, asked) in prefixes.chain(functions) {
            if !self.found_names.contains(&name) {
                return Err(StartError::NotFound {
                    asked,
                    files: self.search.files(),
                });
            }
        }
        Ok(())
    }

    /// The processes that the probes for a process fire in.
    fn scope_of(&self, pid: u32) -> UprobeScope {
        if self.has_process_scopes {
            UprobeScope::Process(pid)
        } else {
            UprobeScope::Machine
        }
    }

    /// Attaches to allocators that a process may load later, so that its calls are seen from the
    /// first on.
    fn attach_speculatively(
        &mut self,
        object: &mut Object,
        processes: &mut ProcessTable,
        target: &Target,
        programs: &[PathBuf],
    ) {
        // One by one they would take their time, and most are never needed.
        if !object.attaches_many() {
            return;
        }
        let mut programs = programs.to_vec();
        if let Target::Pids(pids) = target {
            // A running process has most of what it will load, and pays for every file whose probes
            // come and go with the windows of a budget.
            if self.has_process_scopes && !pids.is_empty() {
                return;
            }
            programs.extend(pids.iter().filter_map(|pid| proc_fs::exe(*pid)));
        }
        for path in libraries::that_may_come(&programs) {
            let file = match processes.history_mut().files().of_path(&path) {
                Ok(file) => file,
                Err(error) => {
                    log::debug!("{}: {error}", path.display());
                    continue;
                }
            };
            if !self.search.is_new(&file, UprobeScope::Machine) {
                continue;
            }
            let Some(Found::Allocator(plan)) = self.search.examine(&file) else {
                continue;
            };
            match self
                .uprobes
                .attach_speculatively(object, &plan, UprobeScope::Machine)
            {
                Err(error) if error.is_gone() => log::debug!("{}: {error}", path.display()),
                Err(error) => log::warn!("{error}: calls in {} are not seen", path.display()),
                Ok(()) => {}
            }
        }
    }

    /// Attaches to a file that a process has mapped during the recording, if it has an allocator.
    /// `is_target`: the process's earlier calls are missed, which the user is told.
    pub(super) fn on_file_mapped(
        &mut self,
        object: &mut Object,
        file: &Arc<MappedFile>,
        pid: u32,
        is_target: bool,
    ) {
        if !self.is_open {
            return;
        }
        self.uprobes.activate(file.key);
        let scope = self.scope_of(pid);
        if !self.search.is_new(file, scope) {
            return;
        }
        let plan = match self.search.examine(file) {
            Some(Found::Allocator(plan)) => plan,
            Some(Found::StaticWithoutSymbols) => {
                log::info!(
                    "{} is linked statically and has no symbols: if it has an allocator, it is not traced",
                    file.path.display()
                );
                return;
            }
            Some(Found::Hidden(allocator)) => {
                warn_of_hidden(&file.path, allocator);
                return;
            }
            _ => return,
        };
        match self.uprobes.attach(object, &plan, scope) {
            Ok(()) if is_target => log::warn!(
                "{} was met when process {pid} mapped it: its calls before that were not seen",
                file.path.display()
            ),
            Ok(()) => {}
            Err(error) => log::warn!("{error}: calls in {} are not seen", file.path.display()),
        }
    }

    /// The uprobes, to be detached and reattached.
    pub(super) fn uprobes_mut(&mut self) -> &mut AttachedUprobes {
        &mut self.uprobes
    }

    /// Detaches the uprobes for good, and attaches none any more.
    pub(super) fn finish_uprobes(&mut self) {
        self.is_open = false;
        self.uprobes.finish();
    }

    /// Detaches the tracepoints for good.
    pub(super) fn finish_tracepoints(&mut self) {
        self.tracepoints.detach();
    }

    /// The uprobes, for reports.
    pub(super) fn listed(&self) -> &[Probe] {
        self.uprobes.listed()
    }

    /// The allocators in a file that has probes, by name.
    pub(super) fn allocators(&self, file: &Path) -> &[String] {
        self.uprobes.allocators(file)
    }

    /// Kinds of the uprobes, by cookie.
    pub(super) fn sites(&self) -> &[SiteKind] {
        self.uprobes.sites()
    }

    /// Time that attaching the uprobes has taken.
    pub(super) fn attaching(&self) -> WorkTime {
        self.uprobes.attaching()
    }
}
