//! Reports on standard output. A reader that has gone has read enough.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};

use super::settings::ReportSettings;
use crate::message::{self, escape};
use crate::report::table;

/// Writes a report to standard output, in the width of the terminal.
pub(super) fn print(
    settings: &ReportSettings,
    write: impl FnOnce(&table::TableOptions, &mut dyn io::Write) -> io::Result<()>,
) -> Result<()> {
    let terminal = io::stdout().is_terminal();
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
    put(|out| write(&options, out))
}

/// Writes a text of memtap's own lines to standard output, escaped.
pub(super) fn print_text(text: &str) -> Result<()> {
    let text = message::without_error_numbers(text);
    put(|out| out.write_all(escape::lines(&text).as_bytes()))
}

/// Writes a document for machines to standard output.
pub(super) fn print_json(document: &serde_json::Value) -> Result<()> {
    put(|out| {
        serde_json::to_writer_pretty(&mut *out, document)?;
        writeln!(out)
    })
}

fn put(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = write(&mut stdout).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("failed to write to standard output"),
    }
}
