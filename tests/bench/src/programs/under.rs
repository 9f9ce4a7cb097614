//! The tools that programs run under.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::group::ProcessGroup;
use super::{ProgramWorkload, ProgramsSetup};
use crate::measure::empty;
use crate::results::RowKind;
use crate::running_loop::Turns;
use crate::target::LoopTarget;
use crate::tools::valgrind::Valgrind;
use crate::tools::{Heaptrack, Launcher as _, RunningTracer, SeenCalls, memtap, perf, valgrind};
use crate::tools::{at_work, bpftrace_command, bpftrace_map, bpftrace_missing};
use test_support::{privilege, workspace};

/// The time that a program took, and the calls that the tool saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProgramOutcome {
    pub(crate) cpu_s: f64,
    pub(crate) wall_s: f64,
    pub(crate) requests_per_s: Option<f64>,
    pub(crate) calls_seen: Option<u64>,
    pub(crate) note: Option<String>,
}

/// A tool, and how it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Under {
    Bare,
    Memtap,
    MemtapLive,
    MemtapBudget,
    Heaptrack,
    Bpftrace,
    Perf,
    Strace,
    Massif,
    Dhat,
}

/// The time that a program may take.
const LIMIT: Duration = Duration::from_mins(4);

/// bpftrace 0.17 keeps so many keys of a map, and says nothing of the others.
const BPFTRACE_KEYS: usize = 4096;

/// The kernel keeps so many bytes of a process's name.
const COMM_LENGTH: usize = 15;

