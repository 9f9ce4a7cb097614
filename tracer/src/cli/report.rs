//! `memtap report`: from a saved profile to any output, or to the table that its recording printed.

use std::process::ExitCode;

use anyhow::{Result, bail};

use super::outputs::OutputFiles;
use super::settings::{LiveSettings, ProfileOutput, ReportSettings, SavedReportSettings};
use super::{live, saved, terminal};
use crate::message;
use crate::report::pprof::SavedOrigin;
use crate::report::source::{Origin, ReportView};
use crate::report::{ReportSource, foreign_table, table, totals_of_stacks, units};

/// Runs `report`.
pub(super) fn run(asked: &SavedReportSettings) -> Result<ExitCode> {
    let mut saved = saved::read(&asked.file)?;
    let view = view(asked, saved.view.clone())?;
    let origin = saved.source().origin;
    saved::require(view.metric, origin, &asked.file)?;
    let outputs: Vec<ProfileOutput> = asked
        .outputs
        .iter()
        .map(|output| output.with_default(view.metric))
        .collect();
    for output in &outputs {
        saved::require(output.metric, origin, &asked.file)?;
    }
    if !asked.summaries.is_empty() {
        if matches!(origin, Origin::Foreign(_)) {
            bail!(
                "--summary: {} has no probes, losses and costs to sum up, since memtap did not record it",
                asked.file.display()
            );
        }
        if !asked.filter.is_empty() {
            bail!("--summary is of the whole recording; leave out the filters");
        }
    }
    if !asked.filter.is_empty() {
        let part = asked.filter.apply(&saved.profile, view.metric);
        if !asked.quiet {
            message::say(format_args!(
                "the filters keep {} of {}",
                units::percent(part.weight, part.total),
                view.metric.name()
            ));
        }
        saved.profile = part.profile;
        if view.live.is_some() && saved.profile.held.is_none() && outputs.is_empty() {
            saved.profile.held = Some(totals_of_stacks(&saved.profile));
        }
    }
    let settings = ReportSettings {
        outputs,
        summaries: asked.summaries.clone(),
        directories: asked.directories.clone(),
        raw: None,
        metric: view.metric,
        per_pid: view.per_pid,
        table: view.table.clone(),
        live: view.live.map(|live| LiveSettings {
            older_than: live.older_than,
            interval: None,
            growth_max_bytes: None,
        }),
        table_too: false,
        progress: false,
        strict: false,
        quiet: asked.quiet,
    };
    let source = ReportSource {
        view: &view,
        ..saved.source()
    };
    let are_in_place = OutputFiles::open(&settings)?.write(&settings, &source, &[]);
    if settings.outputs.is_empty() {
        print(&settings, &source, &saved.origin)?;
    }
    Ok(if are_in_place {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns the recording's view with what was said now. A metric that is named is for the table of
/// stacks by that metric.
fn view(asked: &SavedReportSettings, saved: ReportView) -> Result<ReportView> {
    let live = saved.live.filter(|_| asked.metric.is_none());
    Ok(ReportView {
        metric: asked.metric.unwrap_or(saved.metric),
        per_pid: asked.per_pid || saved.per_pid,
        table: asked.rows.view(saved.table, true, live.is_some())?,
        live,
    })
}

/// Prints the table.
fn print(settings: &ReportSettings, source: &ReportSource<'_>, origin: &SavedOrigin) -> Result<()> {
    match origin {
        SavedOrigin::Recording(session) if settings.live.is_some() => {
            live::print(settings, source.profile, session)
        }
        SavedOrigin::Recording(session) => terminal::print(settings, |options, out| {
            table::write(source.profile, session, options, out)
        }),
        SavedOrigin::Foreign(facts) => terminal::print(settings, |options, out| {
            foreign_table::write(source.profile, facts, source.view, options.width, out)
        }),
    }
}
