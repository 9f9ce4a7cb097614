//! Probes: discovery of allocators, the choice of each function's probes, and their way in and out.

mod detacher;
mod discovery;
mod function_probes;
mod moved_code;
mod tree;
mod uprobes;

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

pub(super) use discovery::{AllocatorSearch, NoPlan, no_allocator_in};
pub(super) use uprobes::{AttachedUprobes, ProbeChoice};

use self::discovery::{no_allocator, warn_of_hidden};
use self::tree::TreeChildren;
use super::process_table::ProcessTable;
use super::targets::{CommandFiles, MAX_SCOPES, StartError, has_process_scopes, has_tree};
use crate::bpf::links::AttachError;
use crate::bpf::load::{CHILD_PROGRAMS, LIVE_PROGRAMS, PROCESS_PROGRAMS, REGION_PROGRAMS, TABLE_PROGRAMS};
use crate::bpf::{Attached, Object, UprobeScope};
use crate::clock::{WorkTime, monotonic_ns};
use crate::probe_plan::plan::{Found, Plan};
use crate::process::files::MappedFile;
use crate::process::proc_fs;
use crate::profile::session::Probe;
use crate::recorder::cost::SiteKind;
use crate::settings::{Probed, Probing, Record, StopPolicy, Target, Unwind};

/// Everything that is attached, and everything that decides on it. Dropping it detaches all,
/// uprobes first.
pub(super) struct Attachments {
    uprobes: AttachedUprobes,
    tracepoints: Attached,
    /// Those of children and of their parents, whose programs do nothing once the probes are the
    /// machine's.
    child_tracepoints: Attached,
    search: AllocatorSearch,
    /// Functions and prefixes that the user has named and that were found.
    found_names: HashSet<String>,
    has_process_scopes: bool,
    /// The processes of the tree, where each has probes of its own.
    tree: Option<HashSet<u32>>,
    /// Children of the tree, by what has told of them.
    children: TreeChildren,
    /// The children that are stopped at their beginning.
    stop_children: StopPolicy,
    /// Allocators that are mapped later are attached to.
    is_open: bool,
}

/// The plan of a file whose probes are to be attached.
struct PlannedFile {
    plan: Plan,
    scope: UprobeScope,
    /// The named process that it is for, if it is for one.
    pid: Option<u32>,
}

impl PlannedFile {
    /// Plans for every process of the machine.
    fn of_machine(plans: Vec<Plan>) -> Vec<Self> {
        let planned = plans.into_iter().map(|plan| Self {
            plan,
            scope: UprobeScope::Machine,
            pid: None,
        });
        planned.collect()
    }
}

