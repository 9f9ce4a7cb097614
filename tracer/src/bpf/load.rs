//! Loading the object: settings, sizes of maps, programs past the verifier.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::{Array, CgroupArray, HashMap, Map, MapData};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use aya_log::{EbpfLogger, Level};
use aya_obj::generated::bpf_map_type;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use tracer_ebpf::{BpfSettings, MAX_SITES, MAX_SPECS, ProbeSpec, Process};

use super::compat::multi::Multi;
pub use super::error::BpfError;
use super::links::AttachBy;
use super::programs;
use super::records::Counted;
use super::sampling::Sampling;
use crate::settings::Limits;
use crate::unwind::Capacity;

/// The object that `build.rs` made.
static EMBEDDED: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/memtap-ebpf.o"));

/// The object to load: the embedded one or, in a development build alone, the file that `MEMTAP_EBPF_OBJECT` names
/// (`cargo xtask ebpf`). A release build can run with capabilities that its caller does not have, and heeds no variable.
pub(super) fn object_bytes() -> &'static [u8] {
    static NAMED: std::sync::OnceLock<Option<Vec<u8>>> = std::sync::OnceLock::new();
    if !cfg!(debug_assertions) {
        return EMBEDDED;
    }
    let named = NAMED.get_or_init(|| std::fs::read(std::env::var_os("MEMTAP_EBPF_OBJECT")?).ok());
    named.as_deref().unwrap_or(EMBEDDED)
}

/// Which programs are wanted.
#[derive(Debug, Clone, Copy, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each kind is wanted or not by itself"
)]
pub struct Wanted {
    /// The uprobe programs of allocator calls.
    pub heap: bool,
    /// The tracepoint programs of memory-map system calls.
    pub region: bool,
    /// What walks by unwind tables need.
    pub tables: bool,
    /// Blocks are followed until they are given back.
    pub live: bool,
    /// Where they are, calls may be met inside their functions.
    pub single: bool,
    /// Calls that give blocks back are counted, where they are not followed.
    pub frees: bool,
    /// The programs of allocator calls are loaded when they are first attached: the verifier takes some 40 ms of CPU time for
    /// those that walk, and not every process needs all of them.
    pub later: bool,
    /// The programs that do nothing, which traps are measured with.
    pub cost: bool,
    /// What uprobes are made of.
    pub attach: AttachBy,
}

/// The loaded eBPF object.
#[expect(missing_debug_implementations, reason = "aya's logger has none")]
pub struct Object {
    pub(super) ebpf: Ebpf,
    /// The uprobe programs, where they are not aya's.
    pub(super) multi: Option<Multi>,
    pub(super) sampling: Sampling,
    pub(super) has_sampled: bool,
    functions_len: u32,
    specs_len: u32,
    /// Counts of process images that CPUs have given up, by the images' numbers.
    pub(super) counted: std::collections::HashMap<u32, Counted>,
    messages: Option<EbpfLogger<&'static dyn log::Log>>,
}

/// The smallest ring that the kernel makes: a page.
const LEAST_RING_BYTES: u32 = 4096;

/// Shards that each sum has room for, on the average: one for each CPU of a small machine, and for the first stacks, which
/// are the busy ones, on a large one. Their memory is taken when they are made.
const SHARDS_OF_A_SUM: u32 = 2;

/// The programs of process life, with the tracepoints that they go to.
pub const PROCESS_PROGRAMS: [(&str, &str, &str); 2] = [
    ("process_fork", "task", "task_newtask"),
    ("process_exec", "sched", "sched_process_exec"),
];

/// The program that notices the end of processes, with its tracepoint: where blocks are followed.
pub const LIVE_PROGRAMS: [(&str, &str, &str); 1] = [("process_exit", "sched", "sched_process_exit")];

/// The program that notices code going away, with its tracepoint: for walks by unwind tables.
pub const TABLE_PROGRAMS: [(&str, &str, &str); 1] = [("code_unmapped", "syscalls", "sys_enter_munmap")];