impl Under {
    /// All of them, in the order of the rows.
    pub(crate) fn all() -> Vec<Self> {
        vec![
            Self::Bare,
            Self::Memtap,
            Self::MemtapLive,
            Self::MemtapBudget,
            Self::Heaptrack,
            Self::Bpftrace,
            Self::Perf,
            Self::Strace,
            Self::Massif,
            Self::Dhat,
        ]
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Memtap => "memtap record",
            Self::MemtapLive => "memtap record --live",
            Self::MemtapBudget => "memtap record --max-overhead 2",
            Self::Heaptrack => "heaptrack",
            Self::Bpftrace => "bpftrace @[ustack]",
            Self::Perf => "perf record, frame pointers",
            Self::Strace => "strace -f -k -e trace=memory",
            Self::Massif => "valgrind massif",
            Self::Dhat => "valgrind dhat",
        }
    }

    pub(crate) fn kind(self) -> RowKind {
        match self {
            Self::Bare => RowKind::Bare,
            Self::Memtap => RowKind::Headline,
            Self::MemtapLive | Self::MemtapBudget => RowKind::Memtap,
            _ => RowKind::Peer,
        }
    }

    /// The most rounds that are worth their time.
    pub(crate) fn rounds(self) -> usize {
        match self {
            Self::Perf | Self::Strace | Self::Massif | Self::Dhat => 1,
            _ => usize::MAX,
        }
    }

    /// Returns why this tool cannot run this program here.
    pub(crate) fn missing(self, program: &str, place: &ProgramsSetup) -> Option<String> {
        if place.quick && self.rounds() == 1 {
            return Some("left out by --quick".to_owned());
        }
        match self {
            Self::Bare | Self::Memtap | Self::MemtapLive | Self::MemtapBudget => {
                memtap::missing(&place.memtap, &self.options())
            }
            Self::Heaptrack => Heaptrack.missing(),
            Self::Bpftrace => bpftrace_missing(),
            Self::Perf => perf::missing(),
            Self::Strace if program == "redis-server" => {
                Some("left out: its loop maps hardly any memory".to_owned())
            }
            Self::Strace => (!workspace::in_path("strace")).then(|| "strace is not installed".to_owned()),
            Self::Massif | Self::Dhat => valgrind::missing(),
        }
    }

    /// Options of `memtap record`.
    pub(crate) fn options(self) -> Vec<&'static str> {
        match self {
            Self::MemtapLive => [memtap::EVERY, &["--live"]].concat(),
            Self::MemtapBudget => vec!["--sample", "auto", "--max-overhead", "2"],
            _ => memtap::EVERY.to_vec(),
        }
    }

    /// Runs a program under the tool.
    pub(crate) fn run(self, workload: &ProgramWorkload, place: &ProgramsSetup) -> Result<ProgramOutcome> {
        let directory = place.directory.join("run");
        empty(&directory)?;
        let watcher = self.watcher(workload, place, &directory)?;
        let mut command = self.command(workload, place, &directory)?;
        ProcessGroup::start(&mut command, &directory)?.finish(LIMIT)?;
        if let Some((watcher, _)) = watcher {
            watcher.stop()?;
        }
        let mut outcome = spent(&directory)?;
        self.look(&directory, &mut outcome)?;
        empty(&directory)?;
        Ok(outcome)
    }

    /// A tracer that runs beside the program, and the process by which one sees that it is there.
    fn watcher(
        self,
        workload: &ProgramWorkload,
        place: &ProgramsSetup,
        directory: &Path,
    ) -> Result<Option<(RunningTracer, LoopTarget)>> {
        if self != Self::Bpftrace && self != Self::Perf {
            return Ok(None);
        }
        let turns = Turns {
            depth: 0,
            pairs: 0,
            batches: 0,
            threads: 1,
            starts_one: false,
        };
        let sentinel = LoopTarget::start(&place.sentinel, &turns)?;
        if self == Self::Perf {
            perf::define(sentinel.libc())?;
            return Ok(None);
        }
        let mut command = bpftrace_command();
        let probe = format!("uprobe:{}:malloc", sentinel.libc().display());
        // By name: that of its process is not known before it runs.
        let name = Path::new(&workload.command[0]).file_name().unwrap_or_default();
        let name: String = name.to_string_lossy().chars().take(COMM_LENGTH).collect();
        let script = format!("{probe} /comm == \"{name}\"/ {{ @[ustack] = sum(arg0) }}");
        command.args(["-f", "json", "-e", &script]);
        let running = RunningTracer::start(&mut command, directory)?;
        let running = at_work(running, || sentinel.wait_until_probed(), || true)?;
        Ok(Some((running, sentinel)))
    }

    /// The whole command: the tool, what tells what the program took, and the program.
    fn command(self, workload: &ProgramWorkload, place: &ProgramsSetup, directory: &Path) -> Result<Command> {
        let mut command = match self {
            Self::Memtap | Self::MemtapLive | Self::MemtapBudget => {
                let mut command = privilege::elevated(&place.memtap);
                command.arg("record").args(self.options());
                command.arg("-o").arg(directory.join("memtap.folded"));
                command.arg("--summary").arg(directory.join("summary.json"));
                command.arg("--").arg(&place.spend);
                command
            }
            Self::Heaptrack => Heaptrack.command(&place.spend, directory)?,
            Self::Perf => {
                let mut command = perf::record(&["--call-graph", "fp"], directory);
                command.arg("--").arg(&place.spend);
                command
            }
            Self::Strace => {
                let mut command = workspace::untouched(Path::new("strace"));
                command.args(["-f", "-k", "-e", "trace=memory", "-o"]);
                command.arg(directory.join("strace")).arg(&place.spend);
                command
            }
            Self::Bare | Self::Bpftrace | Self::Massif | Self::Dhat => workspace::untouched(&place.spend),
        };
        command.arg(directory.join("spent"));
        if !workload.environment.is_empty() {
            // A variable would not come through sudo.
            command.arg("env");
            command.args(
                workload
                    .environment
                    .iter()
                    .map(|(name, value)| format!("{name}={value}")),
            );
        }
        command.args(self.emulator(directory));
        command.args(&workload.command);
        Ok(command)
    }

    /// Returns what stands right before the program.
    pub(crate) fn emulator(self, directory: &Path) -> Vec<String> {
        let tool = match self {
            Self::Massif => Valgrind::Massif,
            Self::Dhat => Valgrind::Dhat,
            _ => return Vec::new(),
        };
        let mut words = vec!["valgrind".to_owned()];
        words.extend(tool.arguments(directory));
        words
    }

    /// Reads what the tool saw: one that saw nothing has no figure.
    pub(crate) fn look(self, directory: &Path, outcome: &mut ProgramOutcome) -> Result<()> {
        let read = |name: &str| {
            let bytes = fs::read(directory.join(name)).with_context(|| format!("failed to read {name}"))?;
            Ok::<_, anyhow::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        let seen = match self {
            Self::Bare => SeenCalls::Nothing,
            Self::Memtap | Self::MemtapLive | Self::MemtapBudget => {
                let summary = memtap::summary(directory)?;
                let lost = summary["losses"]["total"].as_u64().unwrap_or(0);
                outcome.note = (lost > 0).then(|| format!("{lost} lost"));
                let calls = summary["totals"]["alloc"]["count"].as_f64();
                SeenCalls::Calls(memtap::whole(
                    calls.context("failed to find the calls in memtap's summary")?,
                ))
            }
            Self::Heaptrack => Heaptrack.seen(directory)?,
            Self::Bpftrace => {
                let stacks = bpftrace_map(&read("stdout")?, "@")?.0;
                ensure!(!stacks.is_empty(), "it saw no call");
                outcome.note = Some(if stacks.len() < BPFTRACE_KEYS {
                    "only malloc".to_owned()
                } else {
                    format!("its map was full at {} stacks", stacks.len())
                });
                SeenCalls::Nothing
            }
            Self::Perf => {
                outcome.note = Some("only malloc".to_owned());
                SeenCalls::Calls(perf::samples(&read("messages")?)?)
            }
            Self::Strace => {
                let text = read("strace")?;
                let calls = text
                    .lines()
                    .filter(|line| !line.starts_with([' ', '>']) && line.contains('('))
                    .count();
                ensure!(calls > 0, "it saw no call");
                outcome.note = Some(format!("{calls} system calls, no malloc"));
                SeenCalls::Nothing
            }
            Self::Massif => Valgrind::Massif.read(directory)?,
            Self::Dhat => Valgrind::Dhat.read(directory)?,
        };
        if let SeenCalls::Calls(calls) = seen {
            ensure!(calls > 0, "it saw no call");
            outcome.calls_seen = Some(calls);
        }
        Ok(())
    }
}

/// Returns what `spend.c` wrote.
fn spent(directory: &Path) -> Result<ProgramOutcome> {
    let text = fs::read_to_string(directory.join("spent")).context("failed to read what the program took")?;
    figures(&text).with_context(|| format!("failed to read what the program took: {text:?}"))
}

/// Nanoseconds in user mode, in the kernel, and of the wall.
pub(crate) fn figures(text: &str) -> Option<ProgramOutcome> {
    let mut numbers = text.split_whitespace().map(|word| word.parse::<f64>().ok());
    let mut seconds = || Some(numbers.next()?? / 1e9);
    Some(ProgramOutcome {
        cpu_s: seconds()? + seconds()?,
        wall_s: seconds()?,
        ..ProgramOutcome::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_spend() {
        let outcome = figures("1500000000 500000000 2500000000\n").expect("three numbers");
        assert!((outcome.cpu_s - 2.0).abs() < 1e-9 && (outcome.wall_s - 2.5).abs() < 1e-9);
        assert!(figures("1 2").is_none());
        assert!(figures("a b c").is_none());
    }
}
