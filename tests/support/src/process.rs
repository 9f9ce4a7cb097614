//! Running other programs, with errors that name what was being done.

use std::ffi::OsStr;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::child::{ChildGuard, Scope};

/// Runs `command` to its end, its output passed through. `what` completes "failed to …".
pub fn run(command: &mut Command, what: &str) -> Result<()> {
    let status = status(command, what)?;
    if !status.success() {
        bail!("failed to {what}: `{}` ended with {status}", line(command));
    }
    Ok(())
}

/// Runs `command` to its end, its output passed through, and leaves the judgement to the caller.
pub fn status(command: &mut Command, what: &str) -> Result<ExitStatus> {
    ChildGuard::spawn(command, Scope::Process)
        .and_then(|mut child| child.wait())
        .with_context(|| format!("failed to {what}"))
}

/// Runs `command` to its end and returns what it printed on standard output.
/// What it printed on standard error is shown only in the error, so that success is quiet.
pub fn output(command: &mut Command, what: &str) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to {what}: `{}` does not start", program(command)))?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr);
        bail!(
            "failed to {what}: `{}` ended with {}: {}",
            line(command),
            output.status,
            essence(&messages)
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("failed to {what}: output that is not UTF-8"))
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// The command as a person would type it, near enough for a message.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Returns what a program's messages come down to, in one line: its errors where it marks them,
/// else its last words.
fn essence(messages: &str) -> String {
    let lines: Vec<&str> = messages
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let errors: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| line.starts_with("error") || line.starts_with("E: "))
        .collect();
    match (errors.first(), lines.last()) {
        (Some(_), _) => errors.join("; "),
        (None, Some(last)) => (*last).to_owned(),
        (None, None) => "it said nothing".to_owned(),
    }
}

/// Prints a result: what was asked for goes to standard output, everything said on the way to
/// standard error.
#[expect(
    clippy::print_stdout,
    reason = "a command's result belongs on standard output"
)]
pub fn report(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::essence;

    #[test]
    fn errors_before_last_words() {
        assert_eq!(
            essence("info: a\nerror: b\n\nStack backtrace:\n 0: c\n"),
            "error: b"
        );
        assert_eq!(essence("E: one\nW: two\nE: three\n"), "E: one; E: three");
        assert_eq!(essence("one\ntwo\n\n"), "two");
        assert_eq!(essence(""), "it said nothing");
    }
}
