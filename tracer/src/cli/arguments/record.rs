//! The arguments of `record`, which `live` has too.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{ArgAction, Args, ValueEnum};

use super::allocators::AllocatorArguments;
use super::attach::Attach;
use super::budget::{self, Overhead};
use super::limits::MemoryArguments;
use super::outputs::RequestedFiles;
use super::symbols::SymbolArguments;
use super::table::TableArguments;
use super::unwind::{StopWhen, UnwindArguments};
use crate::cli::settings::{LiveSettings, ProfileOutput, RecordSettings, ReportSettings, RequestedOutput};
use crate::cli::sizes;
use crate::profile::Metric;
use crate::report::table::TableView;
use crate::settings::{self, Probed, Sample, Target};

/// The text before the help of `record`.
pub(super) const EXAMPLES: &str = "\
Examples:
  sudo memtap record -p 4711 -d 10s                 the top stacks of ten seconds of a running process
  sudo memtap record -p 4711 -d 10s -o alloc.svg    the same as a flame graph
  sudo memtap record -- ./server --port 80          a command, from its first instruction, with its children
  sudo memtap record -a -d 5s --per-pid -o all.svg  every process of the machine
  sudo memtap record --cgroup system.slice/nginx.service -d 10s    a service, or a container, with all its processes
  sudo memtap record -p 4711 --events region        what grows the address space: mmap, mremap, brk";

