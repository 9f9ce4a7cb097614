//! The reports of `live`, at the end and in between.

use anyhow::{Context as _, Result, bail};

use super::settings::ReportSettings;
use super::terminal::{self, BAD_RULES};
use crate::message;
use crate::profile::{Profile, Session};
use crate::recorder::Recording;
use crate::report::table::live::{self, LiveOptions};
use crate::report::units;

/// Exit code with `--fail-if-growth` when bytes grew by more.
pub(super) const GREW: u8 = 4;

/// Stacks that are named when bytes grew by more than they may.
pub(super) const NAMED: usize = 3;

/// Prints the report.
pub(super) fn print(settings: &ReportSettings, profile: &Profile, session: &Session) -> Result<()> {
    let Some(report) = settings.live else {
        return Ok(());
    };
    let live = LiveOptions {
        sort: settings.table.live_sort,
        older_than: report.older_than,
    };
    terminal::print(settings, |options, out| {
        if report.interval.is_some() {
            live::write_separator(session, options, out)?;
        }
        live::write(profile, session, options, &live, out)?;
        if report.interval.is_some() {
            writeln!(out)?;
        }
        Ok(())
    })
}

/// Returns true if live bytes grew by more than they may, and says so.
pub(super) fn judge(settings: &ReportSettings, recording: &Recording) -> Result<bool> {
    let Some(most) = settings.live.and_then(|live| live.growth_max_bytes) else {
        return Ok(false);
    };
    let Some(growth) = live::growth_bytes(&recording.profile) else {
        bail!(
            "--fail-if-growth: {} are too short to tell growth",
            units::duration(recording.duration)
        );
    };
    let rules = settings.table.rules().context(BAD_RULES)?;
    Ok(is_growth(growth, most, "live bytes", "since half-way", || {
        live::growers(&recording.profile, &rules, settings.per_pid, NAMED)
    }))
}

/// Returns true if bytes grew by more than they may, and says so, with the stacks that grew most.
pub(super) fn is_growth(
    growth: i128,
    most: u64,
    what: &str,
    since: &str,
    growers: impl FnOnce() -> Vec<String>,
) -> bool {
    if growth <= i128::from(most) {
        return false;
    }
    message::fail(format_args!(
        "{what} grew by {} {since}; --fail-if-growth allows {}",
        units::bytes(growth.unsigned_abs()),
        units::bytes(most.into())
    ));
    for line in growers() {
        message::line(&format_args!("  {line}"));
    }
    true
}
