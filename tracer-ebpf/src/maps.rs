//! Every map: who writes, who reads, how many entries, and what happens when it is full. The
//! capacities here are defaults; the loader sets those that options bound.

use aya_ebpf::{
    macros::map,
    maps::{Array, CgroupArray, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
};
use tracer_ebpf::unwind::{PageEntry, RowChunk, Rule};
use tracer_ebpf::{
    Block, BlockKey, CallKey, Counter, FileKey, FileTable, HeapSum, HitCounts, LastCall, MAX_SPECS,
    OPEN_CALLS_LEN, PendingCall, PendingRegion, ProbeSpec, Process, ProcessCounts, ProcessTotals,
    SCRATCH_SLOTS, Sampler, Sum, SumKey,
};

use crate::unwind::{CachedVma, Scratch, VmaKey};

/// `BPF_F_MMAPABLE` of the kernel's `include/uapi/linux/bpf.h`.
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// `BPF_F_NO_PREALLOC` of the kernel's `include/uapi/linux/bpf.h`: an entry's memory is allocated
/// when it is made.
const BPF_F_NO_PREALLOC: u32 = 1;

/// What is captured: the number of a `CaptureMode`. Written by the loader: probes come and go one
/// after the other, and what each sees alone would not fit what the others see.
#[map]
pub(crate) static CAPTURE_MODE: Array<u64> = Array::with_max_entries(1, 0);

/// The links whose hits count: the number of a `ProbeScope`. Written by the loader when the probes
/// of a tree's processes go over to the whole machine.
#[map]
pub(crate) static PROBE_SCOPE: Array<u64> = Array::with_max_entries(1, 0);

/// The specs of probes, by the upper half of each probe's cookie. Written by the loader before the
/// probe is attached. Full: the loader leaves the file out, and says so.
#[map]
pub(crate) static SPECS: Array<ProbeSpec> = Array::with_max_entries(MAX_SPECS, 0);

/// Hits of probes in allocators. Written here, read by the loader. Never full.
#[map]
pub(crate) static HITS: PerCpuArray<HitCounts> = PerCpuArray::with_max_entries(1, 0);

/// The traced processes, by process id. Written by both sides; the loader takes ended processes
/// out. Full: `process_map_full`, and the events of further processes are recorded for an unknown
/// process.
#[map]
pub(crate) static PROCESSES: HashMap<u32, Process> = HashMap::with_max_entries(16_384, 0);

/// The counters that each CPU has of processes. Written here, read by the loader. Never full: a
/// word that another process needs is sent to user space, and where that cannot be, `PROCESSES`
/// counts.
#[map]
pub(crate) static PROCESS_COUNTS: PerCpuArray<ProcessCounts> = PerCpuArray::with_max_entries(1, 0);

/// The cgroup that is traced, if one is. Written by the loader.
#[map]
pub(crate) static CGROUP: CgroupArray = CgroupArray::with_max_entries(1, 0);

/// How many processes the programs have numbered.
#[map]
pub(crate) static PROCESS_COUNT: Array<u64> = Array::with_max_entries(1, 0);

/// The sums per (process, stack, function). Written here, read by the loader. An entry is made
/// before its shards and has what found no room there. Full: `stack_map_full`; calls and bytes go
/// to `LOST`.
#[map]
pub(crate) static SUMS: HashMap<SumKey, Sum> = HashMap::with_max_entries(65_536, 0);

/// The sums per (process, function) of the events that have no stack: totals stay exact for each
/// process. Full: they go to `OVERFLOW`.
#[map]
pub(crate) static LOST: HashMap<SumKey, Sum> = HashMap::with_max_entries(16_384, 0);

/// Sums per function of the events that found `LOST` full: totals stay exact for the whole. Never
/// full.
#[map]
pub(crate) static OVERFLOW: Array<Sum> = Array::with_max_entries(64, 0);

/// The shards that each CPU has of the sums of `SUMS` and `LOST`, by [`SumKey::on_cpu`]. Full: what
/// CPUs without a shard add goes to the sum itself.
#[map]
pub(crate) static SUM_SHARDS: HashMap<SumKey, Sum> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Event and loss counters. Never full.
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::SLOTS, 0);

/// The unwind tables of files with code, by file. Written by both sides: here an empty entry for a
/// file that user space was told of, there the table. Full: `files_full`, and the file's code is
/// walked by frame pointers.
#[map]
pub(crate) static FILES: HashMap<FileKey, FileTable> = HashMap::with_max_entries(4096, 0);

/// Rows of unwind tables, mapped into the loader's memory, which writes them. Full: the loader
/// leaves the file out.
#[map]
pub(crate) static ROWS: Array<RowChunk> = Array::with_max_entries(64, BPF_F_MMAPABLE);

