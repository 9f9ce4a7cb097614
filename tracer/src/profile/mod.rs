//! A profile: stacks × values, free of formats. Exporters read it; nothing in it knows where it
//! came from.

mod addresses;
pub(crate) mod cost;
mod live;
mod losses;
mod metric;
mod objects;
pub(crate) mod session;
pub(crate) mod text;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracer_ebpf::{BUCKETS, Function, StackEnd};

pub(crate) use addresses::{AddressStack, AddressStacks};
pub(crate) use live::{Aged, Marks};
pub(crate) use losses::Losses;
pub(crate) use metric::Metric;
pub(crate) use objects::ObjectFile;
pub(crate) use session::Session;

/// The stacks of all processes, with their figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    /// The processes; [`Stack::process`] is an index into it.
    pub processes: Vec<ProfiledProcess>,
    /// The frames; [`Stack::frames`] holds indices into it.
    pub frames: Vec<Frame>,
    /// The stacks, in no particular order. Two can be equal in every name: exporters merge what
    /// they cannot tell apart.
    pub stacks: Vec<Stack>,
    /// The files that frames are in, each once.
    pub objects: Vec<ObjectFile>,
    /// The heap of all processes, where blocks were tracked.
    pub held: Option<HeapTotals>,
    /// The variances of sums over several stacks, where stacks were seen in windows of time and
    /// vary together.
    pub together: Vec<GroupVariance>,
    /// True if [`HeapValues::aged`] has figures.
    pub has_ages: bool,
    /// The mean distance of sample points in bytes, where allocations were sampled: figures of the
    /// heap are estimates then, and [`Variances`] say how sure they are. Nothing where every one
    /// was followed.
    pub sample_bytes: Option<u64>,
    /// The times that [`Aged::marks_bytes`] belong to; nothing where the recording was too short
    /// for them.
    pub marks: Option<Marks>,
}

/// The variance of a sum over several stacks that vary together: a lower bound, whatever the
/// variances of the stacks add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct GroupVariance {
    /// The stacks of this process, an index into [`Profile::processes`]; of all where there is
    /// none.
    pub process: Option<usize>,
    /// The stacks of this function; of all where there is none.
    #[serde(with = "text::optional_function")]
    pub function: Option<Function>,
    /// The variance of the calls.
    pub calls_variance: u128,
    /// The variance of the bytes, in bytes².
    pub bytes_variance: u128,
}

/// The heap of a process, or of all processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct HeapTotals {
    /// Bytes that are live at the end; of a process that has ended, at its end.
    pub live_bytes: u64,
    /// Live blocks.
    pub live: u64,
    /// The most bytes that were live at once.
    pub peak_bytes: u64,
    /// The number of blocks at that time.
    pub peak: u64,
    /// Bytes in the snapshot of all stacks that came nearest to it; of all processes together
    /// alone.
    pub peak_by_stack_bytes: Option<u64>,
    /// Calls of `free`.
    pub free_calls: u64,
    /// Blocks freed that are not known: allocated before tracing began.
    pub unmatched: u64,
    /// Blocks whose address was allocated again though no free of it was seen.
    pub missed: u64,
    /// The variances, where figures are estimates.
    pub variances: HeapVariances,
}

/// The variances of [`HeapTotals`]. Blocks that a forked child has copies of count for each as if
/// they were others: where several processes are taken together that have them, their figures are
/// less sure than this says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct HeapVariances {
    /// The variance of [`HeapTotals::live`].
    pub live: u128,
    /// The variance of [`HeapTotals::live_bytes`], in bytes².
    pub live_bytes: u128,
    /// The variance of [`HeapTotals::peak`].
    pub peak: u128,
    /// The variance of [`HeapTotals::peak_bytes`], in bytes².
    pub peak_bytes: u128,
}

/// A process image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ProfiledProcess {
    /// The process id, as the machine's first pid namespace counts; 0 where it is not known.
    pub pid: u32,
    /// The process id that the process itself sees, in its own pid namespace, where that is known.
    pub inner_pid: Option<u32>,
    /// The name (`comm`), at most 15 bytes.
    pub comm: String,
    /// The executable, where it could be told.
    #[serde(with = "text::optional_path")]
    pub exe: Option<PathBuf>,
    /// True if it had ended before the report.
    pub exited: bool,
    /// Its heap, where blocks were tracked.
    pub held: Option<HeapTotals>,
    /// Its hits of probes in allocators.
    pub hits: u64,
}

/// A place in a program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Frame {
    /// Its name.
    pub name: FrameName,
    /// Source file and line, where there is debug information.
    pub source: Option<SourceLine>,
    /// True if it was inlined into the frame outside it.
    pub inlined: bool,
    /// The program or library that it is in, an index into [`Profile::objects`]; nothing for code
    /// outside files.
    pub object: Option<usize>,
}

