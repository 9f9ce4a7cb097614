//! What the loader tells the programs before they are loaded.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::abi::values::map_types;

map_types! {
    BpfSettings: 232;
    KernelOffsets: 88;
    StopOffsets: 64;
}

/// What the loader tells the programs once, before they run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BpfSettings {
    /// Smallest size that is followed.
    pub min_size: u64,
    /// Largest size that is followed.
    pub max_size: u64,
    /// Where members of the kernel's structures are.
    pub offsets: KernelOffsets,
    /// One of the `UNWIND_*` constants.
    pub unwind: u32,
    /// The most copies of stacks that are sent to user space: each takes an entry of the table of
    /// sums. 0: none.
    pub copies_max: u32,
    /// One of the `SCOPE_*` constants.
    pub scope: u32,
    /// 1: children of traced processes are traced.
    pub follow: u32,
    /// The loader's own process, which is never traced.
    pub own_tgid: u32,
    /// 1: a process that executes a program whose name is `comm` becomes a target.
    pub match_comm: u32,
    /// The name to match, padded with zeros.
    pub comm: [u8; 16],
    /// Which processes are stopped when a stack goes through code that has no table yet: one of the
    /// `STOP_*` constants.
    pub stop_for_code: u32,
    /// Which processes are stopped at their beginning until they have probes: one of the `STOP_*`
    /// constants.
    pub stop_for_probes: u32,
    /// What tells a process that nobody would see stopped.
    pub stop_offsets: StopOffsets,
    /// 1: blocks are followed until they are given back.
    pub live: u32,
    /// 1: allocations are sampled, at a rate that may change.
    pub sampled: u32,
    /// The unit of variances of bytes: 4^`variance_shift` bytes².
    pub variance_shift: u32,
    /// 1: probes are those of each process of a tree, until [`ProbeScope`](crate::ProbeScope) says
    /// otherwise.
    pub tree: u32,
}

/// Offsets of members in the running kernel's structures, in bytes; all 0 where they are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct KernelOffsets {
    /// `task_struct.mm`
    pub task_mm: u32,
    /// `mm_struct.brk`
    pub mm_brk: u32,
    /// `vm_area_struct.vm_start`
    pub vma_start: u32,
    /// `vm_area_struct.vm_end`
    pub vma_end: u32,
    /// `vm_area_struct.vm_mm`
    pub vma_mm: u32,
    /// `mm_struct.context.vdso`
    pub mm_vdso: u32,
    /// `vm_area_struct.vm_pgoff`
    pub vma_page_offset: u32,
    /// `vm_area_struct.vm_file`
    pub vma_file: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `inode.i_ino`
    pub inode_number: u32,
    /// `inode.i_size`
    pub inode_size: u32,
    /// The seconds of the time of change: `inode.i_mtime_sec`, before Linux 6.11 the first word of
    /// `inode.__i_mtime`, before 6.7 of `inode.i_mtime`.
    pub inode_modified: u32,
    /// `task_struct.group_leader`
    pub task_leader: u32,
    /// `task_struct.thread_pid`
    pub task_pid: u32,
    /// `pid.level`
    pub pid_level: u32,
    /// `pid.numbers`
    pub pid_numbers: u32,
    /// `task_struct.utask`
    pub task_uprobes: u32,
    /// `uprobe_task.return_instances`
    pub uprobes_returns: u32,
    /// `return_instance.next`
    pub return_next: u32,
    /// `return_instance.stack`
    pub return_stack: u32,
    /// `return_instance.orig_ret_vaddr`; 0 where these five are not known.
    pub return_address: u32,
    /// 0: makes the size a multiple of 8.
    pub reserved: u32,
}

/// Offsets of members that tell who would notice that a process is stopped, in bytes; all 0 where
/// they are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StopOffsets {
    /// `task_struct.ptrace`
    pub task_ptrace: u32,
    /// `task_struct.real_parent`
    pub task_parent: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `signal_struct.nr_threads`
    pub signal_threads: u32,
    /// `signal_struct.pids[PIDTYPE_PGID]`
    pub signal_group: u32,
    /// `task_struct.sighand`
    pub task_handlers: u32,
    /// `sighand_struct.action[SIGTTOU - 1]`, which begins with the handler
    pub handler_ttou: u32,
    /// `signal_struct.tty`
    pub signal_tty: u32,
    /// `sighand_struct.action[SIGCHLD - 1]`, which begins with the handler and the flags
    pub handler_chld: u32,
    /// `sighand_struct.action[SIGCONT - 1]`
    pub handler_cont: u32,
    /// `task_struct.blocked`, the mask of blocked signals
    pub task_blocked: u32,
    /// `task_struct.real_blocked`, the mask without what the thread waits for in `sigtimedwait`
    pub task_real_blocked: u32,
    /// `task_struct.vfork_done`, which is null but for a child whose parent waits in vfork
    pub task_vfork: u32,
    /// `task_struct.comm`
    pub task_comm: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// Unused.
    pub reserved: u32,
}

impl BpfSettings {
    /// Walk by frame pointers alone.
    pub const UNWIND_FRAME_POINTER: u32 = 0;
    /// Walk by tables, and by frame pointers in code without one.
    pub const UNWIND_AUTO: u32 = 1;
    /// Walk by tables alone.
    pub const UNWIND_TABLES: u32 = 2;
    /// Trace the processes in the table of processes alone.
    pub const SCOPE_LISTED: u32 = 0;
    /// Trace every process of the machine; the table is filled as they are met.
    pub const SCOPE_MACHINE: u32 = 1;
    /// Trace every process of a cgroup and of those below it; likewise.
    pub const SCOPE_CGROUP: u32 = 2;
    /// Stop nobody.
    pub const STOP_NEVER: u32 = 0;
    /// Stop processes that have one thread, no debugger and their parent's process group.
    pub const STOP_UNSEEN: u32 = 1;
    /// Stop every process.
    pub const STOP_ALWAYS: u32 = 2;
}
