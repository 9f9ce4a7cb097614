//! What was asked for, as plain values: nothing below the command line knows how it was said.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bpf::Limits;
use crate::bpf::links::AttachBy;
use crate::profile::Metric;
use crate::report::Format;
use crate::symbolize::Owner;

/// Whom to trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// These processes.
    Pids(Vec<u32>),
    /// Every process of the machine.
    All,
    /// Every process of this name, those that get it later too.
    Comm(String),
    /// Every process of this cgroup and of those below it, those that come later too: a path, absolute or from the root of the
    /// hierarchy on.
    Cgroup(PathBuf),
    /// A command, from its first instruction.
    Command(Vec<OsString>),
}

/// A profile to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What this one weighs stacks by.
    pub metric: Metric,
    /// How it is written.
    pub format: Format,
    /// Where to; `-` is standard output.
    pub path: PathBuf,
}

/// Which processes are stopped while the tables of code that they call from are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopForCode {
    /// None. What calls meanwhile is copied, as far as there is room.
    Never,
    /// Those that nobody would see stopped: with one thread, no debugger, and their parent's process group.
    Unseen,
    /// All.
    Always,
}

/// How stacks are walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwind {
    /// By the files' unwind tables, and by frame pointers in code without one.
    Auto,
    /// By unwind tables alone.
    Dwarf,
    /// By frame pointers alone.
    FramePointer,
}

impl Unwind {
    /// The name on the command line and in the summary.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Dwarf => "dwarf",
            Self::FramePointer => "fp",
        }
    }
}

/// Where calls are met whose blocks are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probing {
    /// Inside their function, at a place that has the size and the result, where that is proven to be met by every call; at
    /// its entry and its return elsewhere.
    Auto,
    /// The same, and it is an error if no function is met inside.
    One,
    /// At entry and return.
    Two,
}

/// Which allocations are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// Every one.
    Every,
    /// One per this many bytes on average: 2 to 1 GiB.
    Bytes(u64),
    /// As many as the budget permits.
    Auto,
}

/// What stacks are sorted by in the report of what is still allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveSort {
    /// How much they look like leaks.
    Score,
    /// Bytes.
    LiveBytes,
}

/// Settings of `live`, beside those of `record`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Only blocks at least so old count.
    pub older_than: Option<Duration>,
    /// A report every so often.
    pub interval: Option<Duration>,
    /// Fail if more bytes than this were added in the second half.
    pub growth_max_bytes: Option<u64>,
    /// What the report is sorted by.
    pub sort: LiveSort,
}

/// Where names are looked for, beside the usual places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Symbols {
    /// Directories with debug information, absolute: they are searched before the usual ones.
    pub debug_directories: Vec<PathBuf>,
    /// Servers of debug information, where they may be asked.
    pub debuginfod: Option<Debuginfod>,
}

/// Servers of debug information, and how they are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debuginfod {
    /// Their addresses, in the order in which they are asked.
    pub servers: Vec<String>,
    /// Where what they send is kept, if anywhere.
    pub cache: Option<PathBuf>,
    /// Whose that is, where it is not memtap's own user's.
    pub owner: Option<Owner>,
    /// How long an answer may take to begin.
    pub timeout: Duration,
    /// How long it may take altogether.
    pub max_time: Duration,
    /// How large it may be.
    pub max_bytes: u64,
    /// Do not say what is fetched.
    pub quiet: bool,
}

/// Settings of `record` and of `live`.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Record {
    /// Whom to trace.
    pub target: Target,
    /// Take in the children of traced processes.
    pub follow: bool,
    /// Stop after this long.
    pub duration: Option<Duration>,
    /// Profiles to write.
    pub outputs: Vec<Output>,
    /// Where to write the summary.
    pub summary: Option<PathBuf>,
    /// Where to write the stacks as addresses, for comparison with other walkers.
    pub raw: Option<PathBuf>,
    /// What the table weighs stacks by.
    pub metric: Metric,
    /// Trace calls to allocators.
    pub heap: bool,
    /// Allocators that are not known by themselves.
    pub functions: UserSymbols,
    /// Follow blocks until they are given back.
    pub live: bool,
    /// Where calls are met whose blocks are followed.
    pub probing: Probing,
    /// Report what is still allocated.
    pub live_report: Option<Live>,
    /// Trace system calls that change the address space.
    pub region: bool,
    /// Tell processes of the same name apart.
    pub per_pid: bool,
    /// The smallest size that is followed, if there is a limit.
    pub min_size: Option<u64>,
    /// The largest size that is followed, if there is a limit.
    pub max_size: Option<u64>,
    /// Fail if anything was lost.
    pub strict: bool,
    /// Say nothing but errors.
    pub quiet: bool,
    /// Stacks in the table.
    pub top: usize,
    /// Which allocations are followed.
    pub sample: Sample,
    /// Makes random numbers the same each time.
    pub seed: Option<u64>,
    /// What tracing may cost the targets: percent of one CPU's time; nothing where it may cost what it costs.
    pub overhead_max_percent: Option<f64>,
    /// How stacks are walked.
    pub unwind: Unwind,
    /// Who is stopped while the tables of code that it has just loaded are made.
    pub stop_for_code: StopForCode,
    /// What uprobes are made of.
    pub attach: AttachBy,
    /// How large the kernel side's maps may grow.
    pub limits: Limits,
    /// Where names are looked for.
    pub symbols: Symbols,
}

/// The allocators and functions that the user names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserSymbols {
    /// Prefixes of allocators whose functions are otherwise named as those of C.
    pub prefixes: Vec<String>,
    /// Functions.
    pub functions: Vec<UserSymbol>,
}

/// A function that the user names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSymbol {
    /// The file, by a path or by its name; `None` for any.
    pub file: Option<PathBuf>,
    /// The function.
    pub place: SymbolOrOffset,
    /// The name of the known function that it is like.
    pub signature: String,
}

/// A function's place, by a symbol or an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SymbolOrOffset {
    /// At a symbol.
    Symbol(String),
    /// At an offset in the file.
    Offset(u64),
}

impl UserSymbol {
    /// The name of the function in reports.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.place {
            SymbolOrOffset::Symbol(symbol) => symbol.clone(),
            SymbolOrOffset::Offset(offset) => format!("{offset:#x}"),
        }
    }

    /// Returns true if it is to be looked for in this file.
    pub(crate) fn may_be_in(&self, file: &Path) -> bool {
        self.file.as_ref().is_none_or(|wanted| {
            let is_name = wanted.parent() == Some(Path::new(""));
            if is_name {
                file.file_name() == Some(wanted.as_os_str())
            } else {
                file == wanted
            }
        })
    }
}
