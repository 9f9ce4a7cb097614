//! Loading the object: settings, sizes of maps, programs past the verifier.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::{Array, CgroupArray, HashMap, Map, MapData};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use aya_log::{EbpfLogger, Level};
use tracer_ebpf::{BpfSettings, ProbeSite, Process, Shape};

pub use super::error::BpfError;
use super::limits::Limits;
use super::links::AttachBy;
use super::multi::Multi;
use super::records::Counted;
use super::sampling::Sampling;
use crate::probe_plan::single::Kind;

/// The object that `build.rs` made.
pub(super) static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/memtap-ebpf.o"));

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
    /// The programs of allocator calls are loaded when they are first attached: most processes have calls of half of the
    /// shapes, and the verifier takes some 40 ms of CPU time for each.
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
    sites_len: u32,
    pub(super) singles_len: u32,
    /// What CPUs have counted of process images, and count anew, by their numbers.
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
    ("exit_mmap", "syscalls", "sys_exit_mmap"),
    ("exit_munmap", "syscalls", "sys_exit_munmap"),
    ("exit_mremap", "syscalls", "sys_exit_mremap"),
    ("exit_brk", "syscalls", "sys_exit_brk"),
    ("enter_mmap", "syscalls", "sys_enter_mmap"),
    ("enter_munmap", "syscalls", "sys_enter_munmap"),
    ("enter_mremap", "syscalls", "sys_enter_mremap"),
    ("enter_brk", "syscalls", "sys_enter_brk"),
];

impl Object {
    /// Loads the object and the wanted programs.
    pub fn load(settings: &BpfSettings, limits: &Limits, wanted: Wanted) -> Result<Self, BpfError> {
        raise_memlock_limit();
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
            .map_max_entries("ROWS", limits.tables.row_chunks)
            .map_max_entries("PAGES", limits.tables.pages)
            .map_max_entries("RULES", limits.tables.rules)
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
                "CALLS",
                "BLOCKS",
                "HEAP_SUMS",
                "HEAP_SUM_SHARDS",
                "PROCESS_TOTALS",
                "LAST_BLOCKS",
            ] {
                loader.map_max_entries(map, 1);
            }
        }
        // What is not wanted is not even asked at run time: the verifier knows the level and drops the branches.
        let messages = log::log_enabled!(log::Level::Trace);
        let log_level = if messages { Level::Trace as u8 } else { 0 };
        loader.override_global(aya_log::LEVEL, &log_level, false);
        if !messages {
            loader.map_max_entries("AYA_LOGS", LEAST_RING_BYTES);
        }
        let ebpf = loader
            .load(OBJECT)
            .map_err(|error| BpfError::Load(Box::new(error)))?;
        let mut object = Self {
            ebpf,
            multi: None,
            sampling: Sampling::EVERY,
            has_sampled: false,
            sites_len: 0,
            singles_len: 0,
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
            let shapes = Shape::ALL
                .iter()
                .filter(|shape| **shape != Shape::Free || wanted.live || wanted.frees);
            uprobes.extend(shapes.map(|shape| shape.program()));
        }
        if wanted.cost {
            uprobes.extend(["cost_entry", "cost_return"]);
        }
        if wanted.live {
            uprobes.extend(Shape::ALL.iter().filter_map(|shape| shape.return_program()));
            for (program, _, _) in LIVE_PROGRAMS {
                object.load_tracepoint(program)?;
            }
        }
        if wanted.single {
            uprobes.extend(Kind::ALL.map(Kind::program));
        }
        if wanted.tables {
            for (program, _, _) in TABLE_PROGRAMS {
                object.load_tracepoint(program)?;
            }
        }
        if wanted.region {
            for (program, _, _) in REGION_PROGRAMS {
                object.load_tracepoint(program)?;
            }
        }
        // Shapes share programs.
        uprobes.sort_unstable();
        uprobes.dedup();
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

    /// Tells the kernel side what a probe stands for. Returns the cookie that the probe must carry.
    pub fn add_site(&mut self, site: ProbeSite) -> Result<u64, BpfError> {
        let index = self.sites_len;
        let mut sites = Array::<&mut MapData, ProbeSite>::try_from(self.map_mut("SITES")?)
            .map_err(|error| BpfError::map("SITES", error))?;
        sites
            .set(index, site, 0)
            .map_err(|error| BpfError::map("SITES", error))?;
        self.sites_len += 1;
        Ok(u64::from(index))
    }

    /// For how many further probes the kernel side has room.
    #[must_use]
    pub fn sites_left(&self) -> usize {
        usize::try_from(self.sites_len).map_or(0, |len| tracer_ebpf::MAX_SITES.saturating_sub(len))
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
