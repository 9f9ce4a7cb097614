//! The results of a run, as they are written to a file and read from it again.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{page, scope, startup, tables};

/// Names the layout of the file; a layout that readers of the last one do not understand has
/// another number.
pub(crate) const SCHEMA: &str = "memtap.bench/3";

/// Everything that was measured; a part that was not is empty.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) schema: String,
    /// The command that made it.
    pub(crate) command: String,
    pub(crate) machine: Machine,
    pub(crate) effort: Sizes,
    pub(crate) versions: Vec<Version>,
    pub(crate) loops: Vec<LoopLine>,
    pub(crate) live: Vec<LoopLine>,
    pub(crate) threads: Vec<LoopLine>,
    pub(crate) budget: Vec<Throughput>,
    pub(crate) programs: Vec<ProgramRow>,
    pub(crate) walks: Vec<LoopLine>,
    pub(crate) tables: Vec<tables::TablesRow>,
    #[serde(default)]
    pub(crate) scope: scope::ScopeCosts,
    #[serde(default)]
    pub(crate) startup: startup::Startup,
    #[serde(default)]
    pub(crate) page: page::PageFigures,
    pub(crate) judgements: Vec<Judgement>,
    /// True if every limit that could be looked at is kept.
    pub(crate) passes: bool,
}

/// Figures belong to the machine that they come from.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) cpus: usize,
}

/// The effort of a run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sizes {
    pub(crate) quick: bool,
    /// Fresh processes per row.
    pub(crate) rounds: usize,
    /// Timed batches per process.
    pub(crate) batches: u64,
    /// Pairs of malloc and free per batch, where a tool is not too slow for them.
    pub(crate) pairs: u64,
    pub(crate) size_bytes: u64,
}

/// A program that took part.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) tool: String,
    /// As it tells itself; nothing where it is not there.
    pub(crate) version: Option<String>,
}

/// The role of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RowKind {
    /// Nothing traces.
    Bare,
    /// memtap as it is meant to be used: peers are set beside it.
    Headline,
    /// memtap in another way, or a part of it.
    Memtap,
    /// Another tool.
    Peer,
}

/// The clock of a row's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Clock {
    /// The thread's CPU time.
    #[serde(rename = "CPU")]
    Thread,
    /// Time that passed, for tools that work in a process of their own while the thread waits.
    #[serde(rename = "wall")]
    Wall,
}

/// One tool on the loop.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LoopLine {
    pub(crate) tool: String,
    pub(crate) kind: RowKind,
    /// True if the loop is compiled with frame pointers.
    pub(crate) frame_pointers: bool,
    /// Functions of the program between main and malloc.
    pub(crate) depth: u32,
    pub(crate) threads: u32,
    pub(crate) clock: Clock,
    /// Nanoseconds per malloc and free: the median of the rounds.
    pub(crate) median_ns: Option<f64>,
    /// The same of the fastest batch.
    pub(crate) min_ns: Option<f64>,
    /// Each round's median.
    pub(crate) round_ns: Vec<f64>,
    pub(crate) over_bare_ns: Option<f64>,
    pub(crate) of_bare: Option<f64>,
    /// The cost of memtap's headline row, as a share of this one.
    pub(crate) memtap_of_it: Option<f64>,
    /// Calls of malloc that the loop made.
    pub(crate) calls_made: u64,
    /// Those that the tool tells of, if it does.
    pub(crate) calls_seen: Option<u64>,
    /// The standard error of that figure, where it is an estimate.
    pub(crate) calls_stderr: Option<f64>,
    /// Frames found at each call, of a tool that tells.
    pub(crate) frames: Option<u64>,
    /// A remark on the figures.
    pub(crate) note: Option<String>,
    /// The reason for missing figures, or not of all rounds.
    pub(crate) problem: Option<String>,
}

/// One tool on a process that works, and what it left of that.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Throughput {
    pub(crate) tool: String,
    pub(crate) kind: RowKind,
    /// Pairs per second of CPU time before and after.
    pub(crate) bare_per_s: Option<f64>,
    /// The same while it was traced.
    pub(crate) traced_per_s: Option<f64>,
    /// One as a share of the other: the median of the rounds.
    pub(crate) kept: Option<f64>,
    /// Each round's share.
    pub(crate) round_kept: Vec<f64>,
    /// The calls that it tells of, as a share of those that were made.
    pub(crate) seen_share: Option<f64>,
    pub(crate) note: Option<String>,
    pub(crate) problem: Option<String>,
}

/// One tool on a real program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProgramRow {
    #[serde(rename = "program")]
    pub(crate) name: String,
    pub(crate) tool: String,
    pub(crate) kind: RowKind,
    /// Seconds of user and system time of the program and its children: the median of the rounds.
    pub(crate) cpu_s: Option<f64>,
    pub(crate) wall_s: Option<f64>,
    /// The median of each round's ratio to the bare run before it.
    pub(crate) cpu_of_bare: Option<f64>,
    pub(crate) wall_of_bare: Option<f64>,
    /// Requests per second, of a server.
    pub(crate) requests_per_s: Option<f64>,
    /// The cost of memtap's headline row in CPU time, as a share of this one.
    pub(crate) memtap_of_it: Option<f64>,
    pub(crate) calls_seen: Option<u64>,
    pub(crate) note: Option<String>,
    pub(crate) problem: Option<String>,
}

/// True if a limit is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum LimitVerdict {
    /// It is.
    Pass,
    /// It is not, or calls were missed.
    Fail,
    /// There are not both figures, and there should be.
    Unknown,
    /// There are not both figures, for a tool or an option that may be missing.
    Skip,
}

impl LimitVerdict {
    /// The word that begins its sentence.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Unknown => "UNKNOWN",
            Self::Skip => "SKIP",
        }
    }

    /// The verdict on a figure that may be at most so much.
    pub(crate) fn on(figure: Option<f64>, limit: f64) -> Self {
        match figure {
            Some(figure) if figure <= limit => Self::Pass,
            Some(_) => Self::Fail,
            None => Self::Unknown,
        }
    }
}

/// A limit and what became of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Judgement {
    pub(crate) verdict: LimitVerdict,
    /// The part that it is about.
    pub(crate) part: String,
    pub(crate) figure: Option<f64>,
    pub(crate) limit: f64,
    pub(crate) sentence: String,
}

impl Judgement {
    /// One line.
    pub(crate) fn text(&self) -> String {
        format!("{}: {}", self.verdict.word(), self.sentence)
    }
}

/// Returns whether none is broken, and none could not be looked at that should have been.
pub(crate) fn passes(judgements: &[Judgement]) -> bool {
    judgements
        .iter()
        .all(|judgement| matches!(judgement.verdict, LimitVerdict::Pass | LimitVerdict::Skip))
}

impl Document {
    /// Reads a file that [`Document::write`] wrote.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
        let document: Self = serde_json::from_str(&text)
            .with_context(|| format!("failed to read {} as figures of a bench", file.display()))?;
        ensure!(
            document.schema == SCHEMA,
            "{} is {:?}, not {SCHEMA:?}: measure again",
            file.display(),
            document.schema
        );
        Ok(document)
    }

    /// Writes everything to a file.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("failed to write figures as JSON")?;
        fs::write(file, text + "\n").with_context(|| format!("failed to write {}", file.display()))
    }
}
