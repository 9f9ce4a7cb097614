//! The arguments of `report`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgAction, Args};
use regex::Regex;
use tracer_ebpf::Function;

use super::outputs::RequestedFiles;
use super::table::TableArguments;
use crate::cli::settings::SavedReportSettings;
use crate::profile::Metric;
use crate::report::StackFilter;

/// The text before the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  memtap report a.pb.gz                                 the table that the recording printed
  memtap report a.pb.gz -o a.svg -o alloc-count=n.svg   two flame graphs
  memtap report a.pb.gz --focus parse_ --metric alloc-count    the stacks that pass a function, by calls
  memtap report a.pb.gz --min-percent 1 -o - | less     folded stacks that matter
  memtap report heap.pb.gz                              a heap profile of a Go program";

/// Arguments of `report`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ReportArguments {
    /// A profile: what `record -o FILE.pb.gz` wrote, or another program's heap profile in pprof's
    /// format
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write a profile; repeatable; the formats are those of `record`
    #[arg(short, long, value_name = "[METRIC=]FILE")]
    output: Vec<OsString>,
    /// Weight of stacks [default: that of the recording]
    #[arg(long, value_enum)]
    metric: Option<Metric>,
    /// Root frame comm-PID instead of comm: processes of one name are kept apart
    #[arg(long)]
    per_pid: bool,
    /// Write totals, losses and top stacks for machines
    #[arg(long, value_name = "FILE.json")]
    summary: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArguments,
    /// Those of the table, which are the recording's where they are not given.
    #[command(flatten)]
    rows: TableArguments,
    /// Say nothing but errors
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Say more
    #[arg(short, long, action = ArgAction::Count)]
    pub(super) verbose: u8,
}

/// Filters of stacks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
struct FilterArguments {
    /// Only stacks with a caller whose name or source file matches
    #[arg(long, value_parser = pattern, value_name = "REGEX")]
    focus: Option<Regex>,
    /// Only stacks without a caller whose name or source file matches
    #[arg(long, value_parser = pattern, value_name = "REGEX")]
    ignore: Option<Regex>,
    /// Only stacks of these processes
    #[arg(long, value_delimiter = ',', value_name = "PID")]
    pid: Vec<u32>,
    /// Only stacks of processes of this name; repeatable
    #[arg(long, value_name = "NAME")]
    comm: Vec<String>,
    /// Only calls of these functions: malloc, calloc, mmap, ...
    #[arg(long, value_delimiter = ',', value_parser = function, value_name = "NAME")]
    function: Vec<Function>,
}

impl ReportArguments {
    /// Checks what was said, and makes settings of it.
    pub(in crate::cli) fn settings(&self) -> Result<SavedReportSettings> {
        let files = RequestedFiles::parse(&self.output, self.summary.as_deref())?;
        let filter = &self.filter;
        Ok(SavedReportSettings {
            file: self.file.clone(),
            outputs: files.outputs,
            metric: self.metric,
            per_pid: self.per_pid,
            rows: self.rows.request(),
            summaries: files.summaries,
            directories: files.directories,
            filter: StackFilter {
                focus: filter.focus.clone(),
                ignore: filter.ignore.clone(),
                pids: filter.pid.clone(),
                comms: filter.comm.clone(),
                functions: filter.function.clone(),
                // Rows of a table are sums: small stacks are part of them.
                min_percent: self
                    .rows
                    .request()
                    .min_percent
                    .filter(|_| !self.output.is_empty()),
            },
            quiet: self.quiet,
        })
    }
}

/// A regular expression; the last line of regex's message says what is wrong.
fn pattern(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| {
        let error = error.to_string();
        let what = error.lines().last().unwrap_or_default();
        let what = what.strip_prefix("error: ").unwrap_or(what);
        format!("it is no regular expression: {what}")
    })
}

/// The name of a traced function.
fn function(text: &str) -> Result<Function, String> {
    let known = Function::ALL.iter().find(|it| it.name() == text);
    known.copied().ok_or_else(|| {
        let names: Vec<&str> = Function::ALL.iter().map(|it| it.name()).collect();
        format!("it is no function that is traced; there are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use anyhow::bail;
    use clap::Parser as _;

    use super::*;
    use crate::cli::arguments::{CommandArguments, CommandLine};
    use crate::report::Format;

    fn settings(words: &[&str]) -> Result<SavedReportSettings> {
        let words = ["memtap", "report"].iter().chain(words);
        match CommandLine::try_parse_from(words)?.command {
            CommandArguments::Report(report) => report.settings(),
            _ => bail!("not report"),
        }
    }

    #[test]
    fn nothing_but_a_file_is_needed() {
        let asked = settings(&["a.pb.gz"]).unwrap();
        assert_eq!(asked.file, PathBuf::from("a.pb.gz"));
        assert!(asked.filter.is_empty() && asked.outputs.is_empty());
        assert_eq!(asked.metric, None);
        assert!(settings(&[]).is_err());
    }

    #[test]
    fn outputs_and_filters_are_taken() {
        let words = [
            "a.pb.gz",
            "-o",
            "alloc-count=n.svg",
            "-o",
            "-",
            "--focus",
            "a|b",
            "--pid",
            "1,2",
            "--comm",
            "x",
            "--function",
            "malloc,operator new",
            "--min-percent",
            "0.5",
        ];
        let asked = settings(&words).unwrap();
        let outputs: Vec<_> = asked.outputs.iter().map(|it| (it.metric, it.format)).collect();
        assert_eq!(
            outputs,
            [(Some(Metric::AllocCount), Format::Svg), (None, Format::Folded)]
        );
        assert!(asked.filter.focus.unwrap().is_match("b"));
        assert_eq!(asked.filter.pids, [1, 2]);
        assert_eq!(asked.filter.functions, [Function::Malloc, Function::OperatorNew]);
        assert_eq!(asked.filter.min_percent, Some(0.5));
    }

    #[test]
    fn nonsense_is_refused() {
        for words in [
            &["a.pb.gz", "--focus", "("][..],
            &["a.pb.gz", "--function", "mallok"],
            &["a.pb.gz", "--min-percent", "101"],
            &["a.pb.gz", "--min-percent", "nan"],
            &["a.pb.gz", "-o", "a.nonsense"],
            &["a.pb.gz", "-o", "-", "-o", "-"],
            &["a.pb.gz", "b.pb.gz"],
        ] {
            assert!(settings(words).is_err(), "{words:?}");
        }
        assert_eq!(
            pattern("(").unwrap_err(),
            "it is no regular expression: unclosed group"
        );
    }
}