/// The name of a frame.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FrameName {
    /// A function, demangled.
    Symbol(Arc<str>),
    /// A place in a file that has no symbol for it: the file's base name, and the address that the
    /// file itself uses (what `addr2line -e` takes).
    Offset {
        /// The file's base name.
        module: Arc<str>,
        /// The virtual address inside the file.
        address: u64,
    },
    /// Code that was compiled at run time, and that its compiler did not name.
    Compiled,
    /// An address that belongs to no known mapping.
    Unmapped(u64),
}

/// A line of source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct SourceLine {
    /// The file, as the debug information names it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
}

/// A stack of one process, and its figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stack {
    /// An index into [`Profile::processes`].
    pub process: usize,
    /// The function that was called: the innermost frame, not among `frames`.
    pub function: Function,
    /// Indices into [`Profile::frames`], from the outermost to the innermost caller.
    pub frames: Vec<usize>,
    /// The end of this stack's walk; nothing where the stack itself was lost.
    pub end: Option<StackEnd>,
    /// The figures.
    pub values: Values,
}

/// The figures of one stack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Values {
    /// Calls, failed ones too.
    pub calls: u64,
    /// Bytes allocated or mapped; for `munmap` bytes unmapped.
    pub bytes: u64,
    /// Bytes freed by the same call (`mremap`'s old size, what `brk` shrank by).
    pub bytes_out: u64,
    /// Calls that returned an error.
    pub failed: u64,
    /// The blocks, where they were tracked.
    pub heap: HeapValues,
    /// The variances of the figures.
    pub variances: Variances,
}

/// The variances of figures where allocations were sampled, else zero. Those of different
/// allocations are independent: variances of sums are sums of variances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Variances {
    /// The variance of [`Values::calls`].
    pub calls: u128,
    /// The variance of [`Values::bytes`], in bytes².
    pub bytes: u128,
    /// The variance of [`HeapValues::blocks`].
    pub blocks: u128,
    /// The variance of [`HeapValues::freed`].
    pub freed: u128,
    /// The variance of [`HeapValues::freed_bytes`], in bytes².
    pub freed_bytes: u128,
    /// The variance of [`HeapValues::temporary`].
    pub temporary: u128,
    /// The variance of [`HeapValues::untracked`].
    pub untracked: u128,
    /// The variance of [`HeapValues::untracked_bytes`], in bytes².
    pub untracked_bytes: u128,
}

impl Variances {
    /// Adds those of other figures.
    pub(crate) fn add(&mut self, other: &Self) {
        let sums = [
            (&mut self.calls, other.calls),
            (&mut self.bytes, other.bytes),
            (&mut self.blocks, other.blocks),
            (&mut self.freed, other.freed),
            (&mut self.freed_bytes, other.freed_bytes),
            (&mut self.temporary, other.temporary),
            (&mut self.untracked, other.untracked),
            (&mut self.untracked_bytes, other.untracked_bytes),
        ];
        for (sum, more) in sums {
            *sum = sum.saturating_add(more);
        }
    }

    /// Returns the variance of [`Values::live`]: a block that was freed or is not tracked has no
    /// part in it.
    #[must_use]
    pub(crate) const fn live(&self) -> u128 {
        self.blocks
            .saturating_sub(self.freed.saturating_add(self.untracked))
    }

    /// Returns the variance of [`Values::live_bytes`], in bytes².
    #[must_use]
    pub(crate) const fn live_bytes(&self) -> u128 {
        self.bytes
            .saturating_sub(self.freed_bytes.saturating_add(self.untracked_bytes))
    }
}

/// The blocks that one stack allocated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HeapValues {
    /// Blocks that were allocated.
    pub blocks: u64,
    /// Blocks that were freed.
    pub freed: u64,
    /// The bytes of freed blocks.
    pub freed_bytes: u64,
    /// The temporary blocks: freed by their thread's next call of the allocator.
    pub temporary: u64,
    /// Bytes that all blocks had room for, where the allocator tells.
    pub usable_bytes: u64,
    /// Blocks that could not be tracked.
    pub untracked: u64,
    /// The bytes of blocks that could not be tracked.
    pub untracked_bytes: u64,
    /// Bytes that were live when the most of all processes' were, as near as snapshots tell.
    pub peak_bytes: u64,
    /// Blocks by size: bucket `i` has those of at least 2^i bytes and less than twice that; bucket
    /// 0 also empty ones.
    pub sizes: [u32; BUCKETS],
    /// Blocks that were freed by lifetime: bucket `i` has those of at least 2^i microseconds;
    /// bucket 0 also shorter ones.
    pub lifetimes: [u32; BUCKETS],
    /// The live blocks with their ages, where ages were asked for.
    pub aged: Aged,
}

impl Values {
    /// Bytes that are still allocated. Blocks that a child has from its parent are the parent's.
    #[must_use]
    pub(crate) const fn live_bytes(&self) -> u64 {
        let gone = self.heap.freed_bytes.saturating_add(self.heap.untracked_bytes);
        self.bytes.saturating_sub(gone)
    }

    /// Blocks that are still allocated.
    #[must_use]
    pub(crate) const fn live(&self) -> u64 {
        let gone = self.heap.freed.saturating_add(self.heap.untracked);
        self.heap.blocks.saturating_sub(gone)
    }
}
