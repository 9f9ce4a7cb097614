//! Types and constants that cross the boundary between the kernel and user space.

#[cfg(feature = "bench")]
pub mod bench;
mod bpf_settings;
mod capture_mode;
mod codes;
mod comm;
mod function;
mod heap;
pub mod identity;
mod probe_scope;
mod probe_spec;
mod records;
pub mod sampling;
mod shards;
mod stop_watchers;
pub mod unwind;
mod values;

pub use bpf_settings::{BpfSettings, KernelOffsets, StopOffsets};
pub use capture_mode::CaptureMode;
pub use codes::{Counter, Loss, StackEnd};
pub use comm::{Comm, comm_of, is_same_comm};
pub use function::Function;
pub use heap::{BUCKETS, Block, BlockKey, CallKey, HeapSum, LastCall, PendingCall, ProcessTotals};
pub use probe_scope::ProbeScope;
pub use probe_spec::{Operand, Operands, ProbeSpec};
pub use records::{
    CopyHeader, CopyRecord, FileRecord, ProcessRecord, ProcessStopRecord, RecordKind, StackRecord,
    StackRecordHeader,
};
pub use shards::{CountWord, CountsRecord, LiveWord, PROCESS_WORDS, ProcessCounts, SEVERAL_PROCESSES};
pub use stop_watchers::{
    SIGCHLD, SIGCONT, WAITS_FOR_STOPS, has_signal, is_stop_watcher, takes_later, takes_more_child_signals,
};
pub use values::{
    CodeRange, FileKey, FileTable, HitCounts, PendingRegion, Process, Sampler, Segment, Sum, SumKey,
};

/// The most frames that the kernel side keeps of one stack: the kernel's own limit
/// (`PERF_MAX_STACK_DEPTH`) and the depth that other tools show, so that stacks compare.
pub const MAX_FRAMES: usize = 127;

/// Ranges of code that one site has room for: the C and C++ functions of one library fit. A power
/// of two.
pub const MAX_CODE_RANGES: usize = 32;

/// Scratch slots of each CPU. A uprobe program can be preempted by another task's on the same CPU,
/// so one slot is not enough; four were seen to run out with eight threads on one CPU, sixteen were
/// not.
pub const SCRATCH_SLOTS: u32 = 16;

/// The bytes of user stack that one bulk copy takes at the most: a page, so that a copy that ends
/// at a page's end never faults on the page after it.
pub const WINDOW_BYTES: usize = 4096;

/// The pages of stack that a [`CopyRecord`] has room for: at least 16 KiB above the frame that it
/// begins in.
pub const COPY_PAGES: usize = 5;

/// Executable segments that one file may have: linkers make one, hand-made files a few.
pub const MAX_SEGMENTS: usize = 4;

/// Probes that there is room for in one recording, those inside functions too.
pub const MAX_SPECS: u32 = 4096;

/// Functions that there is room for: probes of one recording, those of some dozen allocators, each
/// with all its functions. A power of two.
pub const MAX_SITES: usize = 2048;

/// Counters of pending calls: threads whose ids have the same lowest bits share one. A power of
/// two.
pub const OPEN_CALLS_LEN: u32 = 1024;

/// [`SumKey::stack`] of a call that was counted without a walk: see [`CaptureMode::Unwalked`].
pub const STACK_UNWALKED: u64 = 1;

/// [`SumKey::stack`] of an event whose stack could not be kept; which loss it was is counted apart.
pub const STACK_LOST: u64 = 0;

/// [`SumKey::process`] of an event whose process could not be told apart, since the table of
/// processes is full.
pub const PROCESS_UNKNOWN: u32 = 0;

/// The first process number that the kernel side gives out; those below are the loader's to give.
pub const FIRST_KERNEL_PROCESS: u32 = 1 << 24;
