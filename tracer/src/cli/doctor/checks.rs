//! Checks of the kernel and the user: each requirement with yes, no, or "could not tell".
//!
//! Features are tried, not deduced from versions.

use std::collections::BTreeMap;
use std::path::Path;

use tracer_ebpf::BpfSettings;

use crate::bpf::load::{BpfError, Wanted};
use crate::bpf::{Object, btf, programs, tracefs};
use crate::process::sideband::Sideband;
use crate::recorder::cost::Traps;
use crate::recorder::cost::measure::{MeasureError, Measuring};
use crate::settings::Limits;

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckAnswer {
    /// The requirement is met.
    Yes,
    /// The requirement is not met.
    No,
    /// The check could not tell.
    Unknown,
}

impl CheckAnswer {
    /// The word for it.
    #[must_use]
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// A requirement and the result of its check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    /// The name of the requirement.
    pub(super) name: &'static str,
    /// The result.
    pub(super) answer: CheckAnswer,
    /// The options that need it.
    pub(super) needed_for: &'static str,
    /// True if nothing works without it.
    pub(super) required: bool,
    /// The observation, and what to do.
    pub(super) detail: String,
}

/// The kernel's release, as `uname -r` says.
#[must_use]
pub(super) fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Looks at everything. Leaves nothing behind.
#[must_use]
pub(super) fn examine() -> Vec<Check> {
    vec![
        privileges(),
        btf_offsets(),
        uprobes(),
        uprobe_links(),
        tracefs_mount(),
        side_band(),
        heap_programs(),
        live_programs(),
        region_programs(),
        table_programs(),
    ]
}

fn check(
    name: &'static str,
    needed_for: &'static str,
    required: bool,
    seen: Result<String, String>,
) -> Check {
    let (answer, detail) = match seen {
        Ok(detail) => (CheckAnswer::Yes, detail),
        Err(detail) => (CheckAnswer::No, detail),
    };
    Check {
        name,
        answer,
        needed_for,
        required,
        detail,
    }
}

fn privileges() -> Check {
    let missing = crate::privileges::missing();
    let seen = if missing.is_empty() {
        Ok("all that are needed".to_owned())
    } else {
        Err(format!("missing {}: run memtap with sudo", missing.join(", ")))
    };
    check("capabilities", "everything", true, seen)
}

/// Without capabilities the kernel refuses whatever it could do.
fn unless_unprivileged(mut check: Check) -> Check {
    if check.answer == CheckAnswer::No && !crate::privileges::missing().is_empty() {
        check.answer = CheckAnswer::Unknown;
        check.detail = format!("cannot be tried without the capabilities ({})", check.detail);
    }
    check
}

fn btf_offsets() -> Check {
    let seen = btf::Btf::of_kernel()
        .and_then(|kernel| {
            let offsets = kernel.kernel_offsets()?;
            Ok(format!(
                "task_struct.mm at {}, mm_struct.brk at {}",
                offsets.task_mm, offsets.mm_brk
            ))
        })
        .map_err(|error| error.to_string());
    check(
        "kernel type information (BTF)",
        "--events region, stacks by unwind tables",
        false,
        seen,
    )
}

fn uprobes() -> Check {
    let path = "/sys/bus/event_source/devices/uprobe/type";
    let seen = std::fs::read_to_string(path)
        .map(|number| format!("event source {}", number.trim()))
        .map_err(|error| format!("{path}: {error}; the kernel must be built with CONFIG_UPROBE_EVENTS"));
    check("uprobes", "--events heap", true, seen)
}

fn uprobe_links() -> Check {
    let seen = crate::bpf::many_uprobes_in_a_link()
        .map(|()| "uprobe_multi".to_owned())
        .map_err(|error| {
            format!("{error}; Linux 6.6 and later have them, without each probe is a perf event")
        });
    unless_unprivileged(check(
        "links of many uprobes",
        "attaching to hundreds of processes, taking probes off quickly",
        false,
        seen,
    ))
}

fn tracefs_mount() -> Check {
    let name = "tracefs";
    let needed_for = "following children, --events region";
    if tracefs::is_mounted() {
        return check(name, needed_for, true, Ok("mounted".to_owned()));
    }
    let seen =
        tracefs::with_tracefs(|| Path::new("/sys/kernel/tracing/events/syscalls/sys_enter_mmap/id").exists())
            .map_err(|error| format!("not mounted, and it cannot be mounted privately: {error}"))
            .and_then(|syscalls| {
                let missing = "the kernel has no tracepoints of system calls: CONFIG_FTRACE_SYSCALLS";
                if syscalls { Ok(()) } else { Err(missing.to_owned()) }
            })
            .map(|()| "not mounted; memtap mounts it for itself alone".to_owned());
    unless_unprivileged(check(name, needed_for, true, seen))
}

