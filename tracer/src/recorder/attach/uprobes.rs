//! The uprobes of a recording: attached, detached for a while, and attached again.
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tracer_ebpf::FileKey;

use super::detacher::Detacher;
use super::function_probes::{FunctionProbes, entry_program, is_free};
use crate::bpf::links::AttachError;
use crate::bpf::load::BpfError;
use crate::bpf::{Attached, Object, Uprobe, UprobeScope, links};
use crate::clock::WorkTime;
use crate::probe_plan::plan::{Plan, PlannedProbe};
use crate::process::files::MappedFile;
use crate::process::maps::{self, FileId, Mapping};
use crate::process::proc_fs;
use crate::profile::session::{Probe, ProbeKind};
use crate::recorder::cost::SiteKind;
use crate::recorder::cost::trap_share::TrapCode;
use crate::settings::Probing;

/// Interval at which detached probes are looked for in the code. No event tells when one has gone.
const BREAKPOINT_POLL: Duration = Duration::from_millis(2);

/// The choice of calls, and of places to probe them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProbeChoice {
    /// The places at which calls are probed whose blocks are followed.
    pub(crate) probing: Probing,
    /// Blocks are followed until they are freed.
    pub(crate) live: bool,
    /// Calls that free are probed, though blocks are not followed.
    pub(crate) counts_frees: bool,
}

impl ProbeChoice {
    fn includes(self, probe: &PlannedProbe) -> bool {
        self.live || self.counts_frees || !is_free(probe)
    }
}

/// The uprobes. Dropping them detaches them.
#[derive(Debug)]
pub(crate) struct AttachedUprobes {
    /// Those that are attached, by the processes that they are for.
    attached: HashMap<UprobeScope, Attached>,
    /// All that are wanted, in the order in which they are attached.
    wanted: Vec<Uprobe>,
    /// The probes of each file's plan: the same for all processes that map it.
    functions: HashMap<FileId, Vec<FunctionProbes>>,
    /// Files whose probes were attached for some process.
    attached_files: HashSet<FileId>,
    /// Those files, in the order in which they came.
    files: Vec<Arc<MappedFile>>,
    listed: Vec<Probe>,
    /// The allocators in each file that has probes, by name.
    allocators: HashMap<PathBuf, Vec<String>>,
    /// Probes of files that nobody has mapped yet, to be listed then.
    speculative: HashMap<FileKey, Vec<Probe>>,
    choice: ProbeChoice,
    /// Kinds of the probes, by the number that hits are counted under.
    sites: Vec<SiteKind>,
    /// Time that attaching has taken.
    attaching: WorkTime,
    /// The user was told that some must be single-stepped.
    has_warned: bool,
    /// All are detached for a while.
    is_detached: bool,
    /// The thread that closes detached probes.
    closing: Option<JoinHandle<()>>,
    /// The thread that closes probes of processes that have ended.
    detacher: Detacher,
}

impl AttachedUprobes {
    /// Returns an empty set.
    pub(crate) fn new(choice: ProbeChoice) -> Self {
        Self {
            attached: HashMap::new(),
            wanted: Vec::new(),
            functions: HashMap::new(),
            attached_files: HashSet::new(),
            files: Vec::new(),
            listed: Vec::new(),
            allocators: HashMap::new(),
            speculative: HashMap::new(),
            choice,
            sites: Vec::new(),
            attaching: WorkTime::default(),
            has_warned: false,
            is_detached: false,
            closing: None,
            detacher: Detacher::default(),
        }
    }

    /// Attaches the probes of a plan for these processes, which may be none yet. While all are
    /// detached, these wait with the others.
    pub(crate) fn attach(
        &mut self,
        object: &mut Object,
        plan: &Plan,
        scopes: &[UprobeScope],
    ) -> Result<(), AttachError> {
        self.choose(object, plan, self.choice.probing)?;
        let Some(mut functions) = self.functions.get(&plan.file.id).cloned() else {
            return Ok(());
        };
        let uprobes = loop {
            let uprobes: Vec<Uprobe> = scopes
                .iter()
                .flat_map(|scope| FunctionProbes::uprobes(&plan.file, &functions, *scope))
                .collect();
            let Err(error) = self.attach_uprobes(object, &uprobes) else {
                break uprobes;
            };
            let Some(refused) = functions.iter_mut().find(|it| it.is_retryable(&error)) else {
                return Err(error);
            };
            refused.fall_back(object, &plan.file.path, &error)?;
        };
        let probes = functions.iter().map(FunctionProbes::len).sum::<usize>();
        let allocators = plan.allocators.join(", ");
        log::info!("{}: {allocators}, {probes} probes", plan.file.path.display());
        self.wanted.extend(uprobes);
        for function in &functions {
            self.note_site(function);
        }
        if self.attached_files.insert(plan.file.id) {
            self.files.push(Arc::clone(&plan.file));
            self.list(plan, &functions);
            let path = plan.file.path.clone();
            self.allocators.insert(path, plan.allocators.clone());
        }
        self.functions.insert(plan.file.id, functions);
        Ok(())
    }

