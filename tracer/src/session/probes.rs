//! The uprobes of a recording: what is attached where.

use std::collections::HashMap;
use std::thread::JoinHandle;

use tracer_ebpf::{FileKey, ProbeSite, Shape};

use crate::allocator::plan::{Plan, PlannedProbe};
use crate::bpf::links::AttachError;
use crate::bpf::{Attached, Object, Uprobe, UprobeScope};
use crate::report::session::{Probe, ProbeKind};
use crate::target::maps::FileId;

/// The uprobes. Dropping them takes them off.
#[derive(Debug, Default)]
pub(super) struct Probes {
    attached: Attached,
    /// All that are wanted, in the order in which they go in.
    uprobes: Vec<Uprobe>,
    /// The cookies of the probes of each file's plan: the same for all processes that map it.
    cookies: HashMap<FileId, Vec<u64>>,
    listed: Vec<Probe>,
    /// Those of files that nobody has mapped yet.
    in_wait: HashMap<FileKey, Vec<Probe>>,
    /// They are taken off for a while.
    is_off: bool,
    /// Waits for those that were taken off.
    taking_off: Option<JoinHandle<()>>,
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
        let wanted = |probe: &&PlannedProbe| probe.shape != Shape::Free || live;
        let probes: Vec<&PlannedProbe> = plan.probes.iter().filter(wanted).collect();
        let cookies = if let Some(cookies) = self.cookies.get(&plan.file.id) {
            cookies.clone()
        } else {
            if object.sites_left() < probes.len() {
                log::warn!(
                    "{}: all {} places for probes are taken: its calls are not seen",
                    plan.file.path.display(),
                    tracer_ebpf::MAX_SITES
                );
                return Ok(());
            }
            let cookies: Vec<u64> = probes
                .iter()
                .map(|probe| object.add_site(probe.site))
                .collect::<Result<_, _>>()?;
            self.cookies.insert(plan.file.id, cookies.clone());
            self.list(plan, &probes, live);
            cookies
        };
        let uprobe = |program, offset, cookie| Uprobe {
            program,
            file: plan.file.clone(),
            offset,
            cookie,
            scope,
        };
        // Inner functions last: a call that begins while probes go in is then never counted twice.
        let both: Vec<(&PlannedProbe, u64)> = probes.into_iter().zip(cookies).rev().collect();
        // Returns first: a call that is begun is then sure to be decided.
        let returns = both.iter().filter(|_| live).filter_map(|(probe, cookie)| {
            let program = return_program(probe)?;
            Some(uprobe(program, probe.file_offset, *cookie))
        });
        let entries = both
            .iter()
            .map(|(probe, cookie)| uprobe(probe.shape.program(), probe.file_offset, *cookie));
        let uprobes: Vec<Uprobe> = returns.chain(entries).collect();
        if !self.is_off {
            object.attach_uprobes(&mut self.attached, &uprobes)?;
        }
        log::info!(
            "{}: {}, {} probes",
            plan.file.path.display(),
            plan.allocators.join(", "),
            uprobes.len()
        );
        self.uprobes.extend(uprobes);
        Ok(())
    }

    /// Lists a file's probes, for reports.
    fn list(&mut self, plan: &Plan, probes: &[&PlannedProbe], live: bool) {
        for probe in probes {
            let at_return = return_program(probe).filter(|_| live);
            let kinds = [
                Some(ProbeKind::Entry),
                at_return.map(|_program| ProbeKind::Return),
            ];
            let listed = kinds.into_iter().flatten().map(|kind| Probe {
                object: plan.file.path.clone(),
                symbol: probe.symbol.to_owned(),
                offset: probe.file_offset,
                kind,
                single_stepped: probe.single_stepped && kind == ProbeKind::Entry,
            });
            self.listed.extend(listed);
        }
    }

    /// Attaches to a file that nobody may ever map: its probes are listed once somebody has.
    pub(super) fn attach_in_wait(
        &mut self,
        object: &mut Object,
        plan: &Plan,
        live: bool,
    ) -> Result<(), AttachError> {
        let listed = self.listed.len();
        self.attach(object, plan, UprobeScope::Machine, live)?;
        let in_wait = self.listed.split_off(listed);
        self.in_wait.insert(plan.file.key, in_wait);
        Ok(())
    }

    /// A process has mapped a file: what was in wait for it is no more.
    pub(super) fn arrive(&mut self, file: FileKey) {
        if let Some(probes) = self.in_wait.remove(&file) {
            self.listed.extend(probes);
        }
    }

    /// What was attached, for reports.
    pub(super) fn listed(&self) -> &[Probe] {
        &self.listed
    }

    /// Takes all off for a while: no hit comes any more once this has returned.
    #[cfg_attr(
        not(feature = "bench"),
        allow(dead_code, reason = "for recordings that trace a part of the time")
    )]
    pub(super) fn take_off(&mut self) {
        self.wait();
        self.is_off = true;
        self.attached.detach();
    }

    /// Puts in again what [`take_off`](Self::take_off) took off, but for what has ended meanwhile.
    #[cfg_attr(
        not(feature = "bench"),
        allow(dead_code, reason = "for recordings that trace a part of the time")
    )]
    pub(super) fn put_back(&mut self, object: &mut Object) -> Result<(), AttachError> {
        if !self.is_off {
            return Ok(());
        }
        self.wait();
        self.is_off = false;
        object.attach_uprobes(&mut self.attached, &self.uprobes)
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

impl Drop for Probes {
    fn drop(&mut self) {
        self.wait();
    }
}
