//! The limits and the missing rights of the process that reads names.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use rustix::process::{Gid, Resource, Rlimit, Signal, Uid, set_parent_process_death_signal, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs, set_thread_gid, set_thread_groups,
    set_thread_uid,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

/// Memory of its own that the process may have at least and at most: a quarter of the machine's
/// between them. Debug information of the largest programs that are shipped takes a few GiB.
const MEMORY_BYTES: (u64, u64) = (1 << 30, 8 << 30);

/// The user without rights, by the kernel's convention (`overflowuid`).
const NOBODY: u32 = 65534;

/// The memory that the process may have, in bytes.
pub(super) fn memory_limit_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    let machine = info.totalram.saturating_mul(u64::from(info.mem_unit));
    (machine / 4).clamp(MEMORY_BYTES.0, MEMORY_BYTES.1)
}

/// Gives up everything that reading files which are open does not take. To be called while there is
/// one thread; those that come later are bound too.
pub(super) fn enter() -> Result<()> {
    close_inherited();
    set_parent_process_death_signal(Some(Signal::KILL)).context("failed to be bound to the parent")?;
    let limits = [
        // Files that are mapped to be read do not count: pages of theirs can be dropped.
        (Resource::Data, memory_limit_bytes()),
        (Resource::Fsize, memory_limit_bytes()),
        (Resource::Core, 0),
        (Resource::Nofile, 256),
    ];
    for (resource, limit) in limits {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        setrlimit(resource, limit).context("failed to set a limit")?;
    }
    if let Err(error) = become_nobody() {
        // Without the right to change users, it has none to give up by it. In a container the user
        // may not exist.
        log::debug!("names are read with the rights of this user: {error}");
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).context("failed to give up capabilities")?;
    set_no_new_privs(true).context("failed to give up new privileges")?;
    filter_system_calls()
}

fn close_inherited() {
    // SAFETY: a system call without pointers; this process has opened nothing yet but its standard
    // streams, and nothing that was inherited beside them is used.
    let status = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    if status != 0 {
        log::debug!("inherited files stay open: {}", std::io::Error::last_os_error());
    }
}

fn become_nobody() -> rustix::io::Result<()> {
    set_thread_groups(&[])?;
    set_thread_gid(Gid::from_raw(NOBODY))?;
    set_thread_uid(Uid::from_raw(NOBODY))
}

/// Permits the system calls that reading, allocating and threads take. All others fail.
fn filter_system_calls() -> Result<()> {
    // glibc makes threads by clone3, whose flags no filter can see, and by clone where the kernel
    // has none. The other filter permits it, since the stricter of two answers counts.
    let no_clone3 = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
        TargetArch::x86_64,
    )?;
    let permitted = SeccompFilter::new(
        permitted()?,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    for filter in [no_clone3, permitted] {
        let program: BpfProgram = filter.try_into()?;
        apply_filter(&program).context("failed to filter system calls")?;
    }
    Ok(())
}

/// The system calls that are permitted, with conditions on their arguments.
fn permitted() -> Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let mut permitted: BTreeMap<i64, Vec<SeccompRule>> =
        PERMITTED.iter().map(|call| (*call, Vec::new())).collect();
    // (call, argument, the bits that matter, their value)
    let writing = flags(libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND);
    let executable = flags(libc::PROT_EXEC);
    let thread = flags(libc::CLONE_THREAD | libc::CLONE_VM);
    let conditions = [
        (libc::SYS_open, 1, writing, 0),
        (libc::SYS_openat, 2, writing, 0),
        (libc::SYS_mmap, 2, executable, 0),
        (libc::SYS_mprotect, 2, executable, 0),
        (libc::SYS_clone, 0, thread, thread),
        (libc::SYS_prctl, 0, u64::MAX, flags(libc::PR_SET_NAME)),
        // Limits are read alone.
        (libc::SYS_prlimit64, 2, u64::MAX, 0),
        // `abort`.
        (libc::SYS_tgkill, 0, u64::MAX, u64::from(std::process::id())),
    ];
    for (call, argument, mask, value) in conditions {
        let condition = SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::MaskedEq(mask),
            value,
        )?;
        permitted.insert(call, vec![SeccompRule::new(vec![condition])?]);
    }
    Ok(permitted)
}

/// Flags as an argument of a system call.
fn flags(flags: libc::c_int) -> u64 {
    u64::from(flags.cast_unsigned())
}

const PERMITTED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_fadvise64,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    // A file that this user may not open again is copied.
    libc::SYS_memfd_create,
    libc::SYS_recvmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_poll,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_clone3,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrlimit,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_sysinfo,
];