    /// Attaches uprobes, unless all are detached for a while.
    fn attach_uprobes(&mut self, object: &mut Object, uprobes: &[Uprobe]) -> Result<(), AttachError> {
        if self.is_detached {
            return Ok(());
        }
        // Loading happens once, and is no part of the cost of attaching again.
        links::load_programs(object, uprobes)?;
        let (attached, time) = WorkTime::of(|| attach_by_scope(object, uprobes));
        self.attaching.add(time);
        for (scope, links) in attached? {
            self.attached.entry(scope).or_default().append(links);
        }
        Ok(())
    }

    /// Attaches the probes of all files that have some for these processes too.
    pub(super) fn attach_all_for(
        &mut self,
        object: &mut Object,
        scope: UprobeScope,
    ) -> Result<(), AttachError> {
        let uprobes: Vec<Uprobe> = self
            .files
            .iter()
            .flat_map(|file| {
                let functions = self.functions.get(&file.id).map_or(&[][..], Vec::as_slice);
                FunctionProbes::uprobes(file, functions, scope)
            })
            .collect();
        self.attach_uprobes(object, &uprobes)?;
        self.wanted.extend(uprobes);
        Ok(())
    }

    /// Chooses the probes of a plan's functions, unless they are chosen already. Finding inner
    /// sites takes long, and allocates: it is best done before the first probe is attached, which
    /// memtap's own calls run into too where probes are of the whole machine.
    pub(super) fn choose(
        &mut self,
        object: &mut Object,
        plan: &Plan,
        probing: Probing,
    ) -> Result<(), AttachError> {
        let choice = self.choice;
        if self.functions.contains_key(&plan.file.id) {
            return Ok(());
        }
        if object.functions_left() < plan.probes.iter().filter(|it| choice.includes(it)).count() {
            log::warn!(
                "{}: all {} places for probes are taken: its calls are not seen",
                plan.file.path.display(),
                tracer_ebpf::MAX_SITES
            );
            return Ok(());
        }
        let frees = choice.live || choice.counts_frees;
        let functions = FunctionProbes::of_plan(object, plan, choice.live, frees, probing)?;
        self.functions.insert(plan.file.id, functions);
        Ok(())
    }

