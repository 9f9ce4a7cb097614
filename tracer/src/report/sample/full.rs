//! A profile with everything that a profile can have.

use std::time::Duration;

use tracer_ebpf::{BUCKETS, Function, StackEnd};

use super::{mixed, session};
use crate::profile::cost::{BudgetBlock, Cost, PricesBlock};
use crate::profile::session::TableUsage;
use crate::profile::{
    Aged, Frame, FrameName, GroupVariance, HeapTotals, HeapValues, HeapVariances, Marks, Metric, Profile,
    ProfiledProcess, Session, SourceLine, Stack, Values, Variances,
};
use crate::report::source::{LiveView, ReportView};
use crate::report::table::live::LiveSort;
use crate::report::table::{SortColumn, TableView};

/// Figures that all differ, and grow with `seed`; those of 128 bits do not fit 64.
pub(crate) fn full_values(seed: u64) -> Values {
    let wide = |number: u128| (u128::from(seed) << 64) + number;
    let counts = |from: u32| std::array::from_fn::<u32, BUCKETS, _>(|it| from + u32::try_from(it).unwrap());
    Values {
        calls: seed + 40,
        bytes: seed + 41,
        bytes_out: seed + 2,
        failed: seed + 3,
        heap: HeapValues {
            blocks: seed + 30,
            freed: seed + 5,
            freed_bytes: seed + 6,
            temporary: seed + 7,
            usable_bytes: seed + 8,
            untracked: 9,
            untracked_bytes: 10,
            peak_bytes: seed + 11,
            sizes: counts(100),
            lifetimes: counts(1000),
            aged: Aged {
                live: seed + 12,
                live_bytes: seed + 13,
                old: seed + 14,
                old_bytes: seed + 15,
                kept: seed + 16,
                kept_bytes: seed + 17,
                oldest_ns: seed + 18,
                half_live: seed + 19,
                marks_bytes: [seed + 20, seed + 21, seed + 22],
                live_variance: wide(23),
                live_bytes_variance: wide(24),
                old_bytes_variance: wide(25),
            },
        },
        variances: Variances {
            calls: wide(31),
            bytes: wide(32),
            blocks: wide(33),
            freed: wide(34),
            freed_bytes: wide(35),
            temporary: wide(36),
            untracked: wide(37),
            untracked_bytes: wide(38),
        },
    }
}

/// A profile with everything that a profile can have, beside what [`mixed`] has.
pub(crate) fn full() -> (Profile, Session) {
    let mut profile = mixed();
    let held = |seed| HeapTotals {
        live_bytes: seed + 1,
        live: seed + 2,
        peak_bytes: seed + 3,
        peak: seed + 4,
        peak_by_stack_bytes: Some(seed + 5),
        free_calls: seed + 6,
        unmatched: seed + 7,
        missed: seed + 8,
        variances: HeapVariances {
            live: u128::MAX,
            live_bytes: 1 << 100,
            peak: 3,
            peak_bytes: 4,
        },
    };
    for (seed, stack) in (1..).zip(&mut profile.stacks) {
        stack.values = full_values(seed * 1000);
    }
    profile.stacks[0].values.bytes = u64::MAX;
    for (seed, process) in (1..).zip(&mut profile.processes) {
        process.inner_pid = Some(7);
        process.held = Some(held(seed * 100));
        process.hits = 99 + seed;
    }
    // Two images of one process, of which nothing but the order tells.
    let again = ProfiledProcess {
        hits: 1,
        ..profile.processes[0].clone()
    };
    profile.processes.push(again);
    let stack = Stack {
        process: profile.processes.len() - 1,
        ..profile.stacks[1].clone()
    };
    profile.stacks.push(stack);
    // Places of files, inlined code, and names that are easily taken for others.
    for (index, frame) in profile.frames.iter_mut().enumerate() {
        frame.object = (index != 6).then_some(usize::from(index == 5));
    }
    let odd = [
        FrameName::Compiled,
        FrameName::Symbol("".into()),
        FrameName::Symbol("[truncated]".into()),
        FrameName::Symbol("[jit]".into()),
    ];
    let first = profile.frames.len();
    profile.frames.extend(odd.map(|name| Frame {
        name,
        source: None,
        inlined: false,
        object: None,
    }));
    profile.frames.push(Frame {
        name: FrameName::Symbol("outermost".into()),
        source: Some(SourceLine {
            file: "".into(),
            line: 5,
        }),
        inlined: true,
        object: Some(1),
    });
    let stack = Stack {
        frames: (first..first + 5).chain([3, 3, 0]).collect(),
        end: Some(StackEnd::Signal),
        ..profile.stacks[0].clone()
    };
    profile.stacks.push(stack);
    profile.objects[1].debug = Some("/usr/lib/debug/a".into());
    profile.objects[1].was_fetched = true;
    profile.held = Some(held(7));
    profile.together = vec![
        GroupVariance {
            process: None,
            function: None,
            calls_variance: 1 << 80,
            bytes_variance: 2,
        },
        GroupVariance {
            process: Some(1),
            function: Some(Function::Calloc),
            calls_variance: 3,
            bytes_variance: 4,
        },
    ];
    profile.has_ages = true;
    profile.sample_bytes = Some(512 << 10);
    profile.marks = Some(Marks {
        at: [2501, 5002, 7503].map(Duration::from_micros),
        end: Duration::from_nanos(10_020_000_001),
    });

    (profile, full_session())
}

/// A session with everything that a session can have.
fn full_session() -> Session {
    let mut session = session();
    session.settings.traced.live = true;
    session.settings.traced.sampled = true;
    session.settings.sample_bytes = 512 << 10;
    session.tables = Some(TableUsage {
        files: 12,
        awaited: 3,
        ..TableUsage::default()
    });
    session.cost = Some(Cost {
        hits: 100,
        foreign_hits: 3,
        bpf_ns: 5,
        estimated_target_ns: 6,
        estimated_overhead_percent: 0.1 + 0.2,
        prices: PricesBlock {
            emulated_ns: 700,
            ..PricesBlock::default()
        },
        budget: Some(BudgetBlock {
            max_overhead_percent: 2.0,
            kept: true,
            sample_bytes_smallest: 1,
            sample_bytes_largest: 3,
            sample_bytes_last: 2,
            probed_time_share: 1.0 / 3.0,
            windows: 4,
            slowing_factor: Some(1.1),
            slowing_error: None,
            calls_stderr: Some(8),
            bytes_stderr: None,
        }),
    });
    session
}

/// The view of a report on live blocks, with all that a view can have.
pub(in crate::report) fn live_view() -> ReportView {
    ReportView {
        metric: Metric::LiveBytes,
        per_pid: true,
        table: TableView {
            top: 7,
            sort: Some(SortColumn::LiveBytes),
            live_sort: LiveSort::Oldest,
            min_percent: Some(0.1),
            short_names: false,
            hide: Some("^lib".to_owned()),
            ..TableView::default()
        },
        live: Some(LiveView {
            older_than: Some(Duration::from_millis(1500)),
        }),
    }
}