/// The programs of memory-map system calls, with their tracepoints. Returns before entries: an entry that is
/// followed is then sure to be met again.
pub const REGION_PROGRAMS: [(&str, &str, &str); 8] = [
    (programs::REGION_EXIT, "syscalls", "sys_exit_mmap"),
    (programs::REGION_EXIT, "syscalls", "sys_exit_munmap"),
    (programs::REGION_EXIT, "syscalls", "sys_exit_mremap"),
    (programs::REGION_EXIT, "syscalls", "sys_exit_brk"),
    (programs::REGION_ENTER, "syscalls", "sys_enter_mmap"),
    (programs::REGION_ENTER, "syscalls", "sys_enter_munmap"),
    (programs::REGION_ENTER, "syscalls", "sys_enter_mremap"),
    (programs::REGION_ENTER, "syscalls", "sys_enter_brk"),
];

/// The most functions that can be probed.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const MAX_FUNCTIONS: u32 = MAX_SITES as u32;

/// The object as it is to be loaded. Where blocks are not followed (`live`), nothing takes out the pending calls that did not go
/// on by a tail call: their table is one then whose least recently used entries make room.
fn object_for(live: bool) -> Cow<'static, [u8]> {
    if live {
        return Cow::Borrowed(object_bytes());
    }
    let mut object = object_bytes().to_vec();
    let Some(kind) = kind_of_map("PENDING_CALLS").and_then(|at| object.get_mut(at..at + 4)) else {
        log::error!("the eBPF object has no map PENDING_CALLS");
        return Cow::Borrowed(object_bytes());
    };
    kind.copy_from_slice(&(bpf_map_type::BPF_MAP_TYPE_LRU_HASH as u32).to_ne_bytes());
    Cow::Owned(object)
}

/// The offset in the object of a map's type, which its definition begins with (`bpf_map_def` of libbpf).
fn kind_of_map(name: &str) -> Option<usize> {
    let object = object::File::parse(object_bytes()).ok()?;
    let symbol = object.symbol_by_name(name)?;
    let section = object.section_by_index(symbol.section_index()?).ok()?;
    let (offset, _) = section.file_range()?;
    usize::try_from(offset + symbol.address() - section.address()).ok()
}

