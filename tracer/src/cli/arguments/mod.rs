//! The arguments, and their translation to settings.

mod allocators;
mod attach;
mod budget;
mod diff;
mod estimate;
mod limits;
mod live;
mod metric;
mod outputs;
mod record;
mod report;
mod symbols;
mod table;
mod unwind;

use clap::{Parser, Subcommand};

use diff::DiffArguments;
use estimate::EstimateArguments;
use live::LiveArguments;
use record::RecordArguments;
use report::ReportArguments;

pub(super) use estimate::EstimateSettings;

use crate::symbolize::worker;

/// Shows which call stacks of running programs allocate memory, and which grow the process.
#[derive(Debug, Parser)]
#[command(
    name = "memtap",
    version,
    about,
    max_term_width = 110,
    disable_help_subcommand = true
)]
pub(super) struct CommandLine {
    /// The subcommand.
    #[command(subcommand)]
    pub(super) command: CommandArguments,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(super) enum CommandArguments {
    /// Trace, then write a profile
    #[command(before_help = record::EXAMPLES)]
    Record(Box<RecordArguments>),
    /// Trace, then say what is still allocated, and what of it looks like a leak
    #[command(before_help = live::EXAMPLES, after_help = live::EXIT_CODES)]
    Live(Box<LiveArguments>),
    /// Turn a saved profile into any output, or print its table
    #[command(before_help = report::EXAMPLES)]
    Report(ReportArguments),
    /// Show what changed from one saved profile to another
    #[command(before_help = diff::EXAMPLES, after_help = diff::EXIT_CODES)]
    Diff(DiffArguments),
    /// Count for a second, then say what each way of tracing would cost, and which to take
    #[command(before_help = estimate::EXAMPLES)]
    Estimate(EstimateArguments),
    /// Read names for another memtap
    #[command(name = worker::SUBCOMMAND, hide = true)]
    SymbolizeWorker,
    /// Say what this kernel and this user may do, what is missing, and what each probe costs here
    Doctor {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

impl CommandLine {
    /// Returns true if nothing but errors is to be printed.
    #[must_use]
    pub(super) fn quiet(&self) -> bool {
        match &self.command {
            CommandArguments::Report(report) => report.quiet,
            CommandArguments::Diff(diff) => diff.quiet,
            command => command.record().is_some_and(|record| record.quiet),
        }
    }

    /// Returns the number of `-v`.
    #[must_use]
    pub(super) fn verbose(&self) -> u8 {
        match &self.command {
            CommandArguments::Report(report) => report.verbose,
            CommandArguments::Diff(diff) => diff.verbose,
            command => command.record().map_or(0, |record| record.verbose),
        }
    }
}

impl CommandArguments {
    /// The arguments that all ways of recording share.
    fn record(&self) -> Option<&RecordArguments> {
        match self {
            Self::Record(record) => Some(record),
            Self::Live(live) => Some(&live.record),
            Self::Report(_)
            | Self::Diff(_)
            | Self::Estimate(_)
            | Self::Doctor { .. }
            | Self::SymbolizeWorker => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parser_is_consistent() {
        use clap::CommandFactory as _;
        CommandLine::command().debug_assert();
    }

    /// The commands of the documents, as a shell would pass them on.
    #[test]
    fn documented_commands_parse() {
        let documents = [
            include_str!("../../../../README.md"),
            include_str!("../../../../docs/guide.md"),
            include_str!("../../../../docs/allocators.md"),
        ];
        let blocks = documents
            .iter()
            .flat_map(|text| text.split("```").skip(1).step_by(2));
        let mut commands = 0;
        for line in blocks.flat_map(str::lines) {
            let command = line.trim_start_matches("sudo ");
            if !command.starts_with("memtap ") {
                continue;
            }
            // Neither a comment nor a pipe is memtap's.
            let command = command.split(['#', '|']).next().unwrap_or_default();
            assert!(
                CommandLine::try_parse_from(command.split_whitespace()).is_ok(),
                "{line}"
            );
            commands += 1;
        }
        assert!(commands > 20, "{commands} commands");
    }
}
