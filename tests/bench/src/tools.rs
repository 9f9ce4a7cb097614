//! Ways for tools to reach the loop. A new row is a new entry in `tools/rows.rs`.

mod bpftrace;
mod bytehound;
mod heaptrack;
mod live_bt;
mod ltrace;
pub(super) mod memleak;
pub(super) mod memtap;
pub(super) mod perf;
mod rows;
mod running;
pub(super) mod valgrind;
mod walk;

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::effort::{ToolPace, USUAL};
use super::interrupt;
use super::results::{Clock, RowKind};
use super::target::{Build, LoopTarget};

pub(crate) use bpftrace::command as bpftrace_command;
pub(crate) use bpftrace::map as bpftrace_map;
pub(crate) use bpftrace::missing as bpftrace_missing;
pub(crate) use heaptrack::Heaptrack;
pub(crate) use rows::{
    CALLS_LIMITS, EMPTY_UPROBE, KEPT_LIMIT, LIVE_LIMITS, THREADS_LIMIT, THREADS_SUBJECTS, WALK_LIMITS,
    budget, calls, is_headline, live, walks,
};
pub(crate) use running::RunningTracer;

/// A tool's own report of the loop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum SeenCalls {
    /// Calls of malloc.
    Calls(u64),
    /// Bytes asked for by malloc.
    Bytes(u64),
    /// About so many calls of malloc, with the standard error of that.
    Estimate {
        /// Calls.
        calls: u64,
        /// As many, give or take.
        stderr: f64,
    },
    /// Calls of malloc, and the frames that were found at each.
    Walks {
        /// Calls.
        calls: u64,
        /// Frames of each.
        frames: u64,
    },
    /// It does not count.
    Nothing,
}

/// One way of tracing the loop.
pub(crate) struct BenchTool {
    pub(crate) name: &'static str,
    pub(crate) kind: RowKind,
    /// The build of the loop.
    pub(crate) build: Build,
    /// The clock that measures its cost.
    pub(crate) clock: Clock,
    pub(crate) pace: ToolPace,
    pub(crate) way: ToolWay,
    /// True if it is memtap of the build that `--against` names.
    pub(crate) is_before: bool,
}

/// Follows the name of a row of the build before.
pub(crate) const BEFORE: &str = ", before";

/// A way for a tool to reach the loop.
pub(crate) enum ToolWay {
    /// Not at all: the loop runs alone.
    Alone,
    /// To the loop that waits.
    Attached(Box<dyn Tracer>),
    /// With the loop, which it starts.
    Launched(Box<dyn Launcher>),
}

impl ToolWay {
    /// Returns why this tool cannot run here.
    pub(crate) fn missing(&self) -> Option<String> {
        match self {
            Self::Alone => None,
            Self::Attached(tracer) => tracer.missing(),
            Self::Launched(launcher) => launcher.missing(),
        }
    }

    /// Returns what is to be known of its figures.
    pub(crate) fn note(&self) -> Option<String> {
        match self {
            Self::Alone => None,
            Self::Attached(tracer) => tracer.note(),
            Self::Launched(launcher) => launcher.note(),
        }
    }
}

impl BenchTool {
    fn bare(build: Build) -> Self {
        Self {
            name: "bare",
            kind: RowKind::Bare,
            build,
            clock: Clock::Thread,
            pace: USUAL,
            way: ToolWay::Alone,
            is_before: false,
        }
    }

    fn attached(name: &'static str, kind: RowKind, tracer: impl Tracer + 'static) -> Self {
        let bare = Self::bare(Build::FramePointers);
        let way = ToolWay::Attached(Box::new(tracer));
        Self {
            name,
            kind,
            way,
            ..bare
        }
    }

    fn launched(name: &'static str, kind: RowKind, launcher: impl Launcher + 'static) -> Self {
        let bare = Self::bare(Build::FramePointers);
        let way = ToolWay::Launched(Box::new(launcher));
        Self {
            name,
            kind,
            way,
            ..bare
        }
    }

