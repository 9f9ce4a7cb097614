//! Answers to arguments that name no work to do: help, the version, and errors on one line.

use std::process::ExitCode;

use clap::Error;
use clap::error::ErrorKind;

use super::USAGE;
use crate::message;

/// Prints help and version to standard output, an error to standard error, and returns the exit
/// code.
pub(super) fn answer(error: &Error) -> ExitCode {
    if !error.use_stderr() {
        // Whoever does not read the help has no use for an error either.
        let _is_unread = error.print().is_err();
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        message::block(&error.render().to_string());
    } else {
        message::fail(format_args!("{}", in_a_line(error)));
    }
    ExitCode::from(USAGE)
}

/// Returns clap's message and its tips, without the usage.
fn in_a_line(error: &Error) -> String {
    let text = error.render().to_string();
    let paragraphs = text.trim().split("\n\n").map(|paragraph| {
        let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
        lines.join(" ").replace(" tip: ", "; tip: ")
    });
    let told: Vec<String> = paragraphs
        .filter(|it| !it.starts_with("Usage:") && !it.starts_with("For more information"))
        .collect();
    let told = told.join("; ");
    let told = told.strip_prefix("error: ").unwrap_or(&told);
    match error.kind() {
        // The message says what is taken.
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => told.to_owned(),
        _ => format!("{told}; --help lists what there is"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::arguments::CommandLine;

    fn refusal(words: &[&str]) -> String {
        let words = ["memtap"].iter().chain(words);
        let error = CommandLine::try_parse_from(words).expect_err("nonsense");
        in_a_line(&error)
    }

    #[test]
    fn errors_have_one_line() {
        assert_eq!(
            refusal(&["record", "-a", "--max-overhead", "none"]),
            "invalid value 'none' for '--max-overhead <PERCENT|off>': `none` is no share of a CPU's time; write 2, 0.5 or off"
        );
        assert_eq!(
            refusal(&["record", "-a", "--events", "heaps"]),
            "invalid value 'heaps' for '--events <LIST>' [possible values: heap, region]; tip: a similar value exists: 'heap'"
        );
        assert_eq!(
            refusal(&["record", "--al"]),
            "unexpected argument '--al' found; tip: a similar argument exists: '--all'; tip: to pass '--al' as a value, use \
             '-- --al'; --help lists what there is"
        );
        assert_eq!(
            refusal(&["record", "-p", "1", "-a"]),
            "the argument '--pid <PID>' cannot be used with '--all'; --help lists what there is"
        );
        for words in [
            &["record", "-p"][..],
            &["nothing"],
            &["record", "-p", "\u{1b}[2J"],
        ] {
            assert!(!refusal(words).contains('\n'), "{words:?}");
        }
    }
}
