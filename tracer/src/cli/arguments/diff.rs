//! The arguments of `diff`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{ArgAction, Args, ValueEnum};

use super::outputs::RequestedFiles;
use crate::cli::settings::DiffSettings;
use crate::cli::sizes;
use crate::profile::Metric;
use crate::report::diff::DiffBy;
use crate::report::table::TableOptions;

/// The text before the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  memtap diff before.pb.gz after.pb.gz                  what grew, what shrank, what is new and what is gone
  memtap diff before.pb.gz after.pb.gz -o change.svg    a flame graph, red where it grew
  memtap diff before.pb.gz after.pb.gz --normalize      figures per second, of recordings of different length
  memtap diff before.pb.gz after.pb.gz --by function    functions instead of stacks
  memtap diff before.pb.gz after.pb.gz --fail-if-growth 10M    in a test: exit code 4 if it grew by more";

/// The text after the help.
pub(super) const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed; 2 wrong usage; 4 --fail-if-growth and the figures grew by more";

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArguments {
    /// A profile, as for `report`
    #[arg(value_name = "BEFORE")]
    before: PathBuf,
    /// A later one
    #[arg(value_name = "AFTER")]
    after: PathBuf,
    /// Write the difference; repeatable; .folded, .txt: stacks with two weights; .svg: a flame
    /// graph in differential colours; .pb.gz: AFTER minus BEFORE; -: folded stacks on standard
    /// output
    #[arg(short, long, value_name = "[METRIC=]FILE")]
    output: Vec<OsString>,
    /// Weight of stacks [default: that of AFTER]
    #[arg(long, value_enum)]
    metric: Option<Metric>,
    /// Rows of the table
    #[arg(long, value_enum, default_value = "stack")]
    by: CompareBy,
    /// Compare figures per second of recording; in files those of BEFORE become what a recording as
    /// long as AFTER would have had
    #[arg(long)]
    normalize: bool,
    /// Rows that grew, and rows that shrank
    #[arg(long, default_value_t = TableOptions::TOP, value_name = "N")]
    top: usize,
    /// Exit with 4 if the bytes of all stacks together grew by more than this
    #[arg(long, value_parser = sizes::size, value_name = "BYTES")]
    fail_if_growth: Option<u64>,
    /// Say nothing but errors
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Say more
    #[arg(short, long, action = ArgAction::Count)]
    pub(super) verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CompareBy {
    /// Call stacks
    Stack,
    /// Functions, with all that they call and by themselves
    Function,
}

impl DiffArguments {
    /// Checks what was said, and makes settings of it.
    pub(in crate::cli) fn settings(&self) -> Result<DiffSettings> {
        let files = RequestedFiles::parse(&self.output, None)?;
        if !files.directories.is_empty() {
            bail!("-o DIR/ is for recordings; name the files of a difference: .folded, .svg, .pb.gz");
        }
        if let Some(output) = files
            .outputs
            .iter()
            .find(|output| !output.format.has_differences())
        {
            bail!(
                "{}: the format has no differences; .folded, .svg and .pb.gz have",
                output.path.display()
            );
        }
        Ok(DiffSettings {
            before: self.before.clone(),
            after: self.after.clone(),
            outputs: files.outputs,
            metric: self.metric,
            by: match self.by {
                CompareBy::Stack => DiffBy::Stack,
                CompareBy::Function => DiffBy::Function,
            },
            normalize: self.normalize,
            top: self.top,
            growth_max_bytes: self.fail_if_growth,
            quiet: self.quiet,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::arguments::{CommandArguments, CommandLine};
    use crate::report::Format;

    fn settings(words: &[&str]) -> Result<DiffSettings> {
        let words = ["memtap", "diff"].iter().chain(words);
        match CommandLine::try_parse_from(words)?.command {
            CommandArguments::Diff(diff) => diff.settings(),
            _ => bail!("not diff"),
        }
    }

    #[test]
    fn two_files_are_compared() {
        let asked = settings(&["a.pb.gz", "b.pb.gz"]).unwrap();
        assert_eq!(asked.after, PathBuf::from("b.pb.gz"));
        assert_eq!((asked.by, asked.normalize), (DiffBy::Stack, false));
        for words in [
            &["a.pb.gz"][..],
            &["a", "b", "c"],
            &["a", "b", "--by", "line"],
            &["a", "b", "-o", "-", "-o", "-"],
            &["a", "b", "-o", "c.speedscope.json"],
            &["a", "b", "-o", "c.html"],
            &["a", "b", "--fail-if-growth", "much"],
        ] {
            assert!(settings(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn options_are_taken() {
        let words = [
            "a",
            "b",
            "--by",
            "function",
            "--normalize",
            "--fail-if-growth",
            "1M",
            "-o",
            "c.pb.gz",
            "--top",
            "3",
        ];
        let asked = settings(&words).unwrap();
        assert_eq!(
            (asked.by, asked.normalize, asked.top),
            (DiffBy::Function, true, 3)
        );
        assert_eq!(asked.growth_max_bytes, Some(1 << 20));
        assert_eq!(asked.outputs[0].format, Format::Pprof);
    }
}
