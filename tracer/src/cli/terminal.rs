//! Reports on standard output. A reader that has gone has read enough.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};

use super::settings::ReportSettings;
use crate::message::{self, escape};
use crate::report::table::{self, Charset};

/// The failure of expressions that were checked when they were given: those of a saved profile.
pub(super) const BAD_RULES: &str = "failed to read --own or --hide as a regular expression";

/// Writes a report to standard output, in the width of the terminal.
pub(super) fn print(
    settings: &ReportSettings,
    write: impl FnOnce(&table::TableOptions<'_>, &mut dyn io::Write) -> io::Result<()>,
) -> Result<()> {
    let terminal = io::stdout().is_terminal();
    let view = &settings.table;
    let rules = view.rules().context(BAD_RULES)?;
    let options = table::TableOptions {
        metric: settings.metric,
        per_pid: settings.per_pid,
        width: terminal
            .then(terminal_size::terminal_size)
            .flatten()
            .map(|(width, _)| width.0.into()),
        colours: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        charset: charset(|name| std::env::var_os(name)),
        top: view.top,
        min_percent: view.min_percent,
        stacks: view.stacks,
        by: view.by,
        tree: view.tree,
        sort: view.sort,
        short_names: view.short_names,
        rules: &rules,
    };
    put(|out| write(&options, out))
}

/// Returns the characters that the locale has, as the variables of the environment name it. Where
/// they name none, terminals have UTF-8.
fn charset(variable: impl Fn(&str) -> Option<OsString>) -> Charset {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        Some(value.to_string_lossy().to_ascii_lowercase())
    });
    match set {
        Some(locale) if !locale.contains("utf-8") && !locale.contains("utf8") => Charset::Ascii,
        _ => Charset::Unicode,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locale_tells_the_characters() {
        let of = |variables: &[(&str, &str)]| {
            charset(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            })
        };
        assert_eq!(of(&[]), Charset::Unicode);
        assert_eq!(of(&[("LANG", "de_DE.UTF-8")]), Charset::Unicode);
        assert_eq!(of(&[("LANG", "C.utf8"), ("LC_ALL", "")]), Charset::Unicode);
        assert_eq!(of(&[("LANG", "C")]), Charset::Ascii);
        assert_eq!(of(&[("LANG", "C.UTF-8"), ("LC_ALL", "POSIX")]), Charset::Ascii);
        assert_eq!(
            of(&[("LANG", "C.UTF-8"), ("LC_CTYPE", "de_DE.ISO-8859-1")]),
            Charset::Ascii
        );
    }
}
