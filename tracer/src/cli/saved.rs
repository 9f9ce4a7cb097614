//! Saved profiles, read from files.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::profile::Metric;
use crate::report::pprof::{self, SavedProfile};
use crate::report::source::Origin;

/// The most bytes of a file.
const MAX_BYTES: u64 = 1 << 30;

/// Reads a profile, and warns where a part of it is lost.
pub(super) fn read(path: &Path) -> Result<SavedProfile> {
    let file = File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    let mut bytes = Vec::new();
    let failed = || format!("failed to read {}", path.display());
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        bail!(
            "{}: it has more than 1 GiB, and is no profile of memtap's",
            failed()
        );
    }
    let saved = pprof::read(&bytes).with_context(failed)?;
    if saved.is_altered {
        log::warn!(
            "{}: another program has changed it since memtap wrote it; it is read as that program's, without what \
             pprof has no place for",
            path.display()
        );
    }
    Ok(saved)
}

/// Fails unless a profile has figures of this metric.
pub(super) fn require(metric: Metric, origin: Origin<'_>, path: &Path) -> Result<()> {
    let metrics = origin.metrics();
    if metrics.contains(&metric) {
        return Ok(());
    }
    let names: Vec<&str> = metrics.into_iter().map(Metric::name).collect();
    bail!(
        "{} has no {}: its figures are {}",
        path.display(),
        metric.name(),
        names.join(", ")
    );
}
