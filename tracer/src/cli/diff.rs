//! `memtap diff`: what changed from one saved profile to another.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::outputs::OutputFiles;
use super::settings::{DiffSettings, ProfileOutput, ReportSettings};
use super::{live, saved, terminal};
use crate::profile::Metric;
use crate::report::ProfileDiff;
use crate::report::ReportSource;
use crate::report::diff::{DiffScale, DiffTableOptions};
use crate::report::table::TableView;

/// Runs `diff`.
pub(super) fn run(asked: &DiffSettings) -> Result<ExitCode> {
    let before = saved::read(&asked.before)?;
    let after = saved::read(&asked.after)?;
    let (before, after) = (before.source(), after.source());
    let scale = if asked.normalize {
        Some(scale(asked, &before, &after)?)
    } else {
        None
    };
    let diff = ProfileDiff::of(&before, &after, scale);
    let metric = asked.metric.map_or_else(|| common(&diff, &after), Ok)?;
    let outputs: Vec<ProfileOutput> = asked
        .outputs
        .iter()
        .map(|output| output.with_default(metric))
        .collect();
    for metric in outputs.iter().map(|output| output.metric).chain([metric]) {
        saved::require(metric, before.origin, &asked.before)?;
        saved::require(metric, after.origin, &asked.after)?;
    }
    if asked.growth_max_bytes.is_some() && !metric.is_bytes() {
        bail!("--fail-if-growth is for bytes; {} counts", metric.name());
    }
    let settings = ReportSettings {
        outputs,
        summaries: Vec::new(),
        directories: Vec::new(),
        raw: None,
        metric,
        per_pid: false,
        table: TableView {
            top: asked.top,
            ..TableView::default()
        },
        live: None,
        table_too: false,
        progress: false,
        strict: false,
        quiet: asked.quiet,
    };
    let are_in_place = OutputFiles::open(&settings)?.write_difference(&settings, &diff);
    if settings.outputs.is_empty() {
        terminal::print(&settings, |options, out| {
            let table = DiffTableOptions {
                metric,
                by: asked.by,
                before: name(&asked.before),
                after: name(&asked.after),
                per_second_of_ns: scale.map(|it| it.after_ns),
                top: asked.top,
                width: options.width,
            };
            diff.write_table(&table, out)
        })?;
    }
    let grew = asked.growth_max_bytes.is_some_and(|most| {
        let since = format!("from {} to {}", asked.before.display(), asked.after.display());
        live::is_growth(diff.growth(metric), most, metric.name(), &since, || {
            diff.growers(metric, live::NAMED)
        })
    });
    Ok(match (are_in_place, grew) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::from(live::GREW),
        (true, false) => ExitCode::SUCCESS,
    })
}

/// The lengths of both recordings.
fn scale(asked: &DiffSettings, before: &ReportSource<'_>, after: &ReportSource<'_>) -> Result<DiffScale> {
    let ns = |source: &ReportSource<'_>, path: &Path| {
        let ns = source
            .origin
            .duration()
            .map(|it| it.as_nanos())
            .filter(|it| *it > 0);
        ns.with_context(|| format!("--normalize: {} does not say how long it took", path.display()))
    };
    Ok(DiffScale {
        before_ns: ns(before, &asked.before)?,
        after_ns: ns(after, &asked.after)?,
    })
}

/// The metric that is compared where none is named: that of the second recording, or else the first
/// that both have figures of.
fn common(diff: &ProfileDiff, after: &ReportSource<'_>) -> Result<Metric> {
    let metrics = diff.metrics();
    let own = after.view.metric;
    if metrics.contains(&own) {
        return Ok(own);
    }
    metrics.first().copied().context(
        "the two profiles have no figures in common: one is of the heap, the other of the address space",
    )
}

/// A file's name without its directories.
fn name(path: &Path) -> String {
    path.file_name().map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}
