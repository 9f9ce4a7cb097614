//! Keys and values of the live heap: calls that have not returned, blocks that are allocated, what
//! each stack and each process holds.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Sum, SumKey};

/// A call of an allocator that has not returned, by its place: a thread may be in several, in
/// signal handlers, and may leave one by a jump; each is at a stack position of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CallKey {
    /// The stack pointer at the function's first instruction.
    pub stack_pointer: u64,
    /// The thread.
    pub thread: u32,
    /// Unused; zero, since it is part of the key.
    pub reserved: u32,
}

/// What the return of a call must know of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PendingCall {
    /// Whose the block is going to be.
    pub key: SumKey,
    /// Bytes asked for.
    pub bytes: u64,
    /// The return address. Where blocks are followed, a hit at the same place that returns
    /// elsewhere is this call, passed on by a tail call: its return address is the kernel's by
    /// then.
    pub return_address: u64,
    /// The address of the probe that began it. A call that failed before its tail call leaves its
    /// entry behind, and the next hit of the same probe there is a call of its own.
    pub probe: u64,
    /// The address that `posix_memalign` writes its result to.
    pub out: u64,
    /// The block that is to be resized, or 0.
    pub old_address: u64,
    /// What it was; it is out of the table of blocks meanwhile.
    pub old: Block,
    /// [`Self::OLD_TAKEN`] and the other flags.
    pub flags: u32,
    /// What the call stands for; 0: it is not sampled, and only what it does to `old` counts.
    pub weight: u32,
}

impl PendingCall {
    /// `old` was a live block.
    pub const OLD_TAKEN: u32 = 1;
    /// That block was the last that its thread had allocated.
    pub const OLD_WAS_LAST: u32 = 2;
    /// The product that was asked for overflows: the call fails.
    pub const OVERFLOWS: u32 = 16;
    /// The allocator tells a block's usable size as glibc does.
    pub const GLIBC_CHUNKS: u32 = crate::ProbeSpec::GLIBC_CHUNKS;
    /// It is no call of the program's, and may go on by a jump: what is hit then is none either.
    pub const NESTED: u32 = 128;
    /// The function returns a status.
    pub const RETURNS_STATUS: u32 = crate::ProbeSpec::RETURNS_STATUS;
    /// The function returns its block's size.
    pub const RETURNS_SIZE: u32 = crate::ProbeSpec::RETURNS_SIZE;
    /// A call that fails gives the block back all the same.
    pub const FREES_ON_FAILURE: u32 = crate::ProbeSpec::FREES_ON_FAILURE;
}

/// The last calls of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LastCall {
    /// The block that its last call has allocated, until its next call.
    pub block: u64,
    /// The block that its last call of a function that may tail-call another gives back; 0: none.
    pub freed: u64,
    /// The stack pointer at that function's first instruction.
    pub stack_pointer: u64,
    /// Its return address.
    pub return_address: u64,
    /// The address of its probe.
    pub probe: u64,
}

/// A block: whose, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BlockKey {
    /// Its address.
    pub address: u64,
    /// The number of the process image.
    pub process: u32,
    /// Unused; zero, since it is part of the key.
    pub reserved: u32,
}

/// An allocated block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Block {
    /// The stack that allocated it, as in [`SumKey::stack`].
    pub stack: u64,
    /// Bytes asked for.
    pub bytes: u64,
    /// When it was allocated: nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// What it stands for.
    pub weight: u32,
    /// The [`Function`](crate::Function) that allocated it.
    pub function: u16,
    /// 1: a block inherited from the parent, which this process has given back.
    pub is_gone: u16,
}

/// Buckets of the histograms of sizes and lifetimes: powers of two, the last one open.
pub const BUCKETS: usize = 32;

/// What one (process, stack, function) allocated, and what became of it. With sampling, estimates,
/// as in [`Sum`]; the units of variances are the same too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HeapSum {
    /// The calls; [`Sum::bytes`] are those of calls that succeeded.
    pub sum: Sum,
    /// Blocks that were allocated.
    pub blocks: u64,
    /// Blocks that were given back.
    pub freed: u64,
    /// Their bytes.
    pub freed_bytes: u64,
    /// Those of them that were given back by their thread's next call of the allocator.
    pub temporary: u64,
    /// Bytes that the allocated blocks have room for, where the allocator tells.
    pub usable_bytes: u64,
    /// Blocks that had no room in the table of blocks, or whose address is not known, since their
    /// function may throw and has no probe at its return: they are in no figure of what is live.
    pub untracked: u64,
    /// Their bytes.
    pub untracked_bytes: u64,
    /// The variance of `blocks`.
    pub blocks_variance: u64,
    /// That part of it which is of blocks that were given back: what is left is the variance of
    /// those that are live.
    pub freed_variance: u64,
    /// Likewise of [`Sum::bytes_variance`].
    pub freed_bytes_variance: u64,
    /// The variance of `temporary`.
    pub temporary_variance: u64,
    /// That part of `blocks_variance` which is of blocks that are not followed.
    pub untracked_variance: u64,
    /// Likewise of [`Sum::bytes_variance`].
    pub untracked_bytes_variance: u64,
    /// Blocks by size: bucket `i` has those of at least 2^i bytes and less than twice that; bucket
    /// 0 also empty ones.
    pub sizes: [u32; BUCKETS],
    /// Blocks that were given back by lifetime: bucket `i` has those of at least 2^i microseconds;
    /// bucket 0 also shorter ones.
    pub lifetimes: [u32; BUCKETS],
}

/// The totals of one process, or of the machine. With sampling, figures of what is live are
/// estimates; `free` is counted as it is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ProcessTotals {
    /// Bytes of live blocks, as asked for: a [`LiveWord`](crate::LiveWord).
    pub live_bytes: u64,
    /// Live blocks, likewise.
    pub live: u64,
    /// The most bytes that were live at once.
    pub peak_bytes: u64,
    /// How many blocks that was.
    pub peak: u64,
    /// The variance of `live`.
    pub live_variance: u64,
    /// The variance of `live_bytes`, in the unit of
    /// [`BpfSettings::variance_shift`](crate::BpfSettings::variance_shift).
    pub live_bytes_variance: u64,
    /// The variance of `peak`.
    pub peak_variance: u64,
    /// The variance of `peak_bytes`.
    pub peak_bytes_variance: u64,
    /// Calls of `free`: those that the process's word of [`ProcessCounts`](crate::ProcessCounts)
    /// could not take.
    pub free_calls: u64,
    /// Those of blocks that are not known: allocated before tracing began, or lost. 0 with
    /// sampling, where most are not known.
    pub unmatched: u64,
    /// Blocks whose address was allocated again though no free of it had been seen.
    pub missed: u64,
    /// When this process was forked; 0 for one that was not, or has executed a program since.
    pub forked_ns: u64,
    /// The number of the process that it was forked from, whose blocks it has copies of; 0: none.
    pub parent: u32,
    /// The number of its last child that may have copies of its blocks; 0: none.
    pub child: u32,
    /// The number of its parent's child before it; 0: none.
    pub sibling: u32,
    /// 1 once the process has ended, or executed another program: its figures stand as they were
    /// then.
    pub is_over: u32,
}
