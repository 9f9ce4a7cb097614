//! Reports on standard output.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};

use super::settings::ReportSettings;
use crate::report::table;

/// Writes a report to standard output, in the width of the terminal.
pub(super) fn print(
    settings: &ReportSettings,
    write: impl FnOnce(&table::TableOptions, &mut dyn io::Write) -> io::Result<()>,
) -> Result<()> {
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let options = table::TableOptions {
        metric: settings.metric,
        per_pid: settings.per_pid,
        width: terminal
            .then(terminal_size::terminal_size)
            .flatten()
            .map(|(width, _)| width.0.into()),
        colours: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        top: settings.top,
    };
    let mut stdout = stdout.lock();
    let written = write(&options, &mut stdout).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("failed to write to standard output"),
    }
}
