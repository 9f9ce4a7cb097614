//! What can be said, and what it means.

mod allocators;
mod attach;
mod budget;
mod estimate;
mod limits;
mod live;
mod metric;
mod record;
mod symbols;
mod unwind;

use clap::{Parser, Subcommand};

use estimate::EstimateArguments;
use live::LiveArguments;
use record::RecordArguments;

pub(super) use estimate::Estimate;

/// Shows which call stacks of running programs allocate memory, and which grow the process.
#[derive(Debug, Parser)]
#[command(
    name = "memtap",
    version,
    about,
    max_term_width = 110,
    disable_help_subcommand = true
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Trace, then write a profile
    #[command(before_help = record::EXAMPLES)]
    Record(Box<RecordArguments>),
    /// Trace, then say what is still allocated, and what of it looks like a leak
    #[command(before_help = live::EXAMPLES, after_help = live::EXIT_CODES)]
    Live(Box<LiveArguments>),
    /// Count for a second, then say what each way of tracing would cost, and which to take
    #[command(before_help = estimate::EXAMPLES)]
    Estimate(EstimateArguments),
    /// Say what this kernel and this user may do, what is missing, and what each probe costs here
    Doctor {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

impl Arguments {
    /// Whether nothing but errors is to be said.
    #[must_use]
    pub fn quiet(&self) -> bool {
        self.command.record().is_some_and(|record| record.quiet)
    }

    /// How much more than usual is to be said.
    #[must_use]
    pub fn verbose(&self) -> u8 {
        self.command.record().map_or(0, |record| record.verbose)
    }
}

impl Command {
    /// The arguments that all ways of recording share.
    fn record(&self) -> Option<&RecordArguments> {
        match self {
            Self::Record(record) => Some(record),
            Self::Live(live) => Some(&live.record),
            Self::Estimate(_) | Self::Doctor { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parser_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
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
                Arguments::try_parse_from(command.split_whitespace()).is_ok(),
                "{line}"
            );
            commands += 1;
        }
        assert!(commands > 20, "{commands} commands");
    }
}
