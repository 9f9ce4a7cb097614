//! The uprobes of a recording: what is attached where.

use tracer_ebpf::Shape;

use crate::allocator::plan::{Plan, PlannedProbe};
use crate::bpf::links::AttachError;
use crate::bpf::{Attached, Object, UprobeScope};
use crate::report::session::{Probe, ProbeKind};

/// The uprobes. Dropping them takes them off.
#[derive(Debug, Default)]
pub(super) struct Probes {
    attached: Attached,
    listed: Vec<Probe>,
}

impl Probes {
    /// Attaches the probes of a plan: where blocks are followed (`live`), also those of returns and of `free`.
    pub(super) fn attach(
        &mut self,
        object: &mut Object,
        plan: &Plan,
        scope: UprobeScope,
        live: bool,
    ) -> Result<(), AttachError> {
        // Inner functions last: a call that begins while probes go in is then never counted twice.
        let wanted = |probe: &&PlannedProbe| probe.shape != Shape::Free || live;
        let probes: Vec<&PlannedProbe> = plan.probes.iter().filter(wanted).collect();
        let mut listed = Vec::new();
        for probe in probes.iter().rev() {
            let cookie = object.add_site(probe.site)?;
            // The return first: a call that is begun is then sure to be decided.
            let at_return = probe.shape.return_program().filter(|_| live);
            let programs = [
                (at_return, ProbeKind::Return),
                (Some(probe.shape.program()), ProbeKind::Entry),
            ];
            for (program, kind) in programs {
                let Some(program) = program else { continue };
                object.attach_uprobe(
                    &mut self.attached,
                    program,
                    &plan.file.open_path(),
                    probe.file_offset,
                    cookie,
                    scope,
                )?;
                listed.push(Probe {
                    object: plan.file.path.clone(),
                    symbol: probe.symbol.to_owned(),
                    offset: probe.file_offset,
                    kind,
                    single_stepped: probe.single_stepped && kind == ProbeKind::Entry,
                });
            }
        }
        listed.reverse();
        log::debug!("{}: {} probes", plan.file.path.display(), listed.len());
        self.listed.extend(listed);
        Ok(())
    }

    /// What was attached, for reports.
    pub(super) fn listed(&self) -> &[Probe] {
        &self.listed
    }

    /// Takes all off, and waits until the last program has ended.
    pub(super) fn detach(&mut self) {
        self.attached.detach();
    }
}
