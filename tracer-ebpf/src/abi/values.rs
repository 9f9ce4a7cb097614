//! Keys and values of the maps.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    BUCKETS, Block, BlockKey, CallKey, HeapSum, LastCall, MAX_CODE_RANGES, MAX_SEGMENTS, MAX_SITES,
    PendingCall, ProbeSpec, ProcessTotals,
};

/// Asserts the sizes of types that maps hold, and makes them keys and values of maps on the host.
/// That each has neither padding nor a value that its bytes could not be is what its derives of
/// `zerocopy` prove.
macro_rules! map_types {
    ($($name:ty: $size:expr;)*) => { $(
        const _: () = assert!(size_of::<$name>() == $size);
        const _: () = {
            const fn is_plain<T: FromBytes + IntoBytes + Immutable>() {}
            is_plain::<$name>();
        };
        #[cfg(not(target_arch = "bpf"))]
        // SAFETY: any bytes are a valid value of the type, and none of its bytes is padding:
        // `is_plain` requires it.
        unsafe impl aya::Pod for $name {}
    )* };
}

pub(crate) use map_types;

map_types! {
    CallKey: 16;
    PendingCall: 96;
    BlockKey: 16;
    Block: 32;
    HeapSum: 64 + 13 * 8 + 2 * 4 * 32;
    ProcessTotals: 112;
    SumKey: 16;
    Sum: 64;
    Sampler: 24;
    CodeRange: 16;
    ProbeSpec: 64 + 16 * MAX_CODE_RANGES;
    Process: 16;
    HitCounts: 8 * (MAX_SITES + BUCKETS);
    PendingRegion: 48;
    LastCall: 40;
    FileKey: 24;
    Segment: 24;
    FileTable: 16 + 24 * MAX_SEGMENTS;
}

/// Whose sum: a process, a stack, a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SumKey {
    /// The stack's identity: a hash of its addresses and of how its walk ended, or
    /// [`STACK_LOST`](crate::STACK_LOST).
    pub stack: u64,
    /// The number of the process image: a process gets a new one when it executes another program.
    pub process: u32,
    /// A [`Function`](crate::Function)'s number.
    pub function: u32,
}

/// What one (process, stack, function) did. With sampling, estimates: each sampled call counts as
/// often as its weight says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sum {
    /// Calls, failed ones too.
    pub calls: u64,
    /// Bytes allocated or mapped; for `munmap` bytes unmapped.
    pub bytes: u64,
    /// Bytes given back by the same call: the old size of `mremap`, what `brk` shrank by.
    pub bytes_out: u64,
    /// Calls that returned an error; they add no bytes.
    pub failed: u64,
    /// 1 once the stack's record has been sent to user space.
    pub sent: u64,
    /// With sampling, the calls that were sampled; else 0, and `calls` is what was seen.
    pub hits: u64,
    /// The variance of `calls`: see [`sampling::count_variance`](crate::sampling::count_variance).
    pub calls_variance: u64,
    /// The variance of `bytes`, in the unit of
    /// [`BpfSettings::variance_shift`](crate::BpfSettings::variance_shift).
    pub bytes_variance: u64,
}

impl Sum {
    /// Nothing. A constant, since `Default` is not.
    pub const NOTHING: Self = Self {
        calls: 0,
        bytes: 0,
        bytes_out: 0,
        failed: 0,
        sent: 0,
        hits: 0,
        calls_variance: 0,
        bytes_variance: 0,
    };
}

/// What one CPU knows of the next sample point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sampler {
    /// Bytes up to it, a signed number: see [`sampling::Points`](crate::sampling::Points).
    pub distance: u64,
    /// The interval that the distance was drawn for.
    pub interval: u64,
    /// The state of the CPU's random numbers: see [`sampling::random`](crate::sampling::random).
    pub random: u64,
}

/// A range of code, as signed distances from the probed instruction: `start <= distance < end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CodeRange {
    /// First byte.
    pub start: i64,
    /// One past the last byte.
    pub end: i64,
}

