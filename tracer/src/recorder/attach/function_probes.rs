//! The probes of one function: at its entry, at its return where blocks are followed, or inside it.
//!
//! Nothing else in the recorder knows call shapes and inner sites.

use std::path::Path;
use std::sync::Arc;

use tracer_ebpf::{ProbeScope, ProbeSpec};

use crate::bpf::links::AttachError;
use crate::bpf::{Object, Uprobe, UprobeScope, programs};
use crate::probe_plan::inner_sites::{self, Kind, Site};
use crate::probe_plan::plan::{Plan, PlannedProbe};
use crate::process::files::MappedFile;
use crate::profile::session::{Probe, ProbeKind};
use crate::recorder::cost::SiteKind;
use crate::settings::Probing;

/// A function's probes as they are attached, or as they are tried next.
#[derive(Debug, Clone)]
pub(super) struct FunctionProbes {
    /// The probe of the entry.
    probe: PlannedProbe,
    /// The number that the kernel side counts its hits under.
    function: u32,
    /// The cookie of that probe: the index of its spec.
    cookie: u64,
    /// The program of the function's return, where there is a probe of it.
    return_program: Option<&'static str>,
    /// Inner sites, each with its probe's cookie. Where there are any, there is no probe of the
    /// entry.
    inner: Vec<(Site, u64)>,
}

impl FunctionProbes {
    /// Chooses the probes of a file's functions. Blocks are followed where `live`; calls that free
    /// are probed where `frees`.
    pub(super) fn of_plan(
        object: &mut Object,
        plan: &Plan,
        live: bool,
        frees: bool,
        probing: Probing,
    ) -> Result<Vec<Self>, AttachError> {
        let inner = if live && probing != Probing::Two {
            let sites = inner_sites::sites(plan);
            inner_sites::explain(plan, &sites);
            sites.into_iter().map(Result::unwrap_or_default).collect()
        } else {
            vec![Vec::new(); plan.probes.len()]
        };
        let probes = plan.probes.iter().zip(inner);
        probes
            .filter(|(probe, _)| frees || !is_free(probe))
            .map(|(probe, inner)| Self::new(object, probe.clone(), &inner, live))
            .collect()
    }

