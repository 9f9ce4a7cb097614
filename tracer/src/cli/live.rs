//! The reports of `live`, at the end and in between.

use anyhow::{Result, bail};

use super::settings::ReportSettings;
use super::terminal;
use crate::message;
use crate::profile::Session;
use crate::recorder::Recording;
use crate::report::table::live::{self, LiveOptions};
use crate::report::units;

/// Exit code with `--fail-if-growth` when live bytes grew by more.
pub(super) const GREW: u8 = 4;

/// Stacks that are named when live bytes grew by more than they may.
const NAMED: usize = 3;

/// Prints the report.
pub(super) fn print(settings: &ReportSettings, recording: &Recording, session: &Session) -> Result<()> {
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
        live::write(&recording.profile, session, options, &live, out)?;
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
    if growth <= i128::from(most) {
        return Ok(false);
    }
    message::fail(format_args!(
        "live bytes grew by {} since half-way; --fail-if-growth allows {}",
        units::bytes(growth.unsigned_abs()),
        units::bytes(most.into())
    ));
    for line in live::growers(&recording.profile, &settings.table.rules, settings.per_pid, NAMED) {
        message::line(&format_args!("  {line}"));
    }
    Ok(true)
}
