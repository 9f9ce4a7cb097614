//! What every hit of a probe in an allocator begins with.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_attach_cookie},
    programs::ProbeContext,
};
use tracer_ebpf::{Counter, Loss, ProbeSite};

use crate::{loss::count, maps::SITES, process};

/// A hit in a process that is a target.
pub(super) struct Hit {
    /// The number of the process's image.
    pub(super) process: u32,
    /// The thread.
    pub(super) thread: u32,
    /// What the probe stands for.
    pub(super) site: &'static ProbeSite,
}

/// Counts a hit. Nothing for a process that is no target.
#[inline(always)]
pub(super) fn target(ctx: &ProbeContext) -> Result<Option<Hit>, Loss> {
    count(Counter::Seen);
    let pid_tgid = bpf_get_current_pid_tgid();
    let Some(process) = process::current((pid_tgid >> 32) as u32) else {
        count(Counter::Foreign);
        return Ok(None);
    };
    // SAFETY: the context is this program's own.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.regs.cast()) };
    let site = SITES.get_ptr(cookie as u32).ok_or(Loss::UnknownSite)?;
    Ok(Some(Hit {
        process,
        thread: pid_tgid as u32,
        // SAFETY: the pointer is to a map value that the loader wrote before it attached the probe.
        site: unsafe { &*site },
    }))
}