fn side_band() -> Check {
    let seen = Sideband::open()
        .map(|_sideband| "heard on every CPU".to_owned())
        .map_err(|error| format!("perf_event_open: {error}; CONFIG_PERF_EVENTS"));
    unless_unprivileged(check(
        "records of process life",
        "names of short-lived processes",
        true,
        seen,
    ))
}

fn load(wanted: Wanted, sampled: bool) -> Result<Object, BpfError> {
    let mut settings = BpfSettings {
        max_size: u64::MAX,
        ..BpfSettings::default()
    };
    if wanted.tables {
        // Else the verifier leaves out how copies are sent.
        settings.copies_max = 1;
        settings.unwind = BpfSettings::UNWIND_AUTO;
        settings.offsets = btf::Btf::of_kernel()?.kernel_offsets()?;
    }
    settings.live = u32::from(wanted.live);
    settings.sampled = u32::from(sampled);
    let limits = Limits {
        stacks: 1,
        blocks: 1,
        processes: 1,
        ring_bytes: 4096,
        copy_ring_bytes: 4096,
        unwind_bytes: 1 << 16,
    };
    Object::load(&settings, &limits, wanted)
}

fn loaded(name: &'static str, needed_for: &'static str, required: bool, wanted: Wanted) -> Check {
    let began = std::time::Instant::now();
    let seen = load(wanted, false)
        .map(|_object| format!("past the verifier in {} ms", began.elapsed().as_millis()))
        .map_err(|error| error.to_string());
    unless_unprivileged(check(name, needed_for, required, seen))
}

fn heap_programs() -> Check {
    let wanted = Wanted {
        heap: true,
        ..Wanted::default()
    };
    loaded("eBPF programs of allocator calls", "--events heap", true, wanted)
}

fn live_programs() -> Check {
    let wanted = Wanted {
        heap: true,
        live: true,
        single: true,
        ..Wanted::default()
    };
    loaded("eBPF programs of returns and free", "--live", false, wanted)
}

fn region_programs() -> Check {
    let wanted = Wanted {
        region: true,
        ..Wanted::default()
    };
    loaded("eBPF programs of system calls", "--events region", false, wanted)
}

fn table_programs() -> Check {
    let wanted = Wanted {
        heap: true,
        region: true,
        tables: true,
        ..Wanted::default()
    };
    loaded(
        "stacks by unwind tables",
        "--unwind dwarf; without it --unwind auto walks by frame pointers alone",
        false,
        wanted,
    )
}

/// Measures the cost of a hit of each kind of probe.
pub(super) fn traps() -> Result<Traps, MeasureError> {
    let wanted = Wanted {
        cost: true,
        ..Wanted::default()
    };
    let mut object = load(wanted, false)?;
    Measuring::prepare(&mut object)?.start()?.finish()
}

/// Returns the number of instructions that the verifier of this kernel goes through for each
/// program, with walks by unwind tables where the kernel takes them; once more, as `PROGRAM, live`,
/// for those that differ where blocks are tracked, and as `PROGRAM, sampled` and
/// `PROGRAM, live, sampled` where allocations are sampled.
#[must_use]
pub(super) fn verified_instructions() -> BTreeMap<String, Option<u32>> {
    let counts = |live: bool, sampled: bool| {
        let wanted = |tables| Wanted {
            heap: true,
            region: !live,
            tables,
            live,
            single: live,
            ..Wanted::default()
        };
        [true, false]
            .into_iter()
            .find_map(|tables| load(wanted(tables), sampled).ok())
            .map_or_else(BTreeMap::new, |object| programs::verified_instructions(&object))
    };
    let every = counts(false, false);
    let mut all = every.clone();
    for (variant, live, sampled) in [
        (", live", true, false),
        (", sampled", false, true),
        (", live, sampled", true, true),
    ] {
        for (name, count) in counts(live, sampled) {
            if every.get(&name) != Some(&count) {
                all.insert(format!("{name}{variant}"), count);
            }
        }
    }
    all
}
