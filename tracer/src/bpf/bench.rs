//! The programs that measure what a walk costs. Behind the feature `bench`: the product's object
//! has none of them.

use std::num::NonZeroU32;
use std::path::Path;

use aya::maps::{MapData, PerCpuArray, StackTraceMap};
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope};
use tracer_ebpf::bench::WalkCounts;

use super::error::BpfError;
use super::links::AttachError;
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

    fn program(self) -> String {
        format!("bench_{}", self.name())
    }
}

impl Object {
    /// Loads a walker's program and attaches it in one process, for as long as the object lives.
    pub fn attach_walker(
        &mut self,
        walker: Walker,
        file: &Path,
        offset: u64,
        pid: NonZeroU32,
    ) -> Result<(), AttachError> {
        let name = walker.program();
        self.load_uprobe(&name)?;
        let point = UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(offset),
            cookie: None,
        };
        let attached = self
            .uprobe(&name)?
            .attach(point, file, UProbeScope::OneProcess(pid));
        attached.map(drop).map_err(|source| AttachError::Uprobe {
            path: file.display().to_string(),
            offset,
            source: Box::new(source),
        })
    }

    /// What the walks came to, over all CPUs.
    pub fn walk_counts(&mut self) -> Result<WalkCounts, BpfError> {
        let map = PerCpuArray::<&mut MapData, WalkCounts>::try_from(self.map_mut("WALKS")?)
            .map_err(walks_failed)?;
        let mut sum = WalkCounts::default();
        for counts in map.get(&0, 0).map_err(walks_failed)?.iter() {
            sum.hits += counts.hits;
            sum.frames += counts.frames;
            sum.failed += counts.failed;
        }
        Ok(sum)
    }

    /// The number of frames of each stack in the kernel's table.
    pub fn kernel_stack_lengths(&mut self) -> Result<Vec<usize>, BpfError> {
        let failed = |error| BpfError::map("KERNEL_STACKS", error);
        let stacks =
            StackTraceMap::<&mut MapData>::try_from(self.map_mut("KERNEL_STACKS")?).map_err(failed)?;
        let lengths = stacks
            .iter()
            .map(|entry| Ok(entry.map_err(failed)?.1.frames().len()));
        lengths.collect()
    }
}

fn walks_failed(error: aya::maps::MapError) -> BpfError {
    BpfError::map("WALKS", error)
}
