//! The tables of tools, in the order of their rows, and the limits that memtap has to keep.

use std::path::Path;

use super::bytehound::Bytehound;
use super::ltrace::Ltrace;
use super::memleak::Memleak;
use super::memtap::{EVERY, Memtap, SAMPLED};
use super::perf::Perf;
use super::valgrind::Valgrind;
use super::walk::{WalkCost, Walker};
use super::{Heaptrack, Tool, bpftrace, live_bt};
use crate::compare::Limit;
use crate::effort::{SLOW, SLOWEST};
use crate::results::{Clock, Kind};
use crate::target::Build;

/// What the trap of a probe costs without a tool.
pub(crate) const EMPTY_UPROBE: &str = "empty uprobe";
const BPFTRACE: &str = "bpftrace @[ustack]";
const LIVE_SCRIPT: &str = "bpftrace live.bt";
const MEMLEAK: &str = "bcc memleak";
const DWARF: &str = "memtap record";
const FP: &str = "memtap record --unwind fp";
const LIVE: &str = "memtap record --live";
const ONE_PROBE: &str = "memtap record --live, one probe";

/// Tools that look at allocations alone.
pub(crate) fn calls(memtap: &Path, walk_cost: &Path) -> Vec<Tool> {
    let own =
        |name, kind, options: &[&[&'static str]]| Tool::attached(name, kind, Memtap::new(memtap, options));
    let peer = Kind::Peer;
    vec![
        Tool::bare(Build::FramePointers),
        Tool::attached(EMPTY_UPROBE, Kind::Memtap, walker(walk_cost, Walker::Empty)),
        own(DWARF, Kind::Headline, &[EVERY, &["--unwind", "dwarf"]]),
        own(FP, Kind::Memtap, &[EVERY, &["--unwind", "fp"]]),
        own("memtap record --sample 512k", Kind::Memtap, &[SAMPLED]),
        Tool::attached(BPFTRACE, peer, bpftrace::Bpftrace),
        Tool::attached("perf record, no stacks", peer, Perf::NoStacks),
        Tool::attached("perf record, frame pointers", peer, Perf::FramePointers),
        Tool::attached("perf record, dwarf", peer, Perf::Dwarf).at(SLOW),
        Tool::launched("ltrace", peer, Ltrace).at(SLOWEST).by(Clock::Wall),
        Tool::bare(Build::NoFramePointers),
        own(DWARF, Kind::Headline, &[EVERY, &["--unwind", "dwarf"]]).without_frame_pointers(),
    ]
}

/// What memtap may cost beside them. A call from fewer frames costs mostly the trap, which is the same for all.
pub(crate) const CALLS_LIMITS: &[Limit] = &[
    Limit {
        subject: DWARF,
        reference: BPFTRACE,
        share: 0.4,
        from_depth: 20,
        optional: false,
    },
    Limit {
        subject: FP,
        reference: BPFTRACE,
        share: 0.6,
        from_depth: 20,
        optional: false,
    },
];

/// Tools that follow every block to its free.
pub(crate) fn live(memtap: &Path) -> Vec<Tool> {
    let own = |name, kind, options: &[&'static str], amount: &[&'static str]| {
        Tool::attached(name, kind, Memtap::new(memtap, &[amount, &["--live"], options]))
    };
    let peer = Kind::Peer;
    vec![
        Tool::bare(Build::FramePointers),
        own(LIVE, Kind::Headline, &["--unwind", "dwarf"], EVERY),
        own(ONE_PROBE, Kind::Memtap, &["--probes", "one"], EVERY),
        own(
            "memtap record --live, two probes",
            Kind::Memtap,
            &["--probes", "two"],
            EVERY,
        ),
        own("memtap record --live --sample 512k", Kind::Memtap, &[], SAMPLED),
        Tool::attached(LIVE_SCRIPT, peer, live_bt::LiveScript).at(SLOW),
        Tool::attached(MEMLEAK, peer, Memleak).at(SLOW),
        Tool::launched("heaptrack", peer, Heaptrack),
        Tool::launched("bytehound", peer, Bytehound),
        Tool::launched("valgrind massif", peer, Valgrind::Massif),
        Tool::launched("valgrind dhat", peer, Valgrind::Dhat),
    ]
}

/// What memtap may cost beside them.
pub(crate) const LIVE_LIMITS: &[Limit] = &[
    live_limit(LIVE, LIVE_SCRIPT, 0.2, 20, false),
    live_limit(LIVE, LIVE_SCRIPT, 0.3, 0, false),
    live_limit(LIVE, MEMLEAK, 0.2, 20, true),
    live_limit(ONE_PROBE, LIVE_SCRIPT, 0.15, 20, true),
    live_limit(ONE_PROBE, MEMLEAK, 0.15, 20, true),
];

const fn live_limit(
    subject: &'static str,
    reference: &'static str,
    share: f64,
    from_depth: u32,
    optional: bool,
) -> Limit {
    Limit {
        subject,
        reference,
        share,
        from_depth,
        optional,
    }
}

/// Whether a row of this name is a table's headline.
pub(crate) fn is_headline(name: &str) -> bool {
    [DWARF, LIVE, FRESH].contains(&name)
}

/// Rows whose cost in two threads is held against their cost in one.
pub(crate) const THREADS_SUBJECTS: &[&str] = &[DWARF, LIVE];

/// The most that a call may cost each of two threads, as a share of what it costs one alone.
pub(crate) const THREADS_LIMIT: f64 = 1.05;

/// Tools on a process that works: memtap's defaults for a running process, and what others leave of it.
pub(crate) fn budget(memtap: &Path) -> Vec<Tool> {
    let own =
        |name, kind, options: &[&[&'static str]]| Tool::attached(name, kind, Memtap::new(memtap, options));
    let budget: &[&'static str] = &["--max-overhead", "2"];
    vec![
        own("memtap record -p, its default budget", Kind::Headline, &[]),
        own(
            "memtap record -p --max-overhead 2 --live",
            Kind::Memtap,
            &[budget, &["--live"]],
        ),
        own("memtap record -p --sample 512k", Kind::Memtap, &[SAMPLED]),
        own("memtap record -p, every call", Kind::Memtap, &[EVERY]),
        Tool::attached(BPFTRACE, Kind::Peer, bpftrace::Bpftrace),
        Tool::attached(MEMLEAK, Kind::Peer, Memleak),
    ]
}

/// The least of its throughput that a process keeps under a budget of 2 %.
pub(crate) const KEPT_LIMIT: f64 = 0.97;

/// Walks without a tool around them.
pub(crate) fn walks(walk_cost: &Path) -> Vec<Tool> {
    let row = |name, kind, way| Tool::attached(name, kind, walker(walk_cost, way));
    vec![
        row("empty program", Kind::Bare, Walker::Empty),
        row(FRESH, Kind::Headline, Walker::Fresh),
        row(REMEMBERED, Kind::Memtap, Walker::Remembered),
        row(KERNEL_KEPT, Kind::Peer, Walker::KernelKept),
        row("bpf_get_stack", Kind::Peer, Walker::Kernel),
    ]
}

const FRESH: &str = "memtap, fresh";
const REMEMBERED: &str = "memtap, remembered";
const KERNEL_KEPT: &str = "bpf_get_stackid";

/// What memtap's walk may add to a hit beside the kernel's.
pub(crate) const WALK_LIMITS: &[Limit] = &[
    Limit {
        subject: FRESH,
        reference: KERNEL_KEPT,
        share: 0.7,
        from_depth: 0,
        optional: false,
    },
    Limit {
        subject: REMEMBERED,
        reference: KERNEL_KEPT,
        share: 0.35,
        from_depth: 0,
        optional: false,
    },
];

fn walker(walk_cost: &Path, walker: Walker) -> WalkCost {
    WalkCost {
        binary: walk_cost.to_path_buf(),
        walker,
    }
}