impl Object {
    /// Loads the object and the wanted programs.
    pub fn load(settings: &BpfSettings, limits: &Limits, wanted: Wanted) -> Result<Self, BpfError> {
        raise_memlock_limit();
        let tables = Capacity::of_bytes(limits.unwind_bytes);
        let mut loader = EbpfLoader::new();
        let sums = if wanted.live && !wanted.region {
            1
        } else {
            limits.stacks
        };
        loader
            .override_global("SETTINGS", settings, true)
            .map_max_entries("SUMS", sums)
            .map_max_entries("SUM_SHARDS", sums.saturating_mul(SHARDS_OF_A_SUM))
            .map_max_entries("PROCESSES", limits.processes)
            .map_max_entries("LOST", limits.processes)
            .map_max_entries("ROWS", tables.row_chunks)
            .map_max_entries("PAGES", tables.pages)
            .map_max_entries("RULES", tables.rules)
            .map_max_entries("RECORDS", limits.ring_bytes)
            .map_max_entries(
                "COPIES",
                if wanted.tables {
                    limits.copy_ring_bytes
                } else {
                    LEAST_RING_BYTES
                },
            );
        if wanted.live {
            loader
                .map_max_entries("BLOCKS", limits.blocks)
                .map_max_entries("HEAP_SUMS", limits.stacks)
                .map_max_entries("HEAP_SUM_SHARDS", limits.stacks)
                .map_max_entries("PROCESS_TOTALS", limits.processes);
        } else {
            for map in [
                "BLOCKS",
                "HEAP_SUMS",
                "HEAP_SUM_SHARDS",
                "PROCESS_TOTALS",
                "LAST_CALLS",
            ] {
                loader.map_max_entries(map, 1);
            }
            // There are no probes inside functions.
            loader.map_max_entries("SPECS", MAX_FUNCTIONS);
        }
        // What is not wanted is not even asked at run time: the verifier knows the level and drops the branches.
        let messages = log::log_enabled!(log::Level::Trace);
        let log_level = if messages { Level::Trace as u8 } else { 0 };
        loader.override_global(aya_log::LEVEL, &log_level, false);
        if !messages {
            loader.map_max_entries("AYA_LOGS", LEAST_RING_BYTES);
        }
        let ebpf = loader
            .load(&object_for(wanted.live))
            .map_err(|error| BpfError::Load(Box::new(error)))?;
        let mut object = Self {
            ebpf,
            multi: None,
            sampling: Sampling::EVERY,
            has_sampled: false,
            functions_len: 0,
            specs_len: 0,
            counted: std::collections::HashMap::new(),
            messages: None,
        };
        if messages {
            object.messages =
                Some(EbpfLogger::init(&mut object.ebpf).map_err(|error| BpfError::map("AYA_LOGS", error))?);
        }
        for (program, _, _) in PROCESS_PROGRAMS {
            object.load_tracepoint(program)?;
        }
        let mut uprobes = Vec::new();
        if wanted.heap {
            uprobes.push(programs::CALL_BEGIN);
            if wanted.live || wanted.frees {
                uprobes.push(programs::CALL_FREE);
            }
        }
        if wanted.cost {
            uprobes.extend([programs::COST_ENTRY, programs::COST_RETURN]);
        }
        if wanted.live {
            uprobes.push(programs::CALL_RETURN);
            for (program, _, _) in LIVE_PROGRAMS {
                object.load_tracepoint(program)?;
            }
        }
        if wanted.single {
            uprobes.extend([programs::CALL_COMPLETE, programs::CALL_RESULT]);
        }
        if wanted.tables {
            for (program, _, _) in TABLE_PROGRAMS {
                object.load_tracepoint(program)?;
            }
        }
        if wanted.region {
            for program in [programs::REGION_ENTER, programs::REGION_EXIT] {
                object.load_tracepoint(program)?;
            }
        }
        object.load_uprobes(&uprobes, wanted.attach, wanted.later)?;
        Ok(object)
    }

    /// Hands the kernel side's messages to the log.
    pub fn flush_messages(&mut self) {
        if let Some(messages) = &mut self.messages {
            messages.flush();
        }
    }

    pub(super) fn map_mut(&mut self, name: &str) -> Result<&mut Map, BpfError> {
        self.ebpf
            .map_mut(name)
            .ok_or_else(|| BpfError::Missing(format!("map {name}")))
    }

    /// Numbers a function whose calls are to be probed: its hits are counted under that number.
    pub fn add_function(&mut self) -> Result<u32, BpfError> {
        let number = self.functions_len;
        if number >= MAX_FUNCTIONS {
            return Err(BpfError::map("HITS", io::Error::from(io::ErrorKind::StorageFull)));
        }
        self.functions_len += 1;
        Ok(number)
    }

    /// Hands the kernel side the spec of a probe of a function. Returns the cookie that the probe must carry.
    pub fn add_spec(&mut self, function: u32, spec: ProbeSpec) -> Result<u64, BpfError> {
        let failed = |error| BpfError::map("SPECS", error);
        let index = self.specs_len;
        let mut specs = Array::<&mut MapData, ProbeSpec>::try_from(self.map_mut("SPECS")?).map_err(failed)?;
        specs.set(index, ProbeSpec { index, ..spec }, 0).map_err(failed)?;
        self.specs_len += 1;
        Ok(u64::from(index) << 32 | u64::from(function))
    }

