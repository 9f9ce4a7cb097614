//! The tables of tools, in the order of their rows, and the limits that memtap has to keep.

use std::path::Path;

use super::bytehound::Bytehound;
use super::ltrace::Ltrace;
use super::memleak::Memleak;
use super::memtap::{EVERY, MemtapTracer, SAMPLED};
use super::perf::Perf;
use super::valgrind::Valgrind;
use super::walk::{WalkCost, WalkKind};
use super::{BenchTool, Heaptrack, bpftrace, live_bt};
use crate::compare::RatioLimit;
use crate::effort::{SLOW, SLOWEST};
use crate::results::{Clock, RowKind};
use crate::target::Build;

/// The row of a probe without a tool: the trap alone.
pub(crate) const EMPTY_UPROBE: &str = "empty uprobe";
const BPFTRACE: &str = "bpftrace @[ustack]";
const LIVE_SCRIPT: &str = "bpftrace live.bt";
const MEMLEAK: &str = "bcc memleak";
const DWARF: &str = "memtap record";
const FP: &str = "memtap record --unwind fp";
const LIVE: &str = "memtap record --live";
const ONE_PROBE: &str = "memtap record --live, one probe";

/// Tools that look at allocations alone.
pub(crate) fn calls(memtap: &Path, walk_cost: &Path) -> Vec<BenchTool> {
    let own = |name, kind, options: &[&[&'static str]]| {
        BenchTool::attached(name, kind, MemtapTracer::new(memtap, options))
    };
    let peer = RowKind::Peer;
    vec![
        BenchTool::bare(Build::FramePointers),
        BenchTool::attached(EMPTY_UPROBE, RowKind::Memtap, walker(walk_cost, WalkKind::Empty)),
        own(DWARF, RowKind::Headline, &[EVERY, &["--unwind", "dwarf"]]),
        own(FP, RowKind::Memtap, &[EVERY, &["--unwind", "fp"]]),
        own("memtap record --sample 512k", RowKind::Memtap, &[SAMPLED]),
        BenchTool::attached(BPFTRACE, peer, bpftrace::Bpftrace),
        BenchTool::attached("perf record, no stacks", peer, Perf::NoStacks),
        BenchTool::attached("perf record, frame pointers", peer, Perf::FramePointers),
        BenchTool::attached("perf record, dwarf", peer, Perf::Dwarf).at(SLOW),
        BenchTool::launched("ltrace", peer, Ltrace)
            .at(SLOWEST)
            .by(Clock::Wall),
        BenchTool::bare(Build::NoFramePointers),
        own(DWARF, RowKind::Headline, &[EVERY, &["--unwind", "dwarf"]]).without_frame_pointers(),
    ]
}

/// The limits of memtap's cost beside them. A call from fewer frames costs mostly the trap, which
/// is the same for all.
pub(crate) const CALLS_LIMITS: &[RatioLimit] = &[
    RatioLimit {
        subject: DWARF,
        reference: BPFTRACE,
        share: 0.4,
        from_depth: 20,
        optional: false,
    },
    RatioLimit {
        subject: FP,
        reference: BPFTRACE,
        share: 0.6,
        from_depth: 20,
        optional: false,
    },
];

/// Tools that follow every block to its free.
pub(crate) fn live(memtap: &Path) -> Vec<BenchTool> {
    let own = |name, kind, options: &[&'static str], amount: &[&'static str]| {
        BenchTool::attached(
            name,
            kind,
            MemtapTracer::new(memtap, &[amount, &["--live"], options]),
        )
    };
    let peer = RowKind::Peer;
    vec![
        BenchTool::bare(Build::FramePointers),
        own(LIVE, RowKind::Headline, &["--unwind", "dwarf"], EVERY),
        own(ONE_PROBE, RowKind::Memtap, &["--probes", "one"], EVERY),
        own(
            "memtap record --live, two probes",
            RowKind::Memtap,
            &["--probes", "two"],
            EVERY,
        ),
        own(
            "memtap record --live --sample 512k",
            RowKind::Memtap,
            &[],
            SAMPLED,
        ),
        BenchTool::attached(LIVE_SCRIPT, peer, live_bt::LiveScript).at(SLOW),
        BenchTool::attached(MEMLEAK, peer, Memleak).at(SLOW),
        BenchTool::launched("heaptrack", peer, Heaptrack),
        BenchTool::launched("bytehound", peer, Bytehound),
        BenchTool::launched("valgrind massif", peer, Valgrind::Massif),
        BenchTool::launched("valgrind dhat", peer, Valgrind::Dhat),
    ]
}

/// The limits of memtap's cost beside them.
pub(crate) const LIVE_LIMITS: &[RatioLimit] = &[
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
) -> RatioLimit {
    RatioLimit {
        subject,
        reference,
        share,
        from_depth,
        optional,
    }
}

/// Returns whether a row of this name is a table's headline.
pub(crate) fn is_headline(name: &str) -> bool {
    [DWARF, LIVE, FRESH].contains(&name)
}

/// Rows whose cost in two threads is held against their cost in one.
pub(crate) const THREADS_SUBJECTS: &[&str] = &[DWARF, LIVE];

/// The most that a call may cost each of two threads, as a share of what it costs one alone.
pub(crate) const THREADS_LIMIT: f64 = 1.05;

/// Tools on a process that works: memtap's defaults for a running process, and what others leave of
/// it.
pub(crate) fn budget(memtap: &Path) -> Vec<BenchTool> {
    let own = |name, kind, options: &[&[&'static str]]| {
        BenchTool::attached(name, kind, MemtapTracer::new(memtap, options))
    };
    let budget: &[&'static str] = &["--max-overhead", "2"];
    vec![
        own("memtap record -p, its default budget", RowKind::Headline, &[]),
        own(
            "memtap record -p --max-overhead 2 --live",
            RowKind::Memtap,
            &[budget, &["--live"]],
        ),
        own("memtap record -p --sample 512k", RowKind::Memtap, &[SAMPLED]),
        own("memtap record -p, every call", RowKind::Memtap, &[EVERY]),
        BenchTool::attached(BPFTRACE, RowKind::Peer, bpftrace::Bpftrace),
        BenchTool::attached(MEMLEAK, RowKind::Peer, Memleak),
    ]
}

/// The least of its throughput that a process keeps under a budget of 2 %.
pub(crate) const KEPT_LIMIT: f64 = 0.97;

/// Walks without a tool around them.
pub(crate) fn walks(walk_cost: &Path) -> Vec<BenchTool> {
    let row = |name, kind, way| BenchTool::attached(name, kind, walker(walk_cost, way));
    vec![
        row("empty program", RowKind::Bare, WalkKind::Empty),
        row(FRESH, RowKind::Headline, WalkKind::Fresh),
        row(REMEMBERED, RowKind::Memtap, WalkKind::Remembered),
        row(KERNEL_KEPT, RowKind::Peer, WalkKind::KernelKept),
        row("bpf_get_stack", RowKind::Peer, WalkKind::Kernel),
    ]
}

const FRESH: &str = "memtap, fresh";
const REMEMBERED: &str = "memtap, remembered";
const KERNEL_KEPT: &str = "bpf_get_stackid";

/// The limits of what memtap's walk adds to a hit, beside the kernel's.
pub(crate) const WALK_LIMITS: &[RatioLimit] = &[
    RatioLimit {
        subject: FRESH,
        reference: KERNEL_KEPT,
        share: 0.7,
        from_depth: 0,
        optional: false,
    },
    RatioLimit {
        subject: REMEMBERED,
        reference: KERNEL_KEPT,
        share: 0.35,
        from_depth: 0,
        optional: false,
    },
];

fn walker(walk_cost: &Path, walker: WalkKind) -> WalkCost {
    WalkCost {
        binary: walk_cost.to_path_buf(),
        walker,
    }
}