    /// Loads the programs of the probes of all plans before the first probe is attached, so that a
    /// process that runs into it does not pay for loading. Where blocks are followed, the programs
    /// depend on what the kernel accepts.
    pub(super) fn prepare<'a>(
        &self,
        object: &mut Object,
        plans: impl IntoIterator<Item = &'a Plan>,
    ) -> Result<(), BpfError> {
        let probes = plans.into_iter().flat_map(|plan| &plan.probes);
        probes
            .filter(|probe| !self.choice.live && self.choice.includes(probe))
            .try_for_each(|probe| object.need_uprobe(entry_program(probe)))
    }

    /// Returns true if calls were to be followed by one probe each, and none is.
    pub(super) fn lacks_inner_probes(&self) -> bool {
        let has_inner = self.listed.iter().any(|probe| probe.kind == ProbeKind::Single);
        self.choice.live && self.choice.probing == Probing::One && !has_inner
    }

    fn note_site(&mut self, function: &FunctionProbes) {
        let (number, kind) = function.site_kind();
        let Ok(index) = usize::try_from(number) else {
            return;
        };
        if self.sites.len() <= index {
            self.sites.resize(index + 1, SiteKind::default());
        }
        self.sites[index] = kind;
    }

    /// Lists a file's probes, for reports.
    fn list(&mut self, plan: &Plan, functions: &[FunctionProbes]) {
        self.listed
            .extend(functions.iter().flat_map(|it| it.listed(&plan.file.path)));
        let stepped = functions.iter().filter(|it| it.is_single_stepped());
        let stepped: Vec<&str> = stepped.map(FunctionProbes::symbol).collect();
        if !stepped.is_empty() && !self.has_warned {
            self.has_warned = true;
            log::warn!(
                "{} in {}: no instruction where a probe is cheap; each call costs 1.5 us more, where the machine is \
                 virtual 9 us",
                stepped.join(", "),
                plan.file.path.display()
            );
        }
    }

    /// Attaches to a file that may never be mapped: its probes are listed by
    /// [`activate`](Self::activate).
    pub(super) fn attach_speculatively(
        &mut self,
        object: &mut Object,
        plan: &Plan,
        scopes: &[UprobeScope],
    ) -> Result<(), AttachError> {
        let listed = self.listed.len();
        let has_warned = std::mem::replace(&mut self.has_warned, true);
        let attached = self.attach(object, plan, scopes);
        self.has_warned = has_warned;
        attached?;
        let speculative = self.listed.split_off(listed);
        self.speculative
            .entry(plan.file.key)
            .or_default()
            .extend(speculative);
        Ok(())
    }

    /// Lists the speculative probes of a file that a process has mapped.
    pub(super) fn activate(&mut self, file: FileKey) {
        if let Some(probes) = self.speculative.remove(&file) {
            self.listed.extend(probes);
        }
    }

    /// The allocators in a file that has probes, by name.
    pub(super) fn allocators(&self, file: &Path) -> &[String] {
        self.allocators.get(file).map_or(&[], Vec::as_slice)
    }

    /// The probes, for reports.
    pub(super) fn listed(&self) -> &[Probe] {
        &self.listed
    }

    /// Kinds of the probes, by the number that hits are counted under.
    pub(super) fn sites(&self) -> &[SiteKind] {
        &self.sites
    }

    /// Time that attaching has taken.
    pub(super) fn attaching(&self) -> WorkTime {
        self.attaching
    }

    /// The code of a process in which it is in a trap of these probes, attached or detached.
    pub(crate) fn trap_code(&self, pid: u32) -> std::io::Result<TrapCode> {
        let mappings = maps::executable_mappings(pid)?;
        let is_of_process = |uprobe: &&Uprobe| match uprobe.scope {
            UprobeScope::Process(of) => of == pid,
            UprobeScope::Machine => true,
        };
        let probes = self.wanted.iter().filter(is_of_process);
        let probes = probes.filter_map(|uprobe| address_in(&mappings, uprobe));
        // `[uprobes]`, and on Linux 6.18 `[uprobes-trampoline]`.
        let trampolines = mappings
            .iter()
            .filter(|mapping| mapping.path.as_os_str().as_bytes().starts_with(b"[uprobes"));
        let trampolines = trampolines.map(|mapping| mapping.start..mapping.end).collect();
        Ok(TrapCode::new(probes, trampolines))
    }

    /// Detaches all for a while: no hit comes any more once this has returned. Where each probe is
    /// for one process, that takes some milliseconds, and the kernel's grace periods go on
    /// meanwhile; else they are waited for.
    pub(crate) fn detach(&mut self) {
        self.wait();
        self.is_detached = true;
        let mut attached = Attached::default();
        for (_, links) in std::mem::take(&mut self.attached) {
            attached.append(links);
        }
        if attached.is_empty() {
            return;
        }
        let breakpoints = Breakpoints::of(&self.wanted);
        let thread = std::thread::spawn(move || attached.detach());
        if let Some(mut breakpoints) = breakpoints {
            while !thread.is_finished() && !breakpoints.have_gone() {
                std::thread::sleep(BREAKPOINT_POLL);
            }
            self.closing = Some(thread);
        } else {
            self.closing = Some(thread);
            self.wait();
        }
    }

    /// Attaches again what [`detach`](Self::detach) detached, except for processes that have ended
    /// meanwhile.
    pub(crate) fn reattach(&mut self, object: &mut Object) -> Result<(), AttachError> {
        if !self.is_detached {
            return Ok(());
        }
        self.wait();
        let is_there = |uprobe: &Uprobe| match uprobe.scope {
            UprobeScope::Process(pid) => proc_fs::is_running(pid),
            UprobeScope::Machine => true,
        };
        loop {
            self.wanted.retain(is_there);
            match attach_by_scope(object, &self.wanted) {
                // The process has ended since.
                Err(error) if error.is_gone() && !self.wanted.iter().all(is_there) => {}
                result => {
                    self.attached = result?;
                    self.is_detached = false;
                    return Ok(());
                }
            }
        }
    }

    /// Detaches all for good, and waits until the last program has ended.
    pub(super) fn finish(&mut self) {
        self.wait();
        let mut attached = Attached::default();
        for (_, links) in self.attached.drain() {
            attached.append(links);
        }
        attached.detach();
        self.detacher.finish();
        self.wanted.clear();
    }

    /// Detaches the probes of a process that has ended, or that gets them anew.
    pub(super) fn remove(&mut self, scope: UprobeScope) {
        if let Some(links) = self.attached.remove(&scope) {
            self.detacher.detach(links);
        }
        self.wanted.retain(|uprobe| uprobe.scope != scope);
    }

    /// Waits until the probes that were removed are off.
    pub(super) fn wait_for_removed(&mut self) {
        self.detacher.finish();
    }

    fn wait(&mut self) {
        if let Some(thread) = self.closing.take()
            && thread.join().is_err()
        {
            log::warn!("a thread that detached probes has failed: the kernel detaches them when memtap ends");
        }
    }
}

