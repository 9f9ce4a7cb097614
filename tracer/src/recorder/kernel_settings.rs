//! Settings of the kernel side, and the loading of it.

use std::os::unix::ffi::OsStrExt as _;

use tracer_ebpf::{BpfSettings, KernelOffsets, StopOffsets, comm_of, sampling};

use super::figures::VarianceUnit;
use super::targets::{StartError, has_tree};
use crate::bpf::load::{BpfError, Wanted};
use crate::bpf::{Object, Sampling, btf};
use crate::settings::{Probing, Record, Sample, StopPolicy, Target, Unwind};

/// The purpose of a recorder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A recording.
    Record,
    /// An estimate of the cost of recordings.
    Estimate,
}

/// Loads the kernel side for a purpose.
pub(super) fn load(settings: &Record, purpose: Purpose) -> Result<Object, StartError> {
    let wanted = Wanted {
        heap: settings.heap,
        region: settings.region,
        tables: settings.unwind != Unwind::FramePointer,
        live: settings.live,
        single: settings.live && settings.probing != Probing::Two,
        attach: settings.attach,
        // A process that is about to load a library must not wait; a running one has most of what
        // it will load.
        later: matches!(settings.target, Target::Pids(_)) && !settings.follow,
        cost: settings.heap,
        tree: has_tree(settings),
        frees: purpose == Purpose::Estimate,
    };
    let mut bpf = bpf_settings(settings)?;
    if purpose == Purpose::Estimate {
        // The cost of a sample depends on sizes, which are counted only where sampling is possible.
        bpf.sampled = 1;
    }
    let mut object = Object::load(&bpf, &settings.limits, wanted)?;
    if bpf.sampled != 0 {
        object.seed(settings.seed)?;
        object.set_sampling(match settings.sample {
            Sample::Bytes(interval_bytes) => Sampling {
                interval_bytes,
                ..Sampling::EVERY
            },
            // Until the cost of that is known.
            Sample::Every | Sample::Auto => Sampling::EVERY,
        })?;
    }
    Ok(object)
}

/// Returns true if a call may stand for others: for those that are not sampled, or those while
/// probes are detached.
fn is_sampled(settings: &Record) -> bool {
    settings.sample != Sample::Every || settings.overhead_max_percent.is_some()
}

/// The unit of variances, by the largest interval between sample points.
pub(super) fn variance_unit(settings: &Record) -> VarianceUnit {
    VarianceUnit::new(variance_shift(settings))
}

fn variance_shift(settings: &Record) -> u32 {
    match settings.sample {
        Sample::Bytes(interval) if settings.overhead_max_percent.is_none() => {
            sampling::variance_shift_of(u32::try_from(interval).unwrap_or(u32::MAX))
        }
        _ if is_sampled(settings) => sampling::VARIANCE_SHIFT_OF_ANY,
        _ => 0,
    }
}

fn bpf_settings(settings: &Record) -> Result<BpfSettings, StartError> {
    let mut bpf = BpfSettings {
        min_size: settings.min_size.unwrap_or(0),
        max_size: settings.max_size.unwrap_or(u64::MAX),
        scope: match settings.target {
            Target::All => BpfSettings::SCOPE_MACHINE,
            Target::Cgroup(_) => BpfSettings::SCOPE_CGROUP,
            _ => BpfSettings::SCOPE_LISTED,
        },
        // Children of a cgroup's processes are in it too, as long as they stay there.
        follow: u32::from(settings.follow && !matches!(settings.target, Target::Cgroup(_))),
        live: u32::from(settings.live),
        sampled: u32::from(is_sampled(settings)),
        variance_shift: variance_shift(settings),
        own_tgid: std::process::id(),
        tree: u32::from(has_tree(settings)),
        ..BpfSettings::default()
    };
    if let Target::Comm(name) = &settings.target {
        bpf.match_comm = 1;
        bpf.comm = comm_of(name.as_bytes());
    }
    bpf.unwind = match settings.unwind {
        Unwind::Auto => BpfSettings::UNWIND_AUTO,
        Unwind::Dwarf => BpfSettings::UNWIND_TABLES,
        Unwind::FramePointer => BpfSettings::UNWIND_FRAME_POINTER,
    };
    if settings.unwind != Unwind::FramePointer {
        bpf.copies_max = settings.limits.copies();
        bpf.stop_for_code = number(settings.stop_for_code);
    }
    if has_tree(settings) {
        bpf.stop_for_probes = number(settings.stop_children);
    }
    if settings.region || settings.unwind != Unwind::FramePointer {
        let kernel = btf::Btf::of_kernel().map_err(BpfError::from)?;
        bpf.offsets = kernel.kernel_offsets().map_err(BpfError::from)?;
        set_stop_offsets(&mut bpf, &kernel);
    } else {
        let offsets = btf::Btf::of_kernel().and_then(|kernel| {
            set_stop_offsets(&mut bpf, &kernel);
            kernel.pid_offsets()
        });
        bpf.offsets = offsets.unwrap_or_else(|error| {
            log::debug!("{error}: the numbers of processes in their own namespaces are read from /proc");
            KernelOffsets::default()
        });
    }
    Ok(bpf)
}

/// Says where it stands who would notice that a process is stopped, where that is asked.
fn set_stop_offsets(bpf: &mut BpfSettings, kernel: &btf::Btf) {
    if [bpf.stop_for_code, bpf.stop_for_probes].contains(&BpfSettings::STOP_UNSEEN) {
        bpf.stop_offsets = kernel.stop_offsets().unwrap_or_else(|error| {
            log::debug!("{error}: nothing is stopped, neither for probes nor for unwind tables");
            StopOffsets::default()
        });
    }
}

const fn number(stop: StopPolicy) -> u32 {
    match stop {
        StopPolicy::Never => BpfSettings::STOP_NEVER,
        StopPolicy::Unseen => BpfSettings::STOP_UNSEEN,
        StopPolicy::Always => BpfSettings::STOP_ALWAYS,
    }
}
