//! The sites of a whole allocator, as they are attached.

use std::collections::HashSet;

use tracer_ebpf::Operands;

use super::{Found, Image, Kind, Reason, plan};
use crate::probe_plan::plan::{Plan, PlannedProbe};
use crate::probe_plan::shape::Shape;

/// A site to be attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// What it tells.
    pub kind: Kind,
    /// Where in the file.
    pub file_offset: u64,
    /// Where the call's values are.
    pub operands: Operands,
    /// Bytes from the probe of the function's entry to this place.
    pub distance: i64,
    /// Whether the kernel must single-step the instruction there: only where nothing but failed calls come.
    pub single_stepped: bool,
}

/// The sites of each probe's function, or why there are none, in the order of the plan's probes.
#[must_use]
pub fn sites(allocator: &Plan) -> Vec<Result<Vec<Site>, Reason>> {
    let Some(image) = Image::read(&allocator.file.open_path()) else {
        return allocator
            .probes
            .iter()
            .map(|_| Err(Reason::FileTooLarge))
            .collect();
    };
    let sites_of = |probe: &PlannedProbe| {
        let others = allocator.probes.iter().map(|other| other.address);
        let others: HashSet<u64> = others.filter(|address| *address != probe.address).collect();
        let found = plan(&image, probe.address, probe.called, &others)?;
        found.iter().map(|found| site(&image, probe, found)).collect()
    };
    allocator.probes.iter().map(sites_of).collect()
}

fn site(image: &Image, probe: &PlannedProbe, found: &Found) -> Result<Site, Reason> {
    let no_code = Reason::NoCode(found.address);
    let from_probe = found
        .address
        .wrapping_sub(probe.address.wrapping_add(probe.offset));
    Ok(Site {
        kind: found.kind,
        file_offset: image.file_offset(found.address).ok_or(no_code)?,
        operands: found.site,
        distance: from_probe.cast_signed(),
        single_stepped: found.stepped,
    })
}

/// Says of each function which way it is traced, and why.
pub fn explain(allocator: &Plan, sites: &[Result<Vec<Site>, Reason>]) {
    let object = allocator.file.path.display();
    for (probe, sites) in allocator.probes.iter().zip(sites) {
        match sites {
            _ if probe.shape == Shape::Free => {}
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
    let offset = site.distance.wrapping_add_unsigned(probe.offset);
    let kind = match site.kind {
        Kind::Whole => "",
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