/// A process that is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Process {
    /// The number of its present image, as in [`SumKey::process`].
    pub number: u32,
    /// What user space knows of it: one of the `ANNOUNCED_*` constants.
    pub announced: u32,
    /// Hits of probes in allocators by this image, whatever became of them: those that its word of
    /// [`ProcessCounts`](crate::ProcessCounts) could not take.
    pub hits: u64,
}

impl Process {
    /// User space knows nothing of it yet.
    pub const ANNOUNCED_NOT: u32 = 0;
    /// Its parent announced it, which does not know the child's number in its own namespace.
    pub const ANNOUNCED_BY_PARENT: u32 = 1;
    /// It was announced as it is.
    pub const ANNOUNCED: u32 = 2;
}

/// Hits of probes in allocators, by any process, whether or not calls are taken in: what they cost
/// is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HitCounts {
    /// By what the probe's cookie stands for.
    pub by_site: [u64; MAX_SITES],
    /// By the size that is asked for, where one is: class `i` has sizes of at least 2^i bytes and
    /// less than twice that; class 0 also empty ones.
    pub by_size: [u64; BUCKETS],
}

impl Default for HitCounts {
    fn default() -> Self {
        Self {
            by_site: [0; MAX_SITES],
            by_size: [0; BUCKETS],
        }
    }
}

/// A memory-map system call between its entry and its return, by thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PendingRegion {
    /// The stack at entry, as in [`SumKey::stack`].
    pub stack: u64,
    /// Bytes asked for; for `brk` the break asked for, or 0 to ask where it is.
    pub bytes: u64,
    /// Bytes that the call gives back if it succeeds; for `brk` the break before.
    pub bytes_out: u64,
    /// The number of the process.
    pub process: u32,
    /// A [`Function`](crate::Function)'s number.
    pub function: u32,
    /// Why `stack` is [`STACK_LOST`](crate::STACK_LOST), as a [`Loss`](crate::Loss)'s number plus
    /// one, or 0.
    pub loss: u32,
    /// Unused.
    pub reserved: u32,
    /// Unused.
    pub reserved2: u64,
}

/// A file, as both sides know it.
///
/// There is no device in it: what a mapping holds is the inode that has the data, and `stat` and
/// `/proc/PID/maps` show another device than that inode's where a file system lies over others
/// (overlayfs) or has several volumes (btrfs). These three are the same from `stat` and from the
/// inode, whatever has become of the file's name. Two files that agree in all of them have in
/// practice the same content: copies of one image, whose unwind tables are the same too.
///
/// overlayfs can show another inode number than that of the data: of a file that it has copied up,
/// or where it numbers the inodes of several file systems anew (`xino`). Such a file is known once
/// the kernel side has met it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FileKey {
    /// The inode's number.
    pub inode: u64,
    /// Its size.
    pub size_bytes: u64,
    /// When its content was changed last: seconds since 1970.
    pub modified_s: i64,
}

impl FileKey {
    /// The code that the kernel maps into every process, the vDSO, which is no file.
    pub const VDSO: Self = Self {
        inode: u64::MAX,
        size_bytes: 0,
        modified_s: 0,
    };
}

/// An executable segment of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Segment {
    /// First byte in the file, rounded down to a whole page: where its mapping begins.
    pub file_start: u64,
    /// One past its last byte in the file.
    pub file_end: u64,
    /// What is added to an offset in the file to get an address in the table.
    pub to_table: u64,
}

/// Where a file's unwind table lies in the arrays of pages and rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FileTable {
    /// Its first page.
    pub page_base: u32,
    /// How many; 0 for a file that has no table.
    pub page_count: u32,
    /// Segments in use.
    pub segments_len: u32,
    /// One of the `ROWS_*` constants.
    pub rows: u32,
    /// The executable segments.
    pub segments: [Segment; MAX_SEGMENTS],
}

impl FileTable {
    /// Rows of call sites, where there is a table, and no others to be had: behind a signal the
    /// walk may be wrong.
    pub const ROWS_OF_CALLS: u32 = 0;
    /// User space is at work on the table.
    pub const ROWS_AWAITED: u32 = 1;
    /// Rows of call sites; user space makes all rows when it finishes a walk behind a signal.
    pub const ROWS_OF_CALLS_YET: u32 = 2;
    /// All rows.
    pub const ROWS_ALL: u32 = 3;
}
