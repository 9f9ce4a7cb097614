//! The beginning of every hit of a probe in an allocator. Each is counted, whatever comes of it:
//! its process has paid for it.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_attach_cookie},
    programs::ProbeContext,
};
use tracer_ebpf::{BUCKETS, CaptureMode, Counter, Loss, MAX_SITES};

use crate::{
    atomic,
    bounds::mask,
    heap::bucket,
    loss::{count, count_loss},
    maps::HITS,
    process, settings,
};

/// A hit in a process that is a target.
pub(super) struct Hit {
    /// The number of the process's image.
    pub(super) process: u32,
    /// The thread.
    pub(super) thread: u32,
}

/// Counts a hit by its probe, and where allocations are sampled by the size that the call asks for,
/// if it does. True if calls are taken in.
#[inline(always)]
pub(super) fn begin(ctx: &ProbeContext, bytes: Option<u64>) -> bool {
    let cookie = cookie(ctx);
    if settings::is_superseded(cookie) {
        return false;
    }
    if let Some(hits) = HITS.get_ptr_mut(0) {
        let site = mask::<{ MAX_SITES as u64 - 1 }>(cookie) as usize;
        // SAFETY: the indices are masked to the arrays' lengths, powers of two; counters are only
        // ever added to.
        unsafe {
            atomic::add((&raw mut (*hits).by_site).cast::<u64>().add(site), 1);
            if let Some(bytes) = bytes
                && settings::sampled()
            {
                let class = mask::<{ BUCKETS as u64 - 1 }>(bucket(bytes)) as usize;
                atomic::add((&raw mut (*hits).by_size).cast::<u64>().add(class), 1);
            }
        }
    }
    if settings::capture_mode() & CaptureMode::CALLS != 0 {
        return true;
    }
    count_skipped();
    false
}

/// Counts a hit that is skipped.
#[inline(always)]
pub(super) fn count_skipped() {
    count(Counter::Skipped);
    process::count_hit((bpf_get_current_pid_tgid() >> 32) as u32);
}

/// Counts a hit of a probe that the loader has not described.
#[inline(always)]
pub(super) fn unknown(ctx: &ProbeContext) {
    if begin(ctx, None) {
        count_loss(Loss::UnknownSite);
    }
}

#[inline(always)]
fn cookie(ctx: &ProbeContext) -> u64 {
    // SAFETY: the context is this program's own.
    unsafe { bpf_get_attach_cookie(ctx.regs.cast()) }
}

/// The process and the thread of a hit; nothing if the process is not in scope.
#[inline(always)]
pub(super) fn target() -> Option<Hit> {
    let pid_tgid = bpf_get_current_pid_tgid();
    let Some(process) = process::current((pid_tgid >> 32) as u32) else {
        count(Counter::Foreign);
        return None;
    };
    Some(Hit {
        process,
        thread: pid_tgid as u32,
    })
}
