//! The beginning of every hit of a probe in an allocator. Each is counted, whatever comes of it: its process has paid for it.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_attach_cookie},
    programs::ProbeContext,
};
use tracer_ebpf::{BUCKETS, Counter, Loss, MAX_SITES, ProbeSite, intake};

use crate::{
    atomic,
    bounds::mask,
    heap::bucket,
    loss::count,
    maps::{HITS, SITES},
    process, settings,
};

/// A hit in a process that is a target.
pub(super) struct Hit {
    /// The number of the process's image.
    pub(super) process: u32,
    /// The thread.
    pub(super) thread: u32,
    /// What the probe stands for.
    pub(super) site: &'static ProbeSite,
}

/// Counts a hit by its probe, and where allocations are sampled by the size that the call asks for, if it does. True if
/// calls are taken in.
#[inline(always)]
pub(super) fn begin(ctx: &ProbeContext, bytes: Option<u64>) -> bool {
    if let Some(hits) = HITS.get_ptr_mut(0) {
        let site = mask::<{ MAX_SITES as u64 - 1 }>(cookie(ctx)) as usize;
        // SAFETY: the indices are masked to the arrays' lengths, powers of two; counters are only ever added to.
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
    if settings::intake() & intake::CALLS != 0 {
        return true;
    }
    pass_over();
    false
}

/// Counts a hit that is not taken in.
#[inline(always)]
pub(super) fn pass_over() {
    count(Counter::PassedOver);
    process::count_hit((bpf_get_current_pid_tgid() >> 32) as u32);
}

#[inline(always)]
fn cookie(ctx: &ProbeContext) -> u64 {
    // SAFETY: the context is this program's own.
    unsafe { bpf_get_attach_cookie(ctx.regs.cast()) }
}

/// What a hit is that is taken in. Nothing for a process that is no target.
#[inline(always)]
pub(super) fn target(ctx: &ProbeContext) -> Result<Option<Hit>, Loss> {
    let pid_tgid = bpf_get_current_pid_tgid();
    let Some(process) = process::current((pid_tgid >> 32) as u32) else {
        count(Counter::Foreign);
        return Ok(None);
    };
    let site = SITES.get_ptr(cookie(ctx) as u32).ok_or(Loss::UnknownSite)?;
    Ok(Some(Hit {
        process,
        thread: pid_tgid as u32,
        // SAFETY: the pointer is to a map value that the loader wrote before it attached the probe.
        site: unsafe { &*site },
    }))
}
