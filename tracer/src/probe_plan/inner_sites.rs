//! The inner sites of a whole allocator, as they are attached.

use std::collections::HashSet;

use tracer_ebpf::ProbeSpec;

use super::dataflow::{MachineCode, Obstacle};
use super::detect::symbols;
pub use super::placement::inner::Kind;
use super::placement::inner::{InnerSite, plan};
use super::plan::{Plan, PlannedProbe};

/// A site to be attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// The part of a call that it has.
    pub kind: Kind,
    /// The offset in the file.
    pub file_offset: u64,
    /// The description for the kernel side.
    pub spec: ProbeSpec,
    /// The kernel must single-step the instruction there: only where nothing but failed calls come.
    pub single_stepped: bool,
}

/// Returns the sites of each probe's function, or why there are none, in the order of the plan's
/// probes.
#[must_use]
pub fn sites(allocator: &Plan) -> Vec<Result<Vec<Site>, Obstacle>> {
    let Some(code) = symbols::whole_code(allocator.file.file()) else {
        let too_large = |_| Err(Obstacle::FileTooLarge);
        return allocator.probes.iter().map(too_large).collect();
    };
    let sites_of = |probe: &PlannedProbe| {
        let others = allocator.probes.iter().map(|other| other.address);
        let others: HashSet<u64> = others.filter(|address| *address != probe.address).collect();
        let found = plan(&code, probe.address, &probe.roles, &others)?;
        found.iter().map(|found| site(&code, probe, found)).collect()
    };
    allocator.probes.iter().map(sites_of).collect()
}

/// The flags of functions with tail calls.
const TAIL_CALLS: u32 =
    ProbeSpec::MAY_TAIL_CALL | ProbeSpec::ALWAYS_TAIL_CALLS | ProbeSpec::MAY_TAIL_CALL_FREE;

fn site(code: &MachineCode, probe: &PlannedProbe, found: &InnerSite) -> Result<Site, Obstacle> {
    let no_code = Obstacle::NoCode(found.address);
    let from_probe = found
        .address
        .wrapping_sub(probe.address.wrapping_add(probe.offset));
    let spec = ProbeSpec {
        operands: found.operands,
        // Calls that are followed inside their functions do not go on by a tail call: the proof
        // rules that out.
        flags: probe.spec.flags & !TAIL_CALLS,
        caller_distance: from_probe.cast_signed(),
        ..probe.spec
    };
    Ok(Site {
        kind: found.kind,
        file_offset: code.file_offset(found.address).ok_or(no_code)?,
        spec,
        single_stepped: found.stepped,
    })
}

/// Logs for each function the way in which it is traced, and the reason.
pub fn explain(allocator: &Plan, sites: &[Result<Vec<Site>, Obstacle>]) {
    let object = allocator.file.path.display();
    for (probe, sites) in allocator.probes.iter().zip(sites) {
        match sites {
            _ if probe.roles.frees() => {}
            Ok(sites) => {
                let places: Vec<String> = sites.iter().map(|site| place(probe, site)).collect();
                log::debug!("{object}: {}: followed at {}", probe.symbol, places.join(", "));
            }
            Err(reason) => log::debug!(
                "{object}: {}: followed at entry and return: {reason}",
                probe.symbol
            ),
        }
    }
}

fn place(probe: &PlannedProbe, site: &Site) -> String {
    let offset = site.spec.caller_distance.wrapping_add_unsigned(probe.offset);
    let kind = match site.kind {
        Kind::Complete => "",
        Kind::Request => " (size)",
        Kind::Result => " (result)",
    };
    let stepped = if site.single_stepped {
        " (single-stepped)"
    } else {
        ""
    };
    if offset < 0 {
        format!("-{:#x}{kind}{stepped}", offset.unsigned_abs())
    } else {
        format!("+{offset:#x}{kind}{stepped}")
    }
}