    /// How many further functions can be probed.
    #[must_use]
    pub fn functions_left(&self) -> usize {
        let left = MAX_FUNCTIONS
            .saturating_sub(self.functions_len)
            .min(MAX_SPECS.saturating_sub(self.specs_len));
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// Whether many uprobes are one link: then they come and go at once, however many there are.
    #[must_use]
    pub fn attaches_many(&self) -> bool {
        self.multi.is_some()
    }

    /// Makes every process of a cgroup a target, and of those below it: its open directory.
    pub fn set_cgroup(&mut self, cgroup: &File) -> Result<(), BpfError> {
        let failed = |error| BpfError::map("CGROUP", error);
        let mut array = CgroupArray::try_from(self.map_mut("CGROUP")?).map_err(failed)?;
        array.set(0, cgroup.as_fd(), 0).map_err(failed)
    }

    /// Makes a process a target, under this number.
    pub fn add_process(&mut self, tgid: u32, number: u32) -> Result<(), BpfError> {
        // The loader knows it already, so there is nothing to announce.
        let process = Process {
            number,
            announced: Process::ANNOUNCED,
            hits: 0,
        };
        let mut processes = HashMap::<&mut MapData, u32, Process>::try_from(self.map_mut("PROCESSES")?)
            .map_err(|error| BpfError::map("PROCESSES", error))?;
        processes
            .insert(tgid, process, 0)
            .map_err(|error| BpfError::map("PROCESSES", error))
    }

    /// Takes an ended process out of the table, unless the id is another process's by now. Returns its hits.
    pub fn remove_process(&mut self, tgid: u32, number: u32) -> Result<Option<u64>, BpfError> {
        let mut processes = HashMap::<&mut MapData, u32, Process>::try_from(self.map_mut("PROCESSES")?)
            .map_err(|error| BpfError::map("PROCESSES", error))?;
        match processes.get(&tgid, 0) {
            Ok(process) if process.number == number => {
                processes
                    .remove(&tgid)
                    .map_err(|error| BpfError::map("PROCESSES", error))?;
                Ok(Some(process.hits))
            }
            _ => Ok(None),
        }
    }

    /// The table of processes that the kernel side has stopped.
    pub fn stopped_fd(&self) -> Result<std::os::fd::RawFd, BpfError> {
        self.map_fd("STOPPED")
    }

    /// The processes that the kernel side has stopped.
    pub fn stopped(&self) -> Result<Vec<u32>, BpfError> {
        let failed = |error| BpfError::map("STOPPED", error);
        let map = self
            .ebpf
            .map("STOPPED")
            .ok_or_else(|| BpfError::Missing("map STOPPED".to_owned()))?;
        let stopped = HashMap::<&MapData, u32, u32>::try_from(map).map_err(failed)?;
        stopped.keys().collect::<Result<_, _>>().map_err(failed)
    }

    /// Takes a process out of that table.
    pub fn forget_stopped(&mut self, tgid: u32) -> Result<(), BpfError> {
        let failed = |error| BpfError::map("STOPPED", error);
        let mut stopped =
            HashMap::<&mut MapData, u32, u32>::try_from(self.map_mut("STOPPED")?).map_err(failed)?;
        stopped.remove(&tgid).map_err(failed)
    }

    /// Bytes of kernel memory that each map takes, as the kernel accounts for it.
    #[must_use]
    pub fn memory(&self) -> BTreeMap<String, u64> {
        let sizes = self.ebpf.maps().filter_map(|(name, map)| {
            let fd = map_data(map)?.fd().as_fd().as_raw_fd();
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let line = info.lines().find_map(|line| line.strip_prefix("memlock:"))?;
            Some((name.to_owned(), line.trim().parse().ok()?))
        });
        sizes.collect()
    }

    pub(super) fn map_fd(&self, name: &str) -> Result<std::os::fd::RawFd, BpfError> {
        self.ebpf
            .map(name)
            .and_then(map_data)
            .map(|data| data.fd().as_fd().as_raw_fd())
            .ok_or_else(|| BpfError::Missing(format!("map {name}")))
    }
}

pub(super) fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::CgroupArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::ProgramArray(data)
        | Map::RingBuf(data)
        | Map::StackTraceMap(data) => Some(data),
        _ => None,
    }
}

/// Kernels before 5.11 count maps against the limit of locked memory.
fn raise_memlock_limit() {
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: a valid pointer to a filled struct.
    if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) } != 0 {
        log::debug!(
            "failed to raise the limit of locked memory: {}",
            std::io::Error::last_os_error()
        );
    }
}

#[cfg(test)]
mod tests;
