//! A profile: stacks × values, free of formats. Exporters read it; nothing in it knows where it came from.

use std::path::PathBuf;
use std::sync::Arc;

use tracer_ebpf::{Function, StackEnd};

/// What was measured: every stack of every process, with its figures.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// The processes; [`Stack::process`] is an index into it.
    pub processes: Vec<Process>,
    /// The frames; [`Stack::frames`] holds indices into it.
    pub frames: Vec<Frame>,
    /// The stacks, in no particular order. Two can be equal in every name: exporters merge what they cannot
    /// tell apart.
    pub stacks: Vec<Stack>,
}

/// A process image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The process id, as the machine's first pid namespace counts; 0 where it is not known.
    pub pid: u32,
    /// The name (`comm`), at most 15 bytes.
    pub comm: String,
    /// The executable, where it could be told.
    pub exe: Option<PathBuf>,
    /// Whether it had ended before the report.
    pub exited: bool,
}

/// A place in a program.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Frame {
    /// What is known of it.
    pub name: FrameName,
    /// Source file and line, where there is debug information.
    pub source: Option<Source>,
    /// Whether it was inlined into the frame outside it.
    pub inlined: bool,
}

/// What a frame is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FrameName {
    /// A function, demangled.
    Symbol(Arc<str>),
    /// A place in a file that has no symbol for it: the file's base name, and the address that the file
    /// itself uses (what `addr2line -e` takes).
    Offset {
        /// The file's base name.
        module: Arc<str>,
        /// The virtual address inside the file.
        address: u64,
    },
    /// An address that belongs to no known mapping.
    Unmapped(u64),
}

/// A line of source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// The file, as the debug information names it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
}

/// One stack of one process, and what it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// An index into [`Profile::processes`].
    pub process: usize,
    /// The function that was called: the innermost frame, not among `frames`.
    pub function: Function,
    /// Indices into [`Profile::frames`], from the outermost to the innermost caller.
    pub frames: Vec<usize>,
    /// How the walk of this stack ended; nothing where the stack itself was lost.
    pub end: Option<StackEnd>,
    /// The figures.
    pub values: Values,
}

/// The figures of one stack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Values {
    /// Calls, failed ones too.
    pub calls: u64,
    /// Bytes allocated or mapped; for `munmap` bytes unmapped.
    pub bytes: u64,
    /// Bytes given back by the same call (`mremap`'s old size, what `brk` shrank by).
    pub bytes_out: u64,
    /// Calls that returned an error.
    pub failed: u64,
}

/// What stacks are weighed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Bytes asked of allocators.
    AllocBytes,
    /// Calls to allocators.
    AllocCount,
    /// Bytes by which the address space grew: `mmap`, growth by `mremap` and by `brk`.
    RegionBytes,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 3] = [Self::AllocBytes, Self::AllocCount, Self::RegionBytes];

    /// The name on the command line and in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllocBytes => "alloc-bytes",
            Self::AllocCount => "alloc-count",
            Self::RegionBytes => "region-bytes",
        }
    }

    /// Whether the weight is a number of bytes.
    #[must_use]
    pub const fn is_bytes(self) -> bool {
        !matches!(self, Self::AllocCount)
    }

    /// The weight of a stack; nothing where the metric does not apply to its function.
    #[must_use]
    pub const fn weight(self, stack: &Stack) -> Option<u64> {
        let values = &stack.values;
        match (self, stack.function) {
            (Self::AllocBytes, function) if function.is_heap() => Some(values.bytes),
            (Self::AllocCount, function) if function.is_heap() => Some(values.calls),
            (Self::RegionBytes, Function::Mmap | Function::Brk) => Some(values.bytes),
            (Self::RegionBytes, Function::Mremap) => Some(values.bytes.saturating_sub(values.bytes_out)),
            _ => None,
        }
    }
}
