//! Where a function's calls are met: at its entry, and at its return where blocks are followed, or inside it.

use std::path::Path;
use std::sync::Arc;

use tracer_ebpf::ProbeSpec;

use crate::bpf::links::AttachError;
use crate::bpf::{Object, Uprobe, UprobeScope, programs};
use crate::probe_plan::inner_sites::{Kind, Site};
use crate::probe_plan::plan::PlannedProbe;
use crate::process::files::MappedFile;
use crate::report::session::{Probe, ProbeKind};

/// A function's probes where they are, or are tried.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    /// That of its entry.
    pub(super) probe: PlannedProbe,
    /// The number that its hits are counted under.
    pub(super) function: u32,
    /// The cookie of the probe of its entry.
    cookie: u64,
    /// The program of its return, where there is a probe.
    pub(super) at_return: Option<&'static str>,
    /// Places inside, each with its probe's cookie: then there is none at the entry.
    inside: Vec<(Site, u64)>,
}

impl Chosen {
    /// Chooses the places `inside` a function if there are any, its entry and its return else.
    pub(super) fn new(
        object: &mut Object,
        mut probe: PlannedProbe,
        inside: &[Site],
        live: bool,
    ) -> Result<Self, AttachError> {
        let at_return = return_program(&probe).filter(|_| live);
        if at_return.is_some() {
            // What is on top of the stack must be the return address: nothing may have been pushed.
            let mut places = std::mem::take(&mut probe.others);
            places.insert(0, probe.clone());
            places.retain(PlannedProbe::is_at_return_address);
            if !places.is_empty() {
                probe = places.remove(0);
            }
            probe.others = places;
        }
        let function = object.add_function()?;
        let cookie = object.add_spec(function, probe.spec)?;
        let cookie_of = |site: &Site| Ok((*site, object.add_spec(function, site.spec)?));
        let inside = inside
            .iter()
            .map(cookie_of)
            .collect::<Result<Vec<_>, AttachError>>()?;
        Ok(Self {
            probe,
            function,
            cookie,
            at_return: at_return.filter(|_| inside.is_empty()),
            inside,
        })
    }

    /// Whether it can go on elsewhere after this: another tracer holds a place, or the kernel refuses one inside.
    pub(super) fn can_go_on(&self, error: &AttachError) -> bool {
        if let Some(offset) = error.held_offset() {
            return self.is_at(offset);
        }
        let refused = error.refused_offset().filter(|_| !self.inside.is_empty());
        refused.is_some_and(|offset| self.is_at(offset))
    }

    /// Whether there is a probe at an offset in the file.
    fn is_at(&self, file_offset: u64) -> bool {
        if self.inside.is_empty() {
            self.probe.file_offset == file_offset
        } else {
            self.inside
                .iter()
                .any(|(site, _)| site.file_offset == file_offset)
        }
    }

    /// Whether every call meets an instruction that the kernel must single-step.
    pub(super) const fn is_stepped(&self) -> bool {
        self.inside.is_empty() && self.probe.single_stepped
    }

    /// Goes on to the next place, since this one cannot be had. Inside a function there is no other: every call meets just one
    /// of its places.
    pub(super) fn next(
        &mut self,
        object: &mut Object,
        path: &Path,
        error: &AttachError,
    ) -> Result<(), AttachError> {
        if !self.inside.is_empty() {
            log::debug!("{}: followed at entry and return: {error}", self.probe.symbol);
            self.inside.clear();
            self.at_return = return_program(&self.probe);
            return Ok(());
        }
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
        self.cookie = object.add_spec(self.function, self.probe.spec)?;
        Ok(())
    }

    /// The probes, for reports.
    pub(super) fn listed(&self, path: &Path) -> Vec<Probe> {
        let one = |offset, kind, single_stepped| Probe {
            object: path.to_owned(),
            symbol: self.probe.symbol.clone(),
            offset,
            kind,
            single_stepped,
        };
        if self.inside.is_empty() {
            let offset = self.probe.file_offset;
            let at_return = self
                .at_return
                .map(|_program| one(offset, ProbeKind::Return, false));
            let entry = one(offset, ProbeKind::Entry, self.probe.single_stepped);
            return std::iter::once(entry).chain(at_return).collect();
        }
        let listed = self.inside.iter().map(|(site, _)| {
            let kind = match site.kind {
                Kind::Complete => ProbeKind::Single,
                Kind::Request => ProbeKind::Request,
                Kind::Result => ProbeKind::Result,
            };
            one(site.file_offset, kind, site.single_stepped)
        });
        listed.collect()
    }

    /// The places of the sites of one kind, each with its probe's cookie.
    fn sites_of(&self, kind: Kind) -> impl Iterator<Item = (u64, u64)> {
        let sites = self.inside.iter().filter(move |(site, _)| site.kind == kind);
        sites.map(|(site, cookie)| (site.file_offset, *cookie))
    }
}

/// The program for a function's returns; none where an exception may pass through the function, which a probe of returns
/// would turn into the end of the program.
fn return_program(probe: &PlannedProbe) -> Option<&'static str> {
    let is_probed = !probe.roles.frees() && probe.spec.flags & ProbeSpec::ENTRY_ONLY == 0;
    is_probed.then_some(programs::CALL_RETURN)
}

/// The program for an inner site.
const fn inner_program(kind: Kind) -> &'static str {
    match kind {
        Kind::Complete => programs::CALL_COMPLETE,
        Kind::Request => programs::CALL_BEGIN,
        Kind::Result => programs::CALL_RESULT,
    }
}

/// The program for a function's entry.
pub(super) const fn entry_program(probe: &PlannedProbe) -> &'static str {
    if probe.roles.frees() {
        programs::CALL_FREE
    } else {
        programs::CALL_BEGIN
    }
}

/// The probes of a file's functions in their order.
pub(super) fn uprobes(file: &Arc<MappedFile>, chosen: &[Chosen], scope: UprobeScope) -> Vec<Uprobe> {
    let uprobe = |program, (offset, cookie)| Uprobe {
        program,
        file: Arc::clone(file),
        offset,
        cookie,
        scope,
    };
    let entry = |chosen: &Chosen| (chosen.probe.file_offset, chosen.cookie);
    // Inner functions last: a call that begins while probes go in is then never counted twice. Returns and results first: a
    // call that is begun is then sure to be decided.
    let returns = chosen
        .iter()
        .rev()
        .filter_map(|chosen| Some(uprobe(chosen.at_return?, entry(chosen))));
    let results = chosen.iter().rev().flat_map(|chosen| {
        let sites = chosen.sites_of(Kind::Result);
        sites.map(|place| uprobe(inner_program(Kind::Result), place))
    });
    let begins = chosen.iter().rev().flat_map(|chosen| {
        let inside = [Kind::Request, Kind::Complete].into_iter().flat_map(|kind| {
            let sites = chosen.sites_of(kind);
            sites.map(move |place| uprobe(inner_program(kind), place))
        });
        let at_entry = chosen
            .inside
            .is_empty()
            .then(|| uprobe(entry_program(&chosen.probe), entry(chosen)));
        inside.chain(at_entry)
    });
    returns.chain(results).chain(begins).collect()
}