impl Attachments {
    /// Returns the state before anything is attached. `counts_frees`: calls that free are probed,
    /// though blocks are not followed.
    pub(super) fn new(settings: &Record, search: AllocatorSearch, counts_frees: bool) -> Self {
        let choice = ProbeChoice {
            probing: settings.probing,
            live: settings.live,
            counts_frees,
        };
        Self {
            uprobes: AttachedUprobes::new(choice),
            tracepoints: Attached::default(),
            child_tracepoints: Attached::default(),
            search,
            found_names: HashSet::new(),
            has_process_scopes: has_process_scopes(settings),
            tree: has_tree(settings).then(HashSet::new),
            children: TreeChildren::new(settings.follow),
            stop_children: settings.stop_children,
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
        if has_tree(settings) {
            self.child_tracepoints
                .attach_tracepoints(object, CHILD_PROGRAMS)?;
        }
        self.tracepoints.attach_tracepoints(object, &points)
    }

    /// Attaches to the allocators of the targets, and to those that a target may load later.
    ///
    /// Everything is planned before the first probe is attached: where probes are of the whole
    /// machine, memtap's own allocations run into them too.
    pub(super) fn attach_allocators(
        &mut self,
        object: &mut Object,
        processes: &mut ProcessTable,
        settings: &Record,
        pids: &[u32],
        command: &CommandFiles,
    ) -> Result<(), StartError> {
        let mut planned = self.plan_named_files(processes, settings)?;
        if let Target::Pids(pids) = &settings.target {
            self.warn_of_moved_code(processes, pids);
        }
        match &settings.target {
            Target::Pids(pids) if !settings.follow => {
                planned.extend(self.plan_processes(processes, pids)?);
            }
            Target::Command(words) => {
                let name = words.first().map(|name| name.to_string_lossy().into_owned());
                let is_alone = planned.is_empty();
                planned.extend(self.plan_command(&command.files, &name.unwrap_or_default(), is_alone)?);
            }
            Target::Pids(pids) => planned.extend(self.plan_any(processes, pids)?),
            Target::All | Target::Comm(_) | Target::Cgroup(_) => {
                let pids = proc_fs::all().map_err(StartError::Proc)?;
                planned.extend(self.plan_any(processes, &pids)?);
            }
        }
        let speculative = if object.attaches_many() {
            self.plan_speculatively(&command.speculative)
        } else {
            // One by one they would take their time, and most are never needed.
            Vec::new()
        };
        for file in &planned {
            self.uprobes.choose(object, &file.plan, settings.probing)?;
        }
        for plan in &speculative {
            // None of these allocators has inner sites, and a search for them takes long.
            self.uprobes.choose(object, plan, Probing::Two)?;
        }
        self.uprobes
            .prepare(object, planned.iter().map(|file| &file.plan))?;
        let name = match &settings.target {
            Target::Command(words) => words.first().map(OsString::as_os_str),
            _ => None,
        };
        self.begin_tree(object, pids, name)?;
        for file in &planned {
            self.found_names.extend(file.plan.asked_for.iter().cloned());
            let attached = self.attach_to_living(file.scope, |uprobes, scopes| {
                uprobes.attach(object, &file.plan, scopes)
            });
            match (&self.tree, &settings.target) {
                (Some(tree), Target::Pids(pids)) if tree.is_empty() => {
                    return Err(StartError::ended(pids.first().copied().unwrap_or_default()));
                }
                _ => {}
            }
            attached.map_err(|error| match (file.pid, error) {
                (Some(pid), error @ AttachError::Uprobe { .. }) if error.is_gone() => StartError::ended(pid),
                (_, other) => other.into(),
            })?;
        }
        if self.uprobes.lacks_inner_probes() {
            return Err(StartError::NoSingle);
        }
        self.require_named(settings)?;
        for plan in &speculative {
            let path = plan.file.path.display();
            let attached = self.attach_to_living(UprobeScope::Machine, |uprobes, scopes| {
                uprobes.attach_speculatively(object, plan, scopes)
            });
            match attached {
                Err(error) if error.is_gone() => log::debug!("{path}: {error}"),
                Err(error) => log::warn!("{error}: calls in {path} are not seen"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Warns of allocators that named processes have moved out of their files before.
    fn warn_of_moved_code(&mut self, processes: &mut ProcessTable, pids: &[u32]) {
        let search = &mut self.search;
        moved_code::warn_of_moved(pids.iter().copied(), &mut |path, pid| {
            let below = path.strip_prefix("/").unwrap_or(path);
            let path = Path::new("/proc").join(pid.to_string()).join("root").join(below);
            let file = processes.history_mut().files().of_path(&path);
            file.is_ok_and(|file| matches!(search.examine(&file), Some(Found::Allocator(_))))
        });
    }

    /// Plans the probes of named processes: each must have an allocator.
    fn plan_processes(
        &mut self,
        processes: &mut ProcessTable,
        pids: &[u32],
    ) -> Result<Vec<PlannedFile>, StartError> {
        if pids.len() > MAX_SCOPES {
            log::warn!(
                "more than {MAX_SCOPES} processes are named: others that map the same libraries pay for a trap at \
                 each call too"
            );
        }
        let mut planned = Vec::new();
        for pid in pids {
            let scope = self.scope_of(*pid);
            let search = &mut self.search;
            let mut plans = |processes: &ProcessTable| {
                let files = processes.history().mapped_files(*pid);
                search.plans_in(&files, UprobeScope::Process(*pid), &|_| true)
            };
            let mut found = plans(processes);
            // One that has just begun may have had no library mapped when it was looked at first.
            if found.is_err() && !processes.history_mut().refresh(*pid, monotonic_ns()).is_empty() {
                found = plans(processes);
            }
            for plan in found.map_err(|missing| no_allocator_in(*pid, missing))? {
                if scope == UprobeScope::Machine && !self.search.is_new(&plan.file, scope) {
                    continue;
                }
                planned.push(PlannedFile {
                    plan,
                    scope,
                    pid: Some(*pid),
                });
            }
        }
        Ok(planned)
    }

    /// Plans the probes of the files that a command will map. `is_alone`: no function that the user
    /// named was found elsewhere.
    fn plan_command(
        &mut self,
        files: &[Arc<MappedFile>],
        name: &str,
        is_alone: bool,
    ) -> Result<Vec<PlannedFile>, StartError> {
        let program = files.first().map(|file| file.path.clone()).unwrap_or_default();
        let is_wanted = |path: &Path| path == program;
        match self.search.plans_in(files, UprobeScope::Machine, &is_wanted) {
            Ok(plans) => Ok(PlannedFile::of_machine(plans)),
            Err(NoPlan::Nothing(_)) if !is_alone => Ok(Vec::new()),
            Err(missing) => Err(no_allocator(name, missing)),
        }
    }

    /// Plans the probes of processes of which any may have an allocator.
    fn plan_any(&mut self, processes: &ProcessTable, pids: &[u32]) -> Result<Vec<PlannedFile>, StartError> {
        let mut files = Vec::new();
        for pid in pids {
            files.extend(processes.history().mapped_files(*pid));
        }
        let plans = self.search.plans_in(&files, UprobeScope::Machine, &|_| false);
        let plans = plans.map_err(|missing| no_allocator("any process", missing))?;
        Ok(PlannedFile::of_machine(plans))
    }

    /// Plans the probes of the files that the user names with functions of theirs, whoever maps
    /// them.
    fn plan_named_files(
        &mut self,
        processes: &mut ProcessTable,
        settings: &Record,
    ) -> Result<Vec<PlannedFile>, StartError> {
        let mut plans = Vec::new();
        if matches!(settings.target, Target::Pids(_)) && !settings.follow {
            return Ok(Vec::new());
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
                plans.push(plan);
            }
        }
        Ok(PlannedFile::of_machine(plans))
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

    /// The processes that the probes of a file are for: those of the tree where there is one.
    fn scopes_or(&self, scope: UprobeScope) -> Vec<UprobeScope> {
        match &self.tree {
            Some(pids) => pids.iter().copied().map(UprobeScope::Process).collect(),
            None => vec![scope],
        }
    }

    /// Attaches for these processes or, where there is a tree, for its own. One of the tree that
    /// has ended meanwhile keeps no probe from the others.
    fn attach_to_living(
        &mut self,
        scope: UprobeScope,
        mut attach: impl FnMut(&mut AttachedUprobes, &[UprobeScope]) -> Result<(), AttachError>,
    ) -> Result<(), AttachError> {
        loop {
            let scopes = self.scopes_or(scope);
            match attach(&mut self.uprobes, &scopes) {
                Err(error) if error.is_gone() && self.remove_ended() => {}
                attached => return attached,
            }
        }
    }

    /// Plans the probes of allocators that a process may load later, so that its calls are seen
    /// from the first on.
    fn plan_speculatively(&mut self, files: &[Arc<MappedFile>]) -> Vec<Plan> {
        let mut plans = Vec::new();
        for file in files {
            if self.search.is_new(file, UprobeScope::Machine)
                && let Some(Found::Allocator(plan)) = self.search.examine(file)
            {
                plans.push(plan);
            }
        }
        plans
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
        let plan = match self.search.examine_afresh(file) {
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
        let attached = self.attach_to_living(scope, |uprobes, scopes| uprobes.attach(object, &plan, scopes));
        match attached {
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

    /// Detaches everything for good, and attaches nothing any more; says which of the processes
    /// that are `present` have moved their code meanwhile. The kernel waits for grace periods of
    /// uprobes and of tracepoints at once.
    pub(super) fn finish(&mut self, object: &mut Object, present: impl IntoIterator<Item = u32>) {
        if self.is_open {
            let uprobes = &self.uprobes;
            moved_code::warn_of_moved(present, &mut |path, _| !uprobes.allocators(path).is_empty());
        }
        self.is_open = false;
        self.detach_child_tracepoints(object);
        let (uprobes, tracepoints) = (&mut self.uprobes, &mut self.tracepoints);
        std::thread::scope(|scope| {
            scope.spawn(|| tracepoints.detach());
            uprobes.finish();
        });
    }

    /// The uprobes, for reports.
    pub(super) fn listed(&self) -> &[Probe] {
        self.uprobes.listed()
    }

    /// The processes that have probes: those of the machine where the tree's were too many, or
    /// could not be stopped unseen.
    pub(super) fn probed(&self) -> Probed {
        if self.tree.is_some() || self.has_process_scopes {
            Probed::Tree
        } else {
            Probed::Machine
        }
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
