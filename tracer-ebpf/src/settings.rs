//! What the loader told the programs.

use tracer_ebpf::{BpfSettings, CaptureMode, KernelOffsets, ProbeScope, StopOffsets};

use crate::maps::{CAPTURE_MODE, PROBE_SCOPE};

/// Written by the loader before the object is loaded, into `.rodata`, which the kernel freezes: the
/// verifier knows every field's value and drops the branches that it decides.
// SAFETY: no other symbol has this name; the loader finds it by it.
#[unsafe(no_mangle)]
static SETTINGS: BpfSettings = BpfSettings {
    min_size: 0,
    max_size: u64::MAX,
    offsets: KernelOffsets {
        task_mm: 0,
        mm_brk: 0,
        vma_start: 0,
        vma_end: 0,
        vma_mm: 0,
        mm_vdso: 0,
        vma_page_offset: 0,
        vma_file: 0,
        file_inode: 0,
        inode_number: 0,
        inode_size: 0,
        inode_modified: 0,
        task_leader: 0,
        task_pid: 0,
        pid_level: 0,
        pid_numbers: 0,
        task_uprobes: 0,
        uprobes_returns: 0,
        return_next: 0,
        return_stack: 0,
        return_address: 0,
        reserved: 0,
    },
    unwind: 0,
    copies_max: 0,
    scope: 0,
    follow: 0,
    own_tgid: 0,
    match_comm: 0,
    comm: [0; 16],
    stop_for_code: BpfSettings::STOP_NEVER,
    stop_for_probes: BpfSettings::STOP_NEVER,
    stop_offsets: StopOffsets {
        task_ptrace: 0,
        task_parent: 0,
        task_signal: 0,
        signal_threads: 0,
        signal_group: 0,
        task_handlers: 0,
        handler_ttou: 0,
        signal_tty: 0,
        handler_chld: 0,
        handler_cont: 0,
        task_blocked: 0,
        task_real_blocked: 0,
        task_vfork: 0,
        task_comm: 0,
        task_tgid: 0,
        reserved: 0,
    },
    live: 0,
    sampled: 0,
    variance_shift: 0,
    tree: 0,
};

macro_rules! read {
    ($field:ident) => {
        // SAFETY: a valid reference to a static; volatile, since the loader changes it behind the
        // compiler.
        unsafe { core::ptr::read_volatile(&raw const SETTINGS.$field) }
    };
}

/// Whether an allocation of this size is followed.
#[inline(always)]
pub(crate) fn wants_size(bytes: u64) -> bool {
    bytes >= read!(min_size) && bytes <= read!(max_size)
}

/// Whether every process of the machine is traced.
#[inline(always)]
pub(crate) fn whole_machine() -> bool {
    read!(scope) == BpfSettings::SCOPE_MACHINE
}

/// Whether every process of a cgroup is traced.
#[inline(always)]
pub(crate) fn whole_cgroup() -> bool {
    read!(scope) == BpfSettings::SCOPE_CGROUP
}

/// Whether children of traced processes are traced.
#[inline(always)]
pub(crate) fn follow() -> bool {
    read!(follow) != 0
}

/// The loader's own process.
#[inline(always)]
pub(crate) fn own_tgid() -> u32 {
    read!(own_tgid)
}

/// The name that makes a process a target when it executes a program, if there is one.
#[inline(always)]
pub(crate) fn comm() -> Option<[u8; 16]> {
    (read!(match_comm) != 0).then(|| read!(comm))
}

/// Where members of the kernel's structures are.
#[inline(always)]
pub(crate) fn offsets() -> KernelOffsets {
    read!(offsets)
}

/// Whether stacks are walked by unwind tables.
#[inline(always)]
pub(crate) fn by_tables() -> bool {
    read!(unwind) != BpfSettings::UNWIND_FRAME_POINTER
}

/// The most copies of stacks that are sent to user space.
#[inline(always)]
pub(crate) fn copies_max() -> u32 {
    read!(copies_max)
}

/// Which processes are stopped while the table of their code is being made.
#[inline(always)]
pub(crate) fn stop_for_code() -> u32 {
    read!(stop_for_code)
}

/// Which processes are stopped at their beginning until they have probes.
#[inline(always)]
pub(crate) fn stop_for_probes() -> u32 {
    read!(stop_for_probes)
}

/// Where members of the kernel's structures are that tell who would notice.
#[inline(always)]
pub(crate) fn stop_offsets() -> StopOffsets {
    read!(stop_offsets)
}

/// What is captured: the number of a `CaptureMode`.
#[inline(always)]
pub(crate) fn capture_mode() -> u64 {
    // SAFETY: the pointer is to a map value; volatile, since the loader changes it.
    CAPTURE_MODE
        .get_ptr(0)
        .map_or(CaptureMode::Nothing.number(), |mode| unsafe {
            core::ptr::read_volatile(mode)
        })
}

/// Returns true if a hit, by its probe's cookie, comes by a link that counts no more, or not yet:
/// another link has it too.
#[inline(always)]
pub(crate) fn is_superseded(cookie: u64) -> bool {
    has_tree() && ProbeScope::number_in(cookie) != probe_scope()
}

/// Returns true if each process of a tree has probes of its own.
#[inline(always)]
pub(crate) fn has_tree() -> bool {
    read!(tree) != 0
}

/// The links whose hits count: the number of a `ProbeScope`.
#[inline(always)]
pub(crate) fn probe_scope() -> u64 {
    // SAFETY: the pointer is to a map value; volatile, since the loader changes it.
    PROBE_SCOPE
        .get_ptr(0)
        .map_or(0, |scope| unsafe { core::ptr::read_volatile(scope) })
}

/// Whether blocks are followed until they are given back.
#[inline(always)]
pub(crate) fn live() -> bool {
    read!(live) != 0
}

/// Whether allocations are sampled.
#[inline(always)]
pub(crate) fn sampled() -> bool {
    read!(sampled) != 0
}

/// The unit of variances of bytes.
#[inline(always)]
pub(crate) fn variance_shift() -> u32 {
    read!(variance_shift)
}

/// Whether code without a table is walked by frame pointers.
#[inline(always)]
pub(crate) fn by_frame_pointers_too() -> bool {
    read!(unwind) != BpfSettings::UNWIND_TABLES
}
