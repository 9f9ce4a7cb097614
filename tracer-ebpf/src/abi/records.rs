//! What the ring carries to user space: each stack once, each new process image once.

use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::{COPY_PAGES, MAX_FRAMES, WINDOW_BYTES};

/// The first word of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RecordKind {
    /// A [`StackRecord`], shortened to its frames.
    Stack = 1,
    /// A [`ProcessRecord`].
    Process = 2,
    /// A [`FileRecord`].
    File = 3,
    /// A [`CountsRecord`](crate::CountsRecord).
    Counts = 4,
    /// A [`ProcessStopRecord`] of a process without probes.
    Unprobed = 5,
    /// A [`ProcessStopRecord`] of a process that will see stops.
    StopWatcher = 6,
}

/// The part of a [`StackRecord`] before its frames.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StackRecordHeader {
    /// [`RecordKind::Stack`].
    pub kind: u32,
    /// How many frames follow.
    pub frames_len: u16,
    /// A [`StackEnd`](crate::StackEnd)'s number.
    pub end: u16,
    /// The stack's identity, as in [`SumKey::stack`](crate::SumKey::stack).
    pub hash: u64,
    /// When it was met first: nanoseconds of `CLOCK_MONOTONIC`. Says which mappings were in force.
    pub time_ns: u64,
    /// The number of the process that it was met in first.
    pub process: u32,
    /// Unused.
    pub reserved: u32,
}

/// A stack: code addresses from the innermost frame to the outermost. In a stack of an allocator
/// call all are return addresses, the first that of the immediate caller; in a stack of a system
/// call the first is the instruction after the call.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StackRecord {
    /// The part before the frames.
    pub header: StackRecordHeader,
    /// The frames; as many as the header says are sent. One more than can be used, so that an index
    /// masked to the next power of two stays inside.
    pub frames: [u64; MAX_FRAMES + 1],
}

/// A process image that the kernel side met first: a child of a traced process, a program executed,
/// a process seen first while the whole machine or a cgroup is traced. A child is told of again, by
/// itself, at its first event.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ProcessRecord {
    /// [`RecordKind::Process`].
    pub kind: u32,
    /// The process.
    pub tgid: u32,
    /// The number that keys use for this image; [`PROCESS_UNKNOWN`](crate::PROCESS_UNKNOWN) where
    /// the process has left the cgroup that is traced, and is followed no more.
    pub number: u32,
    /// The number of the image that it came from: the parent's for a fork, the one before for an
    /// exec, else 0.
    pub parent: u32,
    /// The name of the process when it was met, padded with zeros.
    pub comm: [u8; 16],
    /// When: nanoseconds of `CLOCK_MONOTONIC`, as the records of process life have it.
    pub time_ns: u64,
    /// Hits of the image that this one takes the place of, in the same process.
    pub hits_before: u64,
    /// The process's number in its own pid namespace; 0 where that is not known.
    pub inner_pid: u32,
    /// Unused.
    pub reserved: u32,
}

/// A file with code that has no table yet.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FileRecord {
    /// [`RecordKind::File`].
    pub kind: u32,
    /// A process that has it mapped.
    pub tgid: u32,
    /// First address of the mapping.
    pub start: u64,
    /// One past its last address.
    pub end: u64,
    /// The file, as the kernel side knows it.
    pub key: crate::FileKey,
}

/// A process that user space is to see to, and may be stopped until that is done: one that begins,
/// as a child or as a target, and has no probes of its own yet, or one of a tree that will see when
/// a child of it is stopped.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ProcessStopRecord {
    /// [`RecordKind::Unprobed`] or [`RecordKind::StopWatcher`].
    pub kind: u32,
    /// The process.
    pub tgid: u32,
    /// 1: it is stopped.
    pub is_stopped: u32,
    /// Unused.
    pub reserved: u32,
}

/// Where a walk stopped that user space is to finish, and how much of the stack follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CopyHeader {
    /// The provisional identity of the stack: the [`StackRecord`] with the frames so far has it,
    /// and the sums.
    pub stack: u64,
    /// When: nanoseconds of `CLOCK_MONOTONIC`. Says which mappings were in force.
    pub time_ns: u64,
    /// The code address of the last frame.
    pub instruction: u64,
    /// Its stack pointer.
    pub stack_pointer: u64,
    /// Its frame pointer, if that is known.
    pub frame_pointer: u64,
    /// The address of the first byte that was copied: the beginning of the stack pointer's page.
    pub base: u64,
    /// The process.
    pub tgid: u32,
    /// The number of the process's image.
    pub process: u32,
    /// How many whole pages were copied.
    pub pages: u32,
    /// The flags below.
    pub flags: u32,
    /// How many frames the kernel side had found. It may have gone on by what it had, behind a
    /// signal's frame.
    pub frames_len: u32,
    /// Unused.
    pub reserved: u32,
}

impl CopyHeader {
    /// `instruction` is a return address: the call before it is what is looked up.
    pub const IS_RETURN: u32 = 1;
    /// `frame_pointer` is known.
    pub const FRAME_POINTER_KNOWN: u32 = 2;
    /// The frames that the kernel side found may be wrong: a signal interrupted one of them.
    pub const THROUGH_SIGNAL: u32 = 4;
}

/// A copy of a stack, for a walk that user space is to finish. A ring of its own carries them.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CopyRecord {
    /// What is copied.
    pub header: CopyHeader,
    /// The pages; those past [`CopyHeader::pages`] are not written.
    pub bytes: [u8; COPY_PAGES * WINDOW_BYTES],
}

const _: () = assert!(size_of::<CopyHeader>() == 72);
const _: () = assert!(size_of::<FileRecord>() == 48);
const _: () = assert!(size_of::<StackRecordHeader>() == 32);
const _: () = assert!(size_of::<StackRecord>() == 32 + 8 * 128);
const _: () = assert!(size_of::<ProcessRecord>() == 56);
const _: () = assert!(size_of::<ProcessStopRecord>() == 16);