impl Drop for AttachedUprobes {
    fn drop(&mut self) {
        self.wait();
    }
}

/// Attaches uprobes, those of each scope apart.
fn attach_by_scope(
    object: &mut Object,
    uprobes: &[Uprobe],
) -> Result<HashMap<UprobeScope, Attached>, AttachError> {
    let mut by_scope: HashMap<UprobeScope, Vec<Uprobe>> = HashMap::new();
    for uprobe in uprobes {
        by_scope.entry(uprobe.scope).or_default().push(uprobe.clone());
    }
    let attached = by_scope.into_iter().map(|(scope, uprobes)| {
        let mut attached = Attached::default();
        attached.attach_uprobes(object, &uprobes)?;
        Ok((scope, attached))
    });
    attached.collect()
}

/// The byte that a uprobe puts in place of an instruction's first one: `int3`.
const BREAKPOINT: u8 = 0xcc;

/// The breakpoints of attached uprobes in the code of processes.
///
/// Closing a probe removes its breakpoint within milliseconds, and then waits for grace periods of
/// the kernel, some ten times as long. The removal shows in memory alone: in that of the process
/// that the probe is for. A probe for all processes leaves them one after the other, and nothing
/// tells which is the last.
#[derive(Debug)]
struct Breakpoints(Vec<ProbedInstruction>);

/// An instruction in a process's memory.
#[derive(Debug)]
struct ProbedInstruction {
    memory: Rc<File>,
    address: u64,
}

impl ProbedInstruction {
    /// Returns true if there is a breakpoint. Memory that has gone has none.
    fn has_breakpoint(&self) -> bool {
        let mut byte = [0];
        self.memory.read_exact_at(&mut byte, self.address).is_ok() && byte[0] == BREAKPOINT
    }
}

impl Breakpoints {
    /// Finds the breakpoints of attached uprobes. Returns nothing if any cannot be seen, and its
    /// removal neither.
    fn of(uprobes: &[Uprobe]) -> Option<Self> {
        let mut found = Vec::new();
        let mut processes: HashMap<u32, Option<ProcessCode>> = HashMap::new();
        for uprobe in uprobes {
            let UprobeScope::Process(pid) = uprobe.scope else {
                return None;
            };
            let process = processes.entry(pid).or_insert_with(|| ProcessCode::open(pid));
            // A process that has ended has no code.
            let Some(process) = process else { continue };
            // A probe of a file that is not mapped yet is in no code.
            if !process.maps(uprobe) {
                continue;
            }
            found.push(process.instruction(uprobe)?);
        }
        let all_in = found.iter().all(ProbedInstruction::has_breakpoint);
        all_in.then_some(Self(found))
    }

    /// Returns true if all have gone.
    fn have_gone(&mut self) -> bool {
        self.0.retain(ProbedInstruction::has_breakpoint);
        self.0.is_empty()
    }
}

/// A process's memory and its mappings of code.
struct ProcessCode {
    memory: Rc<File>,
    mappings: Vec<Mapping>,
}

impl ProcessCode {
    fn open(pid: u32) -> Option<Self> {
        Some(Self {
            memory: Rc::new(File::open(format!("/proc/{pid}/mem")).ok()?),
            mappings: maps::executable_mappings(pid).ok()?,
        })
    }

    fn maps(&self, uprobe: &Uprobe) -> bool {
        self.mappings.iter().any(|mapping| mapping.file == uprobe.file.id)
    }

    fn instruction(&self, uprobe: &Uprobe) -> Option<ProbedInstruction> {
        Some(ProbedInstruction {
            memory: Rc::clone(&self.memory),
            address: address_in(&self.mappings, uprobe)?,
        })
    }
}

/// The address of a probed instruction in a process with these mappings.
fn address_in(mappings: &[Mapping], uprobe: &Uprobe) -> Option<u64> {
    mappings.iter().find_map(|mapping| {
        let inside = uprobe.offset.checked_sub(mapping.file_offset)?;
        let is_mapped = mapping.file == uprobe.file.id && inside < mapping.end - mapping.start;
        is_mapped.then_some(mapping.start + inside)
    })
}
