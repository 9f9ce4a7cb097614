//! The command line: nothing else in this crate knows clap. What was said becomes plain
//! [`settings`](crate::settings).

mod allocators;
mod announce;
mod arguments;
mod diff;
mod doctor;
mod estimate;
mod live;
mod outputs;
mod progress;
mod record;
mod report;
mod resources;
mod saved;
mod settings;
mod sizes;
mod table_request;
mod terminal;
mod usage;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use arguments::CommandArguments;
use arguments::CommandLine;

use crate::message;
use crate::signals;
use crate::symbolize::worker;

/// Exit code: wrong usage.
const USAGE: u8 = 2;

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match CommandLine::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage::answer(&error),
    };
    start_log(arguments.quiet(), arguments.verbose());
    signals::survive_file_size_limit();
    let outcome = match arguments.command {
        CommandArguments::Record(record) => checked(record.settings(), record::run),
        CommandArguments::Live(live) => checked(live.settings(), record::run),
        CommandArguments::Report(report) => checked(report.settings(), report::run),
        CommandArguments::Diff(diff) => checked(diff.settings(), diff::run),
        CommandArguments::Estimate(estimate) => checked(estimate.settings(), estimate::run),
        CommandArguments::Doctor { json } => doctor::run(json),
        CommandArguments::SymbolizeWorker => worker::run().map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

/// The definition of the command line, for man pages and completions: without hidden subcommands.
#[must_use]
pub fn definition() -> clap::Command {
    let whole = CommandLine::command();
    let visible = whole.get_subcommands().filter(|command| !command.is_hide_set());
    let visible: Vec<clap::Command> = visible.cloned().collect();
    let about = whole.get_about().cloned().unwrap_or_default();
    clap::Command::new(env!("CARGO_PKG_NAME"))
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .disable_help_subcommand(true)
        .subcommands(visible)
}

/// Does what was said, if that makes sense.
fn checked<T>(
    settings: anyhow::Result<T>,
    run: impl FnOnce(&T) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    settings.map_or_else(
        |usage| {
            complain(&usage);
            Ok(ExitCode::from(USAGE))
        },
        |settings| run(&settings),
    )
}

/// Prints an error on one line: what was wrong, and what to do. A cause that a message has taken in
/// already is not said again.
fn complain(error: &anyhow::Error) {
    let mut said = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if said.is_empty() {
            said = cause;
        } else if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    let advice = error.chain().find_map(|cause| {
        let answer = cause.downcast_ref::<std::io::Error>()?.raw_os_error()?;
        match answer {
            libc::EMFILE => Some("; raise the limit of open files (`ulimit -n`)"),
            libc::ENOMEM => {
                Some("; smaller values of --max-stacks, --max-processes, --ring-size and --unwind-memory take less memory")
            }
            _ => None,
        }
    });
    message::fail(format_args!("{said}{}", advice.unwrap_or_default()));
}

fn start_log(quiet: bool, verbose: u8) {
    use std::io::Write as _;
    let level = match (quiet, verbose) {
        (true, _) => log::LevelFilter::Error,
        (_, 0) => log::LevelFilter::Warn,
        (_, 1) => log::LevelFilter::Debug,
        (_, _) => log::LevelFilter::Trace,
    };
    // Other crates talk of their own affairs; the kernel side's messages come as this crate's.
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Error)
        .filter_module("memtap", level)
        .filter_module(
            "aya",
            if verbose == 0 {
                log::LevelFilter::Error
            } else {
                log::LevelFilter::Warn
            },
        )
        .format(|out, record| {
            let level = record.level().as_str().to_lowercase();
            let text = record.args().to_string();
            writeln!(out, "memtap: {level}: {}", message::in_words(&text))
        })
        .init();
}