/// Arguments of `record`.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of its own on the command line"
)]
pub(in crate::cli) struct RecordArguments {
    /// Trace these processes
    #[arg(
        short,
        long,
        value_name = "PID",
        value_delimiter = ',',
        group = "target",
        help_heading = "Target (one of)"
    )]
    pid: Vec<u32>,
    /// Trace every process of the machine
    #[arg(short, long, group = "target", help_heading = "Target (one of)")]
    all: bool,
    /// Trace every process of this name, also those that start later
    #[arg(long, value_name = "NAME", group = "target", help_heading = "Target (one of)")]
    comm: Option<OsString>,
    /// Trace every process of this cgroup (v2) and of those below it, also those that come later: a
    /// directory below /sys/fs/cgroup, or its path as in /proc/PID/cgroup
    #[arg(long, value_name = "PATH", group = "target", help_heading = "Target (one of)")]
    cgroup: Option<PathBuf>,
    /// Trace this command from its first instruction; under sudo it runs as the user who called
    /// sudo
    #[arg(
        last = true,
        value_name = "COMMAND",
        group = "target",
        help_heading = "Target (one of)"
    )]
    command: Vec<OsString>,
    /// Trace the children of traced processes too (default for -- COMMAND)
    #[arg(long, overrides_with = "no_follow")]
    follow: bool,
    /// Leave children out (default otherwise)
    #[arg(long)]
    no_follow: bool,
    /// Processes that get breakpoints: the targets and their descendants alone, or every process
    /// that maps the same libraries [default: tree for -p, --comm and commands, else machine]
    #[arg(long, value_enum, value_name = "WHICH")]
    scope: Option<ScopeArgument>,
    /// With --scope tree, stop a child of a target for some milliseconds at its beginning, until it
    /// has probes of its own; where it is never stopped, its first calls are not seen
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    stop_children: StopWhen,
    /// Stop after this long: 10s, 500ms, 2m; default: at Ctrl-C, or when every target has exited
    #[arg(short, long, value_parser = sizes::duration)]
    duration: Option<Duration>,
    /// Write a profile; repeatable; .pb.gz: pprof, which keeps everything, for `memtap report`;
    /// .folded, .txt: folded stacks; .svg: flame graph; .html: page with flame graph, tables and
    /// histograms; .speedscope.json: for speedscope; -: folded stacks on standard output; DIR/:
    /// pprof, flame graph, page and summary in a directory
    #[arg(short, long, value_name = "[METRIC=]FILE")]
    output: Vec<OsString>,
    /// Print the table although profiles are written
    #[arg(long)]
    table: bool,
    /// Weight of stacks [default: alloc-bytes, or region-bytes where only regions are traced]
    #[arg(long, value_enum)]
    metric: Option<Metric>,
    /// Events to trace
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "heap",
        value_enum,
        value_name = "LIST"
    )]
    events: Vec<Event>,
    /// Follow free too: what is still allocated, what peaked, what lived for a moment
    #[arg(long)]
    live: bool,
    /// Follow one allocation per so many bytes on average (512k); 1: every one; auto: as many as
    /// --max-overhead permits; all figures are estimates of the whole [default: 1 for -- COMMAND,
    /// else auto]
    #[arg(long, value_parser = budget::sample, value_name = "BYTES|auto", help_heading = "Cost")]
    sample: Option<Sample>,
    /// Keep what tracing costs the targets under this share of one CPU's time [default: off for --
    /// COMMAND, else 2]
    #[arg(long, value_parser = budget::overhead, value_name = "PERCENT|off", help_heading = "Cost")]
    max_overhead: Option<Overhead>,
    /// Draw the sample by these random numbers, for tests
    #[arg(long, value_name = "NUMBER", hide = true)]
    seed: Option<u64>,
    #[command(flatten)]
    unwind: UnwindArguments,
    /// Only allocations of at least this many bytes
    #[arg(long, value_parser = sizes::size, value_name = "BYTES")]
    min_size: Option<u64>,
    /// Only allocations of at most this many bytes
    #[arg(long, value_parser = sizes::size, value_name = "BYTES")]
    max_size: Option<u64>,
    /// Root frame comm-PID instead of comm: processes of one name are kept apart
    #[arg(long)]
    per_pid: bool,
    /// Write totals, losses and top stacks for machines
    #[arg(long, value_name = "FILE.json")]
    summary: Option<PathBuf>,
    /// Write the stacks as addresses, for comparison with other walkers
    #[arg(long, value_name = "FILE", hide = true)]
    raw: Option<PathBuf>,
    /// Probes of calls with --live: one inside their function, or two
    #[arg(long, default_value = "auto", value_enum, hide = true)]
    probes: ProbesArgument,
    /// Interface that uprobes are attached by
    #[arg(long, default_value = "auto", value_enum, hide = true)]
    attach: Attach,
    /// Exit with 3 if anything was lost
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    rows: TableArguments,
    #[command(flatten)]
    allocators: AllocatorArguments,
    #[command(flatten)]
    memory: MemoryArguments,
    #[command(flatten)]
    symbols: SymbolArguments,
    /// Show on the terminal how it goes while a command runs too, which may write over it; for
    /// other targets that is the default
    #[arg(long, conflicts_with = "quiet")]
    progress: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Say more; twice: also what the eBPF side says
    #[arg(short, long, action = ArgAction::Count)]
    pub(super) verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Event {
    /// Calls to allocators
    Heap,
    /// mmap, munmap, mremap, brk
    Region,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProbesArgument {
    Auto,
    One,
    Two,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScopeArgument {
    Tree,
    Machine,
}

impl RecordArguments {
    /// Checks what was said, and makes settings of it.
    pub(in crate::cli) fn settings(&self) -> Result<RecordSettings> {
        self.settings_of(None)
    }

    /// Checks the arguments, for a command that tracks blocks and reports what is live.
    pub(super) fn settings_of(&self, live_report: Option<LiveSettings>) -> Result<RecordSettings> {
        let live = self.live || live_report.is_some();
        let target = self.target()?;
        let heap = self.events.contains(&Event::Heap);
        let region = self.events.contains(&Event::Region);
        let default = match (heap, live_report.is_some()) {
            (true, true) => Metric::LiveBytes,
            (true, false) => Metric::AllocBytes,
            (false, _) => Metric::RegionBytes,
        };
        let metric = self.metric.unwrap_or(default);
        if self.probes == ProbesArgument::One && !live {
            bail!("--probes one needs --live");
        }
        if live && !heap {
            let what = if live_report.is_some() { "live" } else { "--live" };
            bail!("{what} needs --events heap");
        }
        if let (Some(min), Some(max)) = (self.min_size, self.max_size)
            && min > max
        {
            bail!("--min-size {min} is larger than --max-size {max}: nothing would be traced");
        }
        let files = RequestedFiles::parse(&self.output, self.summary.as_deref())?;
        let with_metric = |output: &RequestedOutput| output.with_default(metric);
        let outputs: Vec<ProfileOutput> = files.outputs.iter().map(with_metric).collect();
        for metric in outputs.iter().map(|output| output.metric).chain([metric]) {
            if metric == Metric::RegionBytes && !region {
                bail!("--metric region-bytes needs --events region");
            }
            if metric != Metric::RegionBytes && !heap {
                bail!("--metric {} needs --events heap", metric.name());
            }
            if metric.needs_live() && !live {
                bail!("--metric {} needs --live", metric.name());
            }
        }
        if self.table && outputs.iter().any(|output| output.path.as_os_str() == "-") {
            bail!("--table and -o - cannot both write to standard output");
        }
        let (sample, overhead_max_percent) = budget::of(self.sample, self.max_overhead, &target)?;
        let report = ReportSettings {
            outputs,
            summaries: files.summaries,
            directories: files.directories,
            raw: self.raw.clone(),
            metric,
            per_pid: self.per_pid,
            table: self
                .rows
                .request()
                .view(TableView::default(), live, live_report.is_some())?,
            live: live_report,
            table_too: self.table,
            strict: self.strict,
            quiet: self.quiet,
            // A command writes to the same terminal.
            progress: self.progress || !(self.quiet || matches!(target, Target::Command(_))),
        };
        let record = settings::Record {
            follow: self.follow || (matches!(target, Target::Command(_)) && !self.no_follow),
            target,
            duration: self.duration,
            heap,
            functions: self.allocators.asked()?,
            live,
            probing: match self.probes {
                ProbesArgument::Auto => settings::Probing::Auto,
                ProbesArgument::One => settings::Probing::One,
                ProbesArgument::Two => settings::Probing::Two,
            },
            ages: live_report.is_some(),
            older_than: live_report.and_then(|live| live.older_than),
            region,
            min_size: self.min_size,
            max_size: self.max_size,
            sample,
            seed: self.seed,
            overhead_max_percent,
            unwind: self.unwind.unwind(),
            stop_for_code: self.unwind.stop_for_code(&self.command),
            probed: self.probed()?,
            stop_children: self.stop_children.into(),
            attach: self.attach.into(),
            limits: self.memory.limits()?,
            symbols: self.symbols.settings(self.quiet)?,
        };
        Ok(RecordSettings { record, report })
    }

    fn probed(&self) -> Result<Probed> {
        let has_tree = !self.all && self.cgroup.is_none();
        match self.scope {
            Some(ScopeArgument::Tree) if !has_tree => bail!(
                "--scope tree needs targets whose descendants can be told: -p, --comm or a command; processes of the \
                 machine and of a cgroup come from anywhere"
            ),
            Some(ScopeArgument::Tree) => Ok(Probed::Tree),
            None if has_tree => Ok(Probed::Tree),
            Some(ScopeArgument::Machine) | None => Ok(Probed::Machine),
        }
    }

    fn target(&self) -> Result<Target> {
        if !self.pid.is_empty() {
            let mut pids = self.pid.clone();
            pids.sort_unstable();
            pids.dedup();
            if pids.contains(&0) {
                bail!("0 is no process id");
            }
            return Ok(Target::Pids(pids));
        }
        if self.all {
            return Ok(Target::All);
        }
        if let Some(name) = &self.comm {
            if name.is_empty() || name.len() > 15 {
                bail!(
                    "--comm {}: names of processes have 1 to 15 bytes; see `ps -e -o comm`",
                    name.display()
                );
            }
            return Ok(Target::Comm(name.clone()));
        }
        if let Some(path) = &self.cgroup {
            if path.as_os_str().is_empty() {
                bail!("--cgroup: the path is empty; / is the cgroup of all processes");
            }
            return Ok(Target::Cgroup(path.clone()));
        }
        if self.command.is_empty() {
            bail!("nothing to trace: give one of -p PID, -a, --comm NAME, --cgroup PATH, -- COMMAND");
        }
        Ok(Target::Command(self.command.clone()))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::arguments::{CommandArguments, CommandLine};

    fn settings(words: &[&str]) -> Result<RecordSettings> {
        let words = ["memtap", "record"].iter().chain(words);
        match CommandLine::try_parse_from(words)?.command {
            CommandArguments::Record(record) => record.settings(),
            _ => bail!("not record"),
        }
    }

    #[test]
    fn targets_exclude_each_other() {
        assert_eq!(
            settings(&["-p", "7,8,7"]).unwrap().record.target,
            Target::Pids(vec![7, 8])
        );
        assert_eq!(settings(&["-a"]).unwrap().record.target, Target::All);
        assert_eq!(
            settings(&["--comm", "x"]).unwrap().record.target,
            Target::Comm("x".into())
        );
        assert_eq!(
            settings(&["--cgroup", "a/b"]).unwrap().record.target,
            Target::Cgroup("a/b".into())
        );
        assert!(settings(&["--cgroup", ""]).is_err());
        assert!(settings(&["--cgroup", "x", "--comm", "y"]).is_err());
        let command = settings(&["--", "ls", "-l"]).unwrap().record;
        assert_eq!(command.target, Target::Command(vec!["ls".into(), "-l".into()]));
        assert!(command.follow);
        assert!(!settings(&["--no-follow", "--", "ls"]).unwrap().record.follow);
        assert!(settings(&["-p", "7", "-a"]).is_err());
        assert!(settings(&["-a", "--", "ls"]).is_err());
        assert!(settings(&[]).is_err());
    }

    #[test]
    fn table_can_be_printed_beside_files() {
        assert!(settings(&["-a", "-o", "-", "--table"]).is_err());
        assert!(
            settings(&["-a", "-o", "a.pb.gz", "--table"])
                .unwrap()
                .report
                .table_too
        );
    }

    #[test]
    fn metrics_need_their_events() {
        assert_eq!(
            settings(&["-a", "--events", "region"]).unwrap().report.metric,
            Metric::RegionBytes
        );
        assert!(settings(&["-a", "--metric", "region-bytes"]).is_err());
        assert!(settings(&["-a", "--events", "region", "--metric", "alloc-bytes"]).is_err());
        assert!(settings(&["-a", "--events", "heap,region", "--metric", "alloc-count"]).is_ok());
    }

    #[test]
    fn limits_are_checked() {
        assert!(settings(&["-a", "--min-size", "2k", "--max-size", "1k"]).is_err());
        assert!(settings(&["-a", "--ring-size", "5000"]).is_err());
        for option in ["--max-stacks", "--max-blocks", "--max-processes"] {
            assert!(settings(&["-a", option, "0"]).is_err());
            assert!(settings(&["-a", option, "4294967295"]).is_err());
            assert!(settings(&["-a", option, "1"]).is_ok());
        }
        assert!(settings(&["--comm", "a-name-that-is-too-long"]).is_err());
    }
}
