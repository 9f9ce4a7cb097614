//! The programs that measure what a walk costs. Behind the feature `bench`: the product's object
//! has none of them.

use std::ffi::CString;
use std::num::NonZeroU32;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya::maps::{MapData, StackTraceMap};
use tracer_ebpf::bench::WalkCounts;

use super::compat::loader::LinkKind;
use super::compat::perf;
use super::error::BpfError;
use super::links::{AttachError, Attached};
use super::object::Object;

/// What is done at each hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walker {
    /// Nothing.
    Empty,
    /// The kernel's walk by frame pointers, kept in its table of stacks (`bpf_get_stackid`).
    KernelKept,
    /// The kernel's walk by frame pointers, into memory (`bpf_get_stack`).
    Kernel,
    /// memtap's walk, of a stack that it does not know.
    Fresh,
    /// memtap's walk, of the stack that it has walked last.
    Remembered,
}

impl Walker {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Empty,
        Self::KernelKept,
        Self::Kernel,
        Self::Fresh,
        Self::Remembered,
    ];

    /// Its name, which is also the end of its program's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::KernelKept => "stackid",
            Self::Kernel => "stack",
            Self::Fresh => "fresh",
            Self::Remembered => "remembered",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Empty => "bench_empty",
            Self::KernelKept => "bench_stackid",
            Self::Kernel => "bench_stack",
            Self::Fresh => "bench_fresh",
            Self::Remembered => "bench_remembered",
        }
    }
}

/// Loads a walker's program and attaches it in one process.
pub fn attach_walker(
    object: &mut Object,
    walker: Walker,
    file: &Path,
    offset: u64,
    pid: NonZeroU32,
) -> Result<Attached, AttachError> {
    let name = walker.program();
    object.loaded.load(name, LinkKind::UprobeEvent)?;
    let program = object.program(name)?;
    let link = CString::new(file.as_os_str().as_bytes())
        .map_err(std::io::Error::other)
        .and_then(|path| perf::link_uprobe(program, &path, offset, 0, pid.get()));
    link.map(Attached::of_event)
        .map_err(|source| AttachError::Uprobe {
            path: file.display().to_string(),
            offset,
            source: Box::new(source),
        })
}

/// The counts of walks, over all CPUs.
pub fn walk_counts(object: &Object) -> Result<WalkCounts, BpfError> {
    let map = object.per_cpu_array::<WalkCounts>("WALKS")?;
    let mut sum = WalkCounts::default();
    for counts in map
        .get(&0, 0)
        .map_err(|error| BpfError::map("WALKS", error))?
        .iter()
    {
        sum.hits += counts.hits;
        sum.frames += counts.frames;
        sum.failed += counts.failed;
    }
    Ok(sum)
}

/// The number of frames of each stack in the kernel's table.
pub fn kernel_stack_lengths(object: &Object) -> Result<Vec<usize>, BpfError> {
    let failed = |error| BpfError::map("KERNEL_STACKS", error);
    let stacks = StackTraceMap::<&MapData>::try_from(object.map("KERNEL_STACKS")?).map_err(failed)?;
    let lengths = stacks
        .iter()
        .map(|entry| Ok(entry.map_err(failed)?.1.frames().len()));
    lengths.collect()
}
