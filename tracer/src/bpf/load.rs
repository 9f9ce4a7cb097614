//! Loading the object: settings, sizes of maps, programs past the verifier.

use aya_log::{EbpfLogger, Level};
use rustix::process::{Resource, Rlimit, setrlimit};
use tracer_ebpf::BpfSettings;

use super::compat::loader::{LinkKind, LoadedObject, Overrides};
use super::embedded::object_for;
pub use super::error::BpfError;
use super::object::{MAX_FUNCTIONS, Object};
use super::programs;
use super::sampling::Sampling;
pub use crate::settings::AttachBy;
use crate::settings::Limits;
use crate::unwind::Capacity;

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
    /// The programs of allocator calls are loaded when they are first attached: the verifier takes
    /// some 40 ms of CPU time for those that walk, and not every process needs all of them.
    pub later: bool,
    /// The programs that do nothing, which traps are measured with.
    pub cost: bool,
    /// Each process of a tree has probes of its own.
    pub tree: bool,
    /// What uprobes are made of.
    pub attach: AttachBy,
}

/// The smallest ring that the kernel makes: a page.
const LEAST_RING_BYTES: u32 = 4096;

/// Shards that each sum has room for, on the average: one for each CPU of a small machine, and for
/// the first stacks, which are the busy ones, on a large one. Their memory is taken when they are
/// made.
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

/// The programs that notice the beginning of children, and parents that would see those stopped,
/// with their tracepoints: where each process of a tree has probes of its own.
pub const CHILD_PROGRAMS: &[(&str, &str, &str)] = &[
    (programs::CHILD_BEGINS, "syscalls", "sys_exit_clone"),
    (programs::CHILD_BEGINS, "syscalls", "sys_exit_clone3"),
    #[cfg(target_arch = "x86_64")]
    (programs::CHILD_BEGINS, "syscalls", "sys_exit_fork"),
    #[cfg(target_arch = "x86_64")]
    (programs::CHILD_BEGINS, "syscalls", "sys_exit_vfork"),
    (programs::STOP_WATCHER, "syscalls", "sys_enter_wait4"),
    (programs::STOP_WATCHER, "syscalls", "sys_enter_waitid"),
    (programs::STOP_WATCHER, "syscalls", "sys_enter_rt_sigaction"),
];

/// The programs of memory-map system calls, with their tracepoints. Returns before entries: an
/// entry that is followed is then sure to be met again.
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

impl Object {
    /// Loads the object and the wanted programs.
    pub fn load(settings: &BpfSettings, limits: &Limits, wanted: Wanted) -> Result<Self, BpfError> {
        raise_memlock_limit();
        let mut overrides = Overrides::default();
        overrides
            .globals
            .insert("SETTINGS", (zerocopy::IntoBytes::as_bytes(settings), true));
        set_map_sizes(&mut overrides, limits, wanted);
        // What is not wanted is not even asked at run time: the verifier knows the level and drops
        // the branches.
        let messages = log::log_enabled!(log::Level::Trace);
        let log_level = [if messages { Level::Trace as u8 } else { 0 }];
        overrides.globals.insert(aya_log::LEVEL, (&log_level, false));
        if !messages {
            overrides.entries.insert("AYA_LOGS", LEAST_RING_BYTES);
        }
        let mut object = Self {
            loaded: LoadedObject::new(&object_for(wanted.live), overrides)?,
            uprobe_links: LinkKind::UprobeEvent,
            sampling: Sampling::EVERY,
            has_sampled: false,
            functions_len: 0,
            specs_len: 0,
            counted: std::collections::HashMap::new(),
            messages: None,
        };
        for (program, _, _) in PROCESS_PROGRAMS {
            object.load_tracepoint(program)?;
        }
        if wanted.tree {
            for program in [programs::CHILD_BEGINS, programs::STOP_WATCHER] {
                object.load_tracepoint(program)?;
            }
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
            uprobes.push(programs::CALL_RESULT);
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
        if messages {
            object.messages = logger(&object.loaded);
        }
        Ok(object)
    }
}

/// The reader of the programs' messages, if one of them writes any.
fn logger(loaded: &LoadedObject) -> Option<EbpfLogger<&'static dyn log::Log>> {
    let mut ids = loaded.programs().filter_map(|(_, program)| program.id());
    ids.find_map(|id| EbpfLogger::init_from_id(id).ok())
}

/// Sets the maps' numbers of entries: one where nothing will be in them.
fn set_map_sizes(overrides: &mut Overrides, limits: &Limits, wanted: Wanted) {
    let tables = Capacity::of_bytes(limits.unwind_bytes);
    let sums = if wanted.live && !wanted.region {
        1
    } else {
        limits.stacks
    };
    let entries = &mut overrides.entries;
    entries.extend([
        ("SUMS", sums),
        ("SUM_SHARDS", sums.saturating_mul(SHARDS_OF_A_SUM)),
        ("PROCESSES", limits.processes),
        ("LOST", limits.processes),
        ("ROWS", tables.row_chunks),
        ("PAGES", tables.pages),
        ("RULES", tables.rules),
        ("RECORDS", limits.ring_bytes),
    ]);
    let copies = if wanted.tables {
        limits.copy_ring_bytes
    } else {
        LEAST_RING_BYTES
    };
    entries.insert("COPIES", copies);
    if wanted.live {
        entries.extend([
            ("BLOCKS", limits.blocks),
            ("HEAP_SUMS", limits.stacks),
            ("HEAP_SUM_SHARDS", limits.stacks),
            ("PROCESS_TOTALS", limits.processes),
        ]);
    } else {
        entries.extend([
            ("BLOCKS", 1),
            ("HEAP_SUMS", 1),
            ("HEAP_SUM_SHARDS", 1),
            ("PROCESS_TOTALS", 1),
            ("LAST_CALLS", 1),
            // There are no probes inside functions.
            ("SPECS", MAX_FUNCTIONS),
        ]);
    }
}

/// Kernels before 5.11 count maps against the limit of locked memory.
fn raise_memlock_limit() {
    let limit = Rlimit {
        current: None,
        maximum: None,
    };
    if let Err(error) = setrlimit(Resource::Memlock, limit) {
        log::debug!("failed to raise the limit of locked memory: {error}");
    }
}
