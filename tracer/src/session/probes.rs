//! The uprobes of a recording: what is attached where.

use tracer_ebpf::Shape;

use super::start_error::StartError;
use crate::allocator::plan::{Plan, PlannedProbe};
use crate::allocator::single::{self, Kind, Site};
use crate::bpf::links::AttachError;
use crate::bpf::{Attached, Object, UprobeScope};
use crate::report::session::{Probe, ProbeKind};
use crate::settings::Probing;

/// The uprobes. Dropping them takes them off.
#[derive(Debug)]
pub(super) struct Probes {
    attached: Attached,
    listed: Vec<Probe>,
    probing: Probing,
}

impl Probes {
    pub(super) fn new(probing: Probing) -> Self {
        Self {
            attached: Attached::default(),
            listed: Vec::new(),
            probing,
        }
    }

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
        let inside = if live && self.probing != Probing::Two {
            let sites = single::sites(plan);
            single::explain(plan, &sites);
            sites.into_iter().map(Result::unwrap_or_default).collect()
        } else {
            vec![Vec::new(); plan.probes.len()]
        };
        let probes = plan.probes.iter().zip(&inside);
        let probes: Vec<_> = probes.filter(|(probe, _)| wanted(probe)).collect();
        let mut listed = Vec::new();
        for (probe, sites) in probes.iter().rev() {
            let cookie = object.add_site(probe.site)?;
            if !sites.is_empty() {
                self.attach_inside(object, plan, probe, sites, cookie, scope, &mut listed)?;
                continue;
            }
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

    /// Attaches to the places inside a function at which its calls are met.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are those of `attach`, taken apart"
    )]
    fn attach_inside(
        &mut self,
        object: &mut Object,
        plan: &Plan,
        probe: &PlannedProbe,
        sites: &[Site],
        function: u64,
        scope: UprobeScope,
        listed: &mut Vec<Probe>,
    ) -> Result<(), AttachError> {
        let mut sites = sites.to_vec();
        // Results first: a call whose request is met is then sure to be decided.
        sites.sort_by_key(|site| (site.kind != Kind::Result, std::cmp::Reverse(site.file_offset)));
        for site in sites {
            let cookie = object.add_single(function, site.single)?;
            object.attach_uprobe(
                &mut self.attached,
                site.kind.program(),
                &plan.file.open_path(),
                site.file_offset,
                cookie,
                scope,
            )?;
            listed.push(Probe {
                object: plan.file.path.clone(),
                symbol: probe.symbol.to_owned(),
                offset: site.file_offset,
                kind: match site.kind {
                    Kind::Whole => ProbeKind::Single,
                    Kind::Request => ProbeKind::Request,
                    Kind::Result => ProbeKind::Result,
                },
                single_stepped: site.single_stepped,
            });
        }
        Ok(())
    }

    /// Fails if calls were to be met inside their functions, and none is.
    pub(super) fn are_as_wanted(&self, live: bool) -> Result<(), StartError> {
        let is_inside = self.listed.iter().any(|probe| probe.kind == ProbeKind::Single);
        if live && self.probing == Probing::One && !is_inside {
            return Err(StartError::NoSingle);
        }
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