/// Pages of unwind tables: likewise.
#[map]
pub(crate) static PAGES: Array<PageEntry> = Array::with_max_entries(1 << 18, BPF_F_MMAPABLE);

/// Rules of unwind tables: likewise.
#[map]
pub(crate) static RULES: Array<Rule> = Array::with_max_entries(1 << 14, BPF_F_MMAPABLE);

/// Another number whenever a table or a mapping of code may have changed. Written by both sides.
#[map]
pub(crate) static GENERATION: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Mappings of code that walks have found, some for each process, for when its address space is
/// being changed and cannot be asked. Least recently used entries make room.
#[map]
pub(crate) static MAPPINGS: LruHashMap<VmaKey, CachedVma> = LruHashMap::with_max_entries(16_384, 0);

/// Room for walks. A slot belongs to one program at a time. All taken: `scratch_busy`.
#[map]
pub(crate) static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(SCRATCH_SLOTS, 0);

/// New stacks and processes, once each, to user space. Full: the record is sent at the next hit
/// instead.
#[map]
pub(crate) static RECORDS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Copies of stacks whose walks user space is to finish. Full: the walk goes on by frame pointers
/// (`tables_awaited`).
#[map]
pub(crate) static COPIES: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// How many copies were made.
#[map]
pub(crate) static COPY_COUNT: Array<u64> = Array::with_max_entries(1, 0);

/// Processes that were stopped because they have no probes yet, or their code no table. User space
/// resumes them and takes them out. Full: the process is not stopped.
#[map]
pub(crate) static STOPPED: HashMap<u32, u32> = HashMap::with_max_entries(4096, 0);

/// Calls of allocators that have not returned. Full: `call_map_full`. Where blocks are not
/// followed, those that may go on by a tail call; the loader makes it a table then whose least
/// recently used entries make room.
#[map]
pub(crate) static PENDING_CALLS: HashMap<CallKey, PendingCall> = HashMap::with_max_entries(16_384, 0);

/// Live blocks. Written here; the loader takes out those of processes that have ended. Full:
/// `live_map_full`.
#[map]
pub(crate) static BLOCKS: HashMap<BlockKey, Block> = HashMap::with_max_entries(1 << 20, BPF_F_NO_PREALLOC);

/// The sums per (process, stack, function) where blocks are followed, in place of `SUMS`. Full: as
/// there.
#[map]
pub(crate) static HEAP_SUMS: HashMap<SumKey, HeapSum> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// The shards of `HEAP_SUMS`, as `SUM_SHARDS` has those of `SUMS`.
#[map]
pub(crate) static HEAP_SUM_SHARDS: HashMap<SumKey, HeapSum> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// The totals of each process, by its number. Full: `heap_map_full`.
#[map]
pub(crate) static PROCESS_TOTALS: HashMap<u32, ProcessTotals> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// The number of the process that alone has held blocks, 0 for none, or `SEVERAL_PROCESSES`.
#[map]
pub(crate) static ONLY_PROCESS: Array<u64> = Array::with_max_entries(1, 0);

/// The totals of the machine, where several processes have held blocks; else they are those of the
/// one.
#[map]
pub(crate) static MACHINE_TOTALS: Array<ProcessTotals> = Array::with_max_entries(1, 0);

/// The last calls of each thread. Least recently used entries make room: those of threads that have
/// ended.
#[map]
pub(crate) static LAST_CALLS: LruHashMap<u32, LastCall> = LruHashMap::with_max_entries(16_384, 0);

/// How much is sampled: a packed [`Rate`](tracer_ebpf::sampling::Rate). Written by the loader, at
/// any time.
#[map]
pub(crate) static RATE: Array<u64> = Array::with_max_entries(1, 0);

/// The next sample point of each CPU. The loader gives each its random state before any probe is
/// in.
#[map]
pub(crate) static SAMPLERS: PerCpuArray<Sampler> = PerCpuArray::with_max_entries(1, 0);

/// Memory-map system calls that have not returned, by thread. Full: `pending_map_full`.
#[map]
pub(crate) static PENDING: HashMap<u32, PendingRegion> = HashMap::with_max_entries(16_384, 0);

/// How many calls are pending because they may go on by a tail call, where blocks are not followed:
/// by the lowest bits of the thread, a cache line each. Where none are, `PENDING_CALLS` need not be
/// asked.
#[map]
pub(crate) static OPEN_CALLS: Array<[u64; 8]> = Array::with_max_entries(OPEN_CALLS_LEN, 0);

/// Always empty: see `thread_stack`.
#[map]
pub(crate) static NO_PROGRAMS: ProgramArray = ProgramArray::with_max_entries(1, 0);
