//! Settings as plain values, free of the command line they came from.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The processes to trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// These processes.
    Pids(Vec<u32>),
    /// Every process of the machine.
    All,
    /// Every process of this name, those that get it later too.
    Comm(OsString),
    /// Every process of this cgroup and of those below it, those that come later too. The path is
    /// absolute, or relative to the root of the hierarchy.
    Cgroup(PathBuf),
    /// A command, from its first instruction.
    Command(Vec<OsString>),
}

/// The processes that may be stopped for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopPolicy {
    /// None.
    Never,
    /// Those whose stop is not noticed: with one thread, no debugger, their parent's process group,
    /// and a parent that is no shell with jobs.
    Unseen,
    /// All.
    Always,
}

/// The unwinder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unwind {
    /// Unwind tables, and frame pointers in code without one.
    Auto,
    /// Unwind tables alone.
    Dwarf,
    /// Frame pointers alone.
    FramePointer,
}

impl Unwind {
    /// Returns the name on the command line and in the summary.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Dwarf => "dwarf",
            Self::FramePointer => "fp",
        }
    }
}

/// The probes of calls whose blocks are tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probing {
    /// One inside the function, where the size and the result are known, if every call is proven to
    /// pass there; else one at the entry and one at the return.
    Auto,
    /// As `Auto`, and an error if no function can be probed inside.
    One,
    /// One at the entry and one at the return.
    Two,
}

/// The choice of allocations to trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sample {
    /// Every one.
    Every,
    /// A sample: one per this many bytes on average, 2 to 1 GiB.
    Bytes(u64),
    /// A sample as large as the budget permits.
    Auto,
}

/// The places where debug information is searched, beside the usual ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SymbolSettings {
    /// Absolute paths of directories that are searched before the usual ones.
    pub debug_directories: Vec<PathBuf>,
    /// The debuginfod servers, where they may be asked.
    pub debuginfod: Option<Debuginfod>,
}

/// Settings of the debuginfod client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Debuginfod {
    /// The servers' URLs, in the order in which they are asked.
    pub servers: Vec<String>,
    /// The directory of the cache, where there is one.
    pub cache: Option<PathBuf>,
    /// The owner of the cache, where that is not the user that memtap runs as.
    pub owner: Option<Owner>,
    /// The longest time until an answer begins.
    pub timeout: Duration,
    /// The longest time of a whole download.
    pub max_time: Duration,
    /// The largest download.
    pub max_bytes: u64,
    /// Print no message for a download.
    pub quiet: bool,
}

/// Allocators and functions that the user names, beside those that are known.
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
    /// The file that it is in: a path, or a file's name; nothing for any.
    pub file: Option<PathBuf>,
    /// Its place in the file.
    pub place: SymbolOrOffset,
    /// The name of the known function whose signature it has.
    pub signature: &'static str,
}

/// The place of a function that the user names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SymbolOrOffset {
    /// A symbol.
    Symbol(String),
    /// An offset in the file.
    Offset(u64),
}

impl UserSymbol {
    /// Returns the name in reports.
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

/// The user that files are written for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The user ID.
    pub uid: u32,
    /// The group ID.
    pub gid: u32,
    /// The IDs of all the user's groups.
    pub groups: Vec<u32>,
}

/// The kernel's interface that uprobes are attached by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AttachBy {
    /// `uprobe_multi` links, or perf events where the kernel has none.
    #[default]
    Auto,
    /// `uprobe_multi` links.
    Multi,
    /// A perf event for each uprobe.
    Perf,
}

/// The sizes of the kernel side's maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the table of sums: distinct (process, stack, function).
    pub stacks: u32,
    /// Blocks that are tracked at once.
    pub blocks: u32,
    /// Processes that are traced at once.
    pub processes: u32,
    /// Bytes of the ring of new stacks and processes; a power of two of at least a page.
    pub ring_bytes: u32,
    /// Bytes of the ring of copied stacks whose walks are deferred; likewise.
    pub copy_ring_bytes: u32,
    /// Bytes of the arrays of unwind tables.
    pub unwind_bytes: u64,
}

impl Limits {
    /// Room for some 400 copied stacks: the allocations of a program while user space compiles the
    /// unwind table of a file that has just been loaded.
    pub const COPY_RING_BYTES: u32 = 8 << 20;

    /// The most stacks that may be copied. Each takes an entry of the table of sums, most of which
    /// is kept for stacks that were walked in the kernel.
    #[must_use]
    pub const fn copies(&self) -> u32 {
        self.stacks / 4
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stacks: 65_536,
            blocks: 1 << 20,
            processes: 16_384,
            ring_bytes: 4 << 20,
            copy_ring_bytes: Self::COPY_RING_BYTES,
            unwind_bytes: 8 << 20,
        }
    }
}

/// The processes that get probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probed {
    /// Targets and their descendants.
    Tree,
    /// Every process that maps the same files.
    Machine,
}

/// Settings of a recording.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub(crate) struct Record {
    /// The target.
    pub target: Target,
    /// Trace the children of traced processes.
    pub follow: bool,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Trace calls to allocators.
    pub heap: bool,
    /// Allocators and functions that the user names.
    pub functions: UserSymbols,
    /// Track blocks until they are freed.
    pub live: bool,
    /// The probes of calls whose blocks are tracked.
    pub probing: Probing,
    /// Keep the ages of live blocks and the heap's history.
    pub ages: bool,
    /// The age from which on a live block counts as old.
    pub older_than: Option<Duration>,
    /// Trace system calls that change the address space.
    pub region: bool,
    /// The smallest size that is traced, where there is a limit.
    pub min_size: Option<u64>,
    /// The largest size that is traced, where there is a limit.
    pub max_size: Option<u64>,
    /// The choice of allocations.
    pub sample: Sample,
    /// A seed that makes the random numbers of the sampler reproducible.
    pub seed: Option<u64>,
    /// The budget: percent of one CPU's time that tracing may cost the targets.
    pub overhead_max_percent: Option<f64>,
    /// The unwinder.
    pub unwind: Unwind,
    /// The processes that are stopped while unwind tables of newly loaded code are compiled. Stacks
    /// of others' calls are copied meanwhile, as far as there is room.
    pub stop_for_code: StopPolicy,
    /// The processes that get probes.
    pub probed: Probed,
    /// The children that are stopped at their beginning until they have probes of their own.
    pub stop_children: StopPolicy,
    /// The interface that uprobes are attached by.
    pub attach: AttachBy,
    /// The sizes of the kernel side's maps.
    pub limits: Limits,
    /// The places where debug information is searched.
    pub symbols: SymbolSettings,
}
