//! The uprobes of a recording: what is attached where.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use tracer_ebpf::FileKey;

use super::breakpoints::Breakpoints;
use super::budget::took::Took;
use super::chosen::{Chosen, entry_program, uprobes};
use super::start_error::StartError;
use crate::bpf::links::AttachError;
use crate::bpf::load::BpfError;
use crate::bpf::{Attached, Object, Uprobe, UprobeScope};
use crate::cost::SiteKind;
use crate::probe_plan::inner_sites;
use crate::probe_plan::plan::{Plan, PlannedProbe};
use crate::process::maps::FileId;
use crate::process::proc_fs;
use crate::report::session::{Probe, ProbeKind};
use crate::settings::Probing;

/// How often it is looked whether probes have gone.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The uprobes. Dropping them takes them off.
#[derive(Debug)]
pub(super) struct Probes {
    attached: Attached,
    /// All that are wanted, in the order in which they go in.
    uprobes: Vec<Uprobe>,
    /// Where the probes of each file's plan are: the same for all processes that map it.
    chosen: HashMap<FileId, Vec<Chosen>>,
    listed: Vec<Probe>,
    /// The allocators in each file that has probes, by name.
    allocators: HashMap<PathBuf, Vec<String>>,
    /// Those of files that nobody has mapped yet.
    in_wait: HashMap<FileKey, Vec<Probe>>,
    probing: Probing,
    /// What hits of the probes cost, by function.
    sites: Vec<SiteKind>,
    /// What attaching has taken.
    pub(super) attaching: Took,
    /// Calls that give blocks back are probed too, though blocks are not followed.
    pub(super) counts_frees: bool,
    /// It was said that some must be single-stepped.
    has_warned: bool,
    /// They are taken off for a while.
    is_off: bool,
    /// Waits for those that were taken off.
    taking_off: Option<JoinHandle<()>>,
}

impl Probes {
    /// None yet. `probing`: where calls are to be met whose blocks are followed.
    pub(super) fn new(probing: Probing) -> Self {
        Self {
            attached: Attached::default(),
            uprobes: Vec::new(),
            chosen: HashMap::new(),
            listed: Vec::new(),
            allocators: HashMap::new(),
            in_wait: HashMap::new(),
            probing,
            sites: Vec::new(),
            attaching: Took::default(),
            counts_frees: false,
            has_warned: false,
            is_off: false,
            taking_off: None,
        }
    }

    /// Attaches the probes of a plan: where blocks are followed (`live`), also those of returns and of `free`. While all
    /// are off, these are too.
    pub(super) fn attach(
        &mut self,
        object: &mut Object,
        plan: &Plan,
        scope: UprobeScope,
        live: bool,
    ) -> Result<(), AttachError> {
        let known = self.chosen.get(&plan.file.id).cloned();
        let is_new = known.is_none();
        if is_new && object.functions_left() < plan.probes.iter().filter(|it| self.wants(it, live)).count() {
            log::warn!(
                "{}: all {} places for probes are taken: its calls are not seen",
                plan.file.path.display(),
                tracer_ebpf::MAX_SITES
            );
            return Ok(());
        }
        let mut chosen = match known {
            Some(chosen) => chosen,
            None => self.choose(object, plan, live)?,
        };
        let uprobes = loop {
            let uprobes = uprobes(&plan.file, &chosen, scope);
            if self.is_off {
                break uprobes;
            }
            // That is done once, and is no part of what switching takes.
            object.need_programs(&uprobes)?;
            let mut attached = Attached::default();
            let (made, took) = Took::by(|| object.attach_uprobes(&mut attached, &uprobes));
            self.attaching.own_s += took.own_s;
            self.attaching.clock_s += took.clock_s;
            let Err(error) = made else {
                self.attached.append(attached);
                break uprobes;
            };
            let Some(refused) = chosen.iter_mut().find(|chosen| chosen.can_go_on(&error)) else {
                return Err(error);
            };
            refused.next(object, &plan.file.path, &error)?;
        };
        log::info!(
            "{}: {}, {} probes",
            plan.file.path.display(),
            plan.allocators.join(", "),
            uprobes.len()
        );
        self.uprobes.extend(uprobes);
        for chosen in &chosen {
            self.note_site(chosen);
        }
        if is_new {
            self.list(plan, &chosen);
            let path = plan.file.path.clone();
            self.allocators.insert(path, plan.allocators.clone());
        }
        self.chosen.insert(plan.file.id, chosen);
        Ok(())
    }

    /// Loads the programs of the probes of all plans, before the first probe is in: what is hit meanwhile pays for nothing.
    /// Where blocks are followed it is not known yet which programs that are.
    pub(super) fn prepare(&self, object: &mut Object, plans: &[Plan], live: bool) -> Result<(), BpfError> {
        let probes = plans.iter().flat_map(|plan| &plan.probes);
        probes
            .filter(|probe| !live && self.wants(probe, live))
            .try_for_each(|probe| object.need_uprobe(entry_program(probe)))
    }

    /// Whether a function's calls are to be met at all.
    fn wants(&self, probe: &PlannedProbe, live: bool) -> bool {
        !probe.roles.frees() || live || self.counts_frees
    }

