//! The uprobes of a recording: what is attached where.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tracer_ebpf::{FileKey, ProbeSite, Shape};

use super::breakpoints::Breakpoints;
use super::budget::took::Took;
use crate::allocator::plan::{Plan, PlannedProbe};
use crate::bpf::links::AttachError;
use crate::bpf::{Attached, Object, Uprobe, UprobeScope};
use crate::cost::SiteKind;
use crate::report::session::{Probe, ProbeKind};
use crate::target::files::MappedFile;
use crate::target::maps::FileId;
use crate::target::process;

/// How often it is looked whether probes have gone.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// The uprobes. Dropping them takes them off.
#[derive(Debug, Default)]
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
    /// What hits of the probes cost, by cookie.
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

/// A function's probe where it is, or is tried.
#[derive(Debug, Clone)]
struct Chosen {
    probe: PlannedProbe,
    cookie: u64,
    at_return: Option<&'static str>,
}

impl Chosen {
    fn new(object: &mut Object, mut probe: PlannedProbe, live: bool) -> Result<Self, AttachError> {
        let at_return = return_program(&probe).filter(|_| live);
        if at_return.is_some() {
            // What is on top of the stack must be the return address: nothing may have been pushed.
            let mut places = std::mem::take(&mut probe.others);
            places.insert(0, probe.clone());
            places.retain(|place| place.site.pushed_bytes == 0);
            if !places.is_empty() {
                probe = places.remove(0);
            }
            probe.others = places;
        }
        Ok(Self {
            cookie: object.add_site(probe.site)?,
            probe,
            at_return,
        })
    }

    /// Goes on to the next place, since another tracer holds this one.
    fn next(&mut self, object: &mut Object, path: &Path) -> Result<(), AttachError> {
        if self.probe.others.is_empty() {
            return Err(AttachError::Held {
                symbol: self.probe.symbol.clone(),
                path: path.display().to_string(),
                offset: self.probe.file_offset,
                at_return: self.at_return.is_some(),
            });
        }
        let mut others = std::mem::take(&mut self.probe.others);
        let next = others.remove(0);
        log::debug!(
            "{} at {:#x} is held by another tracer: {:#x} is taken",
            self.probe.symbol,
            self.probe.file_offset,
            next.file_offset
        );
        self.probe = PlannedProbe { others, ..next };
        self.cookie = object.add_site(self.probe.site)?;
        Ok(())
    }
}

impl Probes {
    /// Attaches the probes of a plan: where blocks are followed (`live`), also those of returns and of `free`. While all
    /// are off, these are too.
    pub(super) fn attach(
        &mut self,
        object: &mut Object,
        plan: &Plan,
        scope: UprobeScope,
        live: bool,
    ) -> Result<(), AttachError> {
        let wanted = |probe: &&PlannedProbe| probe.shape != Shape::Free || live || self.counts_frees;
        let known = self.chosen.get(&plan.file.id).cloned();
        let is_new = known.is_none();
        if is_new && object.sites_left() < plan.probes.iter().filter(wanted).count() {
            log::warn!(
                "{}: all {} places for probes are taken: its calls are not seen",
                plan.file.path.display(),
                tracer_ebpf::MAX_SITES
            );
            return Ok(());
        }
        let mut chosen = match known {
            Some(chosen) => chosen,
            None => plan
                .probes
                .iter()
                .filter(wanted)
                .map(|probe| Chosen::new(object, probe.clone(), live))
                .collect::<Result<_, _>>()?,
        };
        let uprobes = loop {
            let uprobes = uprobes(&plan.file, &chosen, scope);
            if self.is_off {
                break uprobes;
            }
            let mut attached = Attached::default();
            let (made, took) = Took::by(|| object.attach_uprobes(&mut attached, &uprobes));
            self.attaching.own_s += took.own_s;
            self.attaching.clock_s += took.clock_s;
            let Err(error) = made else {
                self.attached.append(attached);
                break uprobes;
            };
            let is_at = |chosen: &&mut Chosen| error.held_offset() == Some(chosen.probe.file_offset);
            let Some(held) = chosen.iter_mut().find(is_at) else {
                return Err(error);
            };
            held.next(object, &plan.file.path)?;
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
            self.chosen.insert(plan.file.id, chosen);
        }
        Ok(())
    }

    fn note_site(&mut self, chosen: &Chosen) {
        let Ok(index) = usize::try_from(chosen.cookie) else {
            return;
        };
        if self.sites.len() <= index {
            self.sites.resize(index + 1, SiteKind::default());
        }
        self.sites[index] = SiteKind {
            single_stepped: chosen.probe.single_stepped,
            has_return: chosen.at_return.is_some(),
            is_free: chosen.probe.shape == Shape::Free,
        };
    }

    /// What hits of the probes cost, by cookie.
    pub(super) fn sites(&self) -> &[SiteKind] {
        &self.sites
    }

    /// Lists a file's probes, for reports.
    fn list(&mut self, plan: &Plan, chosen: &[Chosen]) {
        for Chosen { probe, at_return, .. } in chosen {
            let kinds = [
                Some(ProbeKind::Entry),
                at_return.map(|_program| ProbeKind::Return),
            ];
            let listed = kinds.into_iter().flatten().map(|kind| Probe {
                object: plan.file.path.clone(),
                symbol: probe.symbol.clone(),
                offset: probe.file_offset,
                kind,
                single_stepped: probe.single_stepped && kind == ProbeKind::Entry,
            });
            self.listed.extend(listed);
        }
        let stepped = chosen.iter().filter(|chosen| chosen.probe.single_stepped);
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
            UprobeScope::Process(pid) => process::is_running(pid),
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

/// The program for a function's returns; none where an exception may pass through the function, which a probe of returns
/// would turn into the end of the program.
fn return_program(probe: &PlannedProbe) -> Option<&'static str> {
    probe
        .shape
        .return_program()
        .filter(|_| probe.site.tail & ProbeSite::ENTRY_ONLY == 0)
}

/// The probes of a file's functions in their order.
fn uprobes(file: &Arc<MappedFile>, chosen: &[Chosen], scope: UprobeScope) -> Vec<Uprobe> {
    let uprobe = |program, chosen: &Chosen| Uprobe {
        program,
        file: Arc::clone(file),
        offset: chosen.probe.file_offset,
        cookie: chosen.cookie,
        scope,
    };
    // Inner functions last: a call that begins while probes go in is then never counted twice. Returns first: a call that
    // is begun is then sure to be decided.
    let returns = chosen
        .iter()
        .rev()
        .filter_map(|chosen| Some(uprobe(chosen.at_return?, chosen)));
    let entries = chosen
        .iter()
        .rev()
        .map(|chosen| uprobe(chosen.probe.shape.program(), chosen));
    returns.chain(entries).collect()
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.wait();
    }
}