    /// The name of its row.
    pub(crate) fn label(&self) -> String {
        let suffix = if self.is_before { BEFORE } else { "" };
        format!("{}{suffix}", self.name)
    }

    /// Puts each tool of `before` that is memtap, and that another build can make faster or slower,
    /// behind the one of the same name: both take their turns side by side.
    pub(crate) fn beside(tools: Vec<Self>, before: Vec<Self>) -> Vec<Self> {
        let mut before: Vec<Self> = before
            .into_iter()
            .filter(|tool| {
                matches!(tool.kind, RowKind::Headline | RowKind::Memtap) && tool.name != EMPTY_UPROBE
            })
            .map(|tool| Self {
                is_before: true,
                kind: RowKind::Memtap,
                ..tool
            })
            .collect();
        let mut all = Vec::new();
        for tool in tools {
            let twin = before
                .iter()
                .position(|twin| twin.name == tool.name && twin.build == tool.build);
            all.push(tool);
            all.extend(twin.map(|index| before.remove(index)));
        }
        all
    }

    fn at(self, pace: ToolPace) -> Self {
        Self { pace, ..self }
    }

    fn by(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    fn without_frame_pointers(self) -> Self {
        let build = Build::NoFramePointers;
        Self { build, ..self }
    }
}

/// A program that attaches to the running loop.
pub(crate) trait Tracer {
    /// Returns why this tool cannot run here.
    fn missing(&self) -> Option<String>;
    /// Returns what is to be known of its figures.
    fn note(&self) -> Option<String> {
        None
    }
    /// Starts tracing the waiting loop; its files go to `directory`.
    fn attach(&self, target: &LoopTarget, directory: &Path) -> Result<RunningTracer>;
    /// Returns whether it says that it is at work, once a probe is there: others may come after the
    /// first.
    fn is_ready(&self, _directory: &Path) -> bool {
        true
    }
    /// Reads what it saw, after it has stopped.
    fn seen(&self, directory: &Path) -> Result<SeenCalls>;
}

/// The time that a tracer may take from its first probe to its word that it is at work; without it,
/// it is left to try.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Between the last probe's appearance and the first call: a tracer enables its program after
/// placing its probe.
const SETTLE: Duration = Duration::from_millis(500);

/// Attaches a tracer to the waiting or working loop, and returns when it is at work.
pub(crate) fn attach(tracer: &dyn Tracer, target: &LoopTarget, directory: &Path) -> Result<RunningTracer> {
    let running = tracer.attach(target, directory)?;
    at_work(
        running,
        || target.wait_until_probed(),
        || tracer.is_ready(directory),
    )
}

/// Returns a started tracer when its first probe is there and it says that it is at work.
pub(crate) fn at_work(
    mut running: RunningTracer,
    wait_until_probed: impl FnOnce() -> Result<()>,
    is_ready: impl Fn() -> bool,
) -> Result<RunningTracer> {
    if let Err(error) = wait_until_probed() {
        return Err(running.failure().map_or(error, anyhow::Error::msg));
    }
    let started = Instant::now();
    while !is_ready() && started.elapsed() < READY_LIMIT {
        interrupt::check()?;
        sleep(Duration::from_millis(20));
    }
    sleep(SETTLE);
    match running.failure() {
        Some(failure) => bail!("{failure}"),
        None => Ok(running),
    }
}

/// A program that starts the loop itself.
pub(crate) trait Launcher {
    /// Returns why this tool cannot run here.
    fn missing(&self) -> Option<String>;
    /// Returns what is to be known of its figures.
    fn note(&self) -> Option<String> {
        None
    }
    /// The command that starts `binary` under the tool, to which the loop's own arguments are
    /// added. The loop has the command's standard input and output, and the command ends after it;
    /// files go to `directory`.
    fn command(&self, binary: &Path, directory: &Path) -> Result<Command>;
    /// Reads what it saw, after it has ended.
    fn seen(&self, directory: &Path) -> Result<SeenCalls>;
}