    /// Where the calls of a file's functions are to be met.
    fn choose(&self, object: &mut Object, plan: &Plan, live: bool) -> Result<Vec<Chosen>, AttachError> {
        let inside = if live && self.probing != Probing::Two {
            let sites = inner_sites::sites(plan);
            inner_sites::explain(plan, &sites);
            sites.into_iter().map(Result::unwrap_or_default).collect()
        } else {
            vec![Vec::new(); plan.probes.len()]
        };
        let probes = plan.probes.iter().zip(inside);
        probes
            .filter(|(probe, _)| self.wants(probe, live))
            .map(|(probe, inside)| Chosen::new(object, probe.clone(), &inside, live))
            .collect()
    }

    /// Fails if calls were to be met inside their functions, and none is.
    pub(super) fn are_as_wanted(&self, live: bool) -> Result<(), StartError> {
        let is_inside = self.listed.iter().any(|probe| probe.kind == ProbeKind::Single);
        if live && self.probing == Probing::One && !is_inside {
            return Err(StartError::NoSingle);
        }
        Ok(())
    }

    fn note_site(&mut self, chosen: &Chosen) {
        let Ok(index) = usize::try_from(chosen.function) else {
            return;
        };
        if self.sites.len() <= index {
            self.sites.resize(index + 1, SiteKind::default());
        }
        self.sites[index] = SiteKind {
            single_stepped: chosen.is_stepped(),
            has_return: chosen.at_return.is_some(),
            is_free: chosen.probe.roles.frees(),
        };
    }

    /// What hits of the probes cost, by function.
    pub(super) fn sites(&self) -> &[SiteKind] {
        &self.sites
    }

    /// Lists a file's probes, for reports.
    fn list(&mut self, plan: &Plan, chosen: &[Chosen]) {
        self.listed
            .extend(chosen.iter().flat_map(|chosen| chosen.listed(&plan.file.path)));
        let stepped = chosen.iter().filter(|chosen| chosen.is_stepped());
        let stepped: Vec<&str> = stepped.map(|chosen| chosen.probe.symbol.as_str()).collect();
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

    /// Attaches to a file that nobody may ever map: its probes are listed once somebody has.
    pub(super) fn attach_in_wait(
        &mut self,
        object: &mut Object,
        plan: &Plan,
        scope: UprobeScope,
        live: bool,
    ) -> Result<(), AttachError> {
        let listed = self.listed.len();
        let has_warned = std::mem::replace(&mut self.has_warned, true);
        let attached = self.attach(object, plan, scope, live);
        self.has_warned = has_warned;
        attached?;
        let in_wait = self.listed.split_off(listed);
        self.in_wait.entry(plan.file.key).or_default().extend(in_wait);
        Ok(())
    }

    /// A process has mapped a file: what was in wait for it is no more.
    pub(super) fn arrive(&mut self, file: FileKey) {
        if let Some(probes) = self.in_wait.remove(&file) {
            self.listed.extend(probes);
        }
    }

    /// The allocators in a file that has probes, by name.
    pub(super) fn allocators(&self, file: &Path) -> &[String] {
        self.allocators.get(file).map_or(&[], Vec::as_slice)
    }

    /// What was attached, for reports.
    pub(super) fn listed(&self) -> &[Probe] {
        &self.listed
    }

    /// Takes all off for a while: no hit comes any more once this has returned. Where each is for one process, that is some
    /// milliseconds later, and the kernel's grace periods go on meanwhile; else they are waited for.
    pub(super) fn take_off(&mut self) {
        self.wait();
        self.is_off = true;
        let mut attached = std::mem::take(&mut self.attached);
        if attached.is_empty() {
            return;
        }
        let breakpoints = Breakpoints::of(&self.uprobes);
        let thread = std::thread::spawn(move || attached.detach());
        if let Some(mut breakpoints) = breakpoints {
            while !thread.is_finished() && !breakpoints.have_gone() {
                std::thread::sleep(LOOK_EVERY);
            }
            self.taking_off = Some(thread);
        } else {
            self.taking_off = Some(thread);
            self.wait();
        }
    }

    /// Puts in again what [`take_off`](Self::take_off) took off, but for what has ended meanwhile.
    pub(super) fn put_back(&mut self, object: &mut Object) -> Result<(), AttachError> {
        if !self.is_off {
            return Ok(());
        }
        self.wait();
        let is_there = |uprobe: &Uprobe| match uprobe.scope {
            UprobeScope::Process(pid) => proc_fs::is_running(pid),
            UprobeScope::Machine => true,
        };
        loop {
            self.uprobes.retain(is_there);
            let mut attached = Attached::default();
            match object.attach_uprobes(&mut attached, &self.uprobes) {
                // It has ended since.
                Err(error) if error.is_gone() && !self.uprobes.iter().all(is_there) => {}
                result => {
                    result?;
                    self.attached = attached;
                    self.is_off = false;
                    return Ok(());
                }
            }
        }
    }

    /// Takes all off, and waits until the last program has ended.
    pub(super) fn detach(&mut self) {
        self.wait();
        self.attached.detach();
        self.uprobes.clear();
    }

    fn wait(&mut self) {
        if let Some(thread) = self.taking_off.take()
            && thread.join().is_err()
        {
            log::warn!(
                "a thread that took probes off has failed: the kernel takes them off when memtap ends"
            );
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.wait();
    }
}