    /// Chooses the inner sites of a function if there are any, else its entry and its return.
    fn new(
        object: &mut Object,
        mut probe: PlannedProbe,
        inner: &[Site],
        live: bool,
    ) -> Result<Self, AttachError> {
        let return_program = return_program_of(&probe).filter(|_| live);
        if return_program.is_some() {
            // The return address must be on top of the stack: nothing may have been pushed.
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
        let with_cookie = |site: &Site| Ok((*site, object.add_spec(function, site.spec)?));
        let inner = inner
            .iter()
            .map(with_cookie)
            .collect::<Result<Vec<_>, AttachError>>()?;
        Ok(Self {
            probe,
            function,
            cookie,
            return_program: return_program.filter(|_| inner.is_empty()),
            inner,
        })
    }

    /// Returns true if the function can be probed elsewhere after this error: another tracer holds
    /// one of its instructions, or the kernel refuses an inner site.
    pub(super) fn is_retryable(&self, error: &AttachError) -> bool {
        if let Some(offset) = error.held_offset() {
            return self.is_at(offset);
        }
        let refused = error.refused_offset().filter(|_| !self.inner.is_empty());
        refused.is_some_and(|offset| self.is_at(offset))
    }

    fn is_at(&self, file_offset: u64) -> bool {
        if self.inner.is_empty() {
            self.probe.file_offset == file_offset
        } else {
            self.inner.iter().any(|(site, _)| site.file_offset == file_offset)
        }
    }

    /// Falls back to the entry and the return from inner sites, every one of which is needed, and
    /// from an entry that is held to the next instruction.
    pub(super) fn fall_back(
        &mut self,
        object: &mut Object,
        path: &Path,
        error: &AttachError,
    ) -> Result<(), AttachError> {
        if !self.inner.is_empty() {
            log::debug!("{}: followed at entry and return: {error}", self.probe.symbol);
            self.inner.clear();
            self.return_program = return_program_of(&self.probe);
            return Ok(());
        }
        if self.probe.others.is_empty() {
            return Err(AttachError::Held {
                symbol: self.probe.symbol.clone(),
                path: path.display().to_string(),
                offset: self.probe.file_offset,
                at_return: self.return_program.is_some(),
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

    /// The number of its probes.
    pub(super) fn len(&self) -> usize {
        match self.inner.len() {
            0 => 1 + usize::from(self.return_program.is_some()),
            inner => inner,
        }
    }

    /// The function's name.
    pub(super) fn symbol(&self) -> &str {
        &self.probe.symbol
    }

    /// Returns true if every call runs into an instruction that the kernel must single-step.
    pub(super) const fn is_single_stepped(&self) -> bool {
        self.inner.is_empty() && self.probe.single_stepped
    }

    /// The number that the function's hits are counted under, and their kind.
    pub(super) fn site_kind(&self) -> (u32, SiteKind) {
        let kind = SiteKind {
            single_stepped: self.is_single_stepped(),
            has_return: self.return_program.is_some(),
            is_free: is_free(&self.probe),
        };
        (self.function, kind)
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
        if self.inner.is_empty() {
            let offset = self.probe.file_offset;
            let at_return = self
                .return_program
                .map(|_program| one(offset, ProbeKind::Return, false));
            let entry = one(offset, ProbeKind::Entry, self.probe.single_stepped);
            return std::iter::once(entry).chain(at_return).collect();
        }
        let listed = self.inner.iter().map(|(site, _)| {
            let kind = match site.kind {
                Kind::Complete => ProbeKind::Single,
                Kind::Request => ProbeKind::Request,
                Kind::Result => ProbeKind::Result,
            };
            one(site.file_offset, kind, site.single_stepped)
        });
        listed.collect()
    }

    /// The offsets of the inner sites of one kind, each with its probe's cookie.
    fn inner_of(&self, kind: Kind) -> impl Iterator<Item = (u64, u64)> {
        let sites = self.inner.iter().filter(move |(site, _)| site.kind == kind);
        sites.map(|(site, cookie)| (site.file_offset, *cookie))
    }

    /// The uprobes of a file's functions in the order in which they are attached. Results and
    /// returns come first: a call that begins meanwhile is then sure to be completed. Inner
    /// functions come last: such a call is never counted twice.
    pub(super) fn uprobes(file: &Arc<MappedFile>, functions: &[Self], scope: UprobeScope) -> Vec<Uprobe> {
        let links = match scope {
            UprobeScope::Process(_) => ProbeScope::Processes,
            UprobeScope::Machine => ProbeScope::Machine,
        };
        let uprobe = |program, (offset, cookie): (u64, u64)| Uprobe {
            program,
            file: Arc::clone(file),
            offset,
            cookie: links.mark(cookie),
            scope,
        };
        let entry = |function: &Self| (function.probe.file_offset, function.cookie);
        let returns = functions
            .iter()
            .rev()
            .filter_map(|function| Some(uprobe(function.return_program?, entry(function))));
        let results = functions.iter().rev().flat_map(|function| {
            let sites = function.inner_of(Kind::Result);
            sites.map(|place| uprobe(inner_program(Kind::Result), place))
        });
        let begins = functions.iter().rev().flat_map(|function| {
            let inner = [Kind::Request, Kind::Complete].into_iter().flat_map(|kind| {
                let sites = function.inner_of(kind);
                sites.map(move |place| uprobe(inner_program(kind), place))
            });
            let at_entry = function
                .inner
                .is_empty()
                .then(|| uprobe(entry_program(&function.probe), entry(function)));
            inner.chain(at_entry)
        });
        returns.chain(results).chain(begins).collect()
    }
}

/// Returns true if the function frees a block and allocates none.
pub(super) fn is_free(probe: &PlannedProbe) -> bool {
    probe.roles.frees()
}

/// The program of a function's entry.
pub(super) fn entry_program(probe: &PlannedProbe) -> &'static str {
    if is_free(probe) {
        programs::CALL_FREE
    } else {
        programs::CALL_BEGIN
    }
}

/// The program of an inner site.
const fn inner_program(kind: Kind) -> &'static str {
    match kind {
        Kind::Complete | Kind::Request => programs::CALL_BEGIN,
        Kind::Result => programs::CALL_RESULT,
    }
}

/// The program of a function's return. There is none where an exception may pass through the
/// function: a probe of the return would turn that into the end of the program.
fn return_program_of(probe: &PlannedProbe) -> Option<&'static str> {
    let is_probed = !is_free(probe) && probe.spec.flags & ProbeSpec::ENTRY_ONLY == 0;
    is_probed.then_some(programs::CALL_RETURN)
}
