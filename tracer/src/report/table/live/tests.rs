//! Reports of small profiles.

use super::*;
use crate::profile::{Aged, HeapTotals, Losses, Marks, Metric};
use crate::report::sample::{SampleProfile, session};
use tracer_ebpf::{Function, Loss};

const MIB: u64 = 1 << 20;

/// A leak, and a cache that is larger and full.
fn sample() -> Profile {
    let mut sample = SampleProfile::default();
    let process = sample.process(7, "server");
    let frames = ["make_session", "fill_cache"].map(|name| sample.line(name, "/src/a.c", 3));
    let aged = [
        Aged {
            live: 400,
            live_bytes: 4 * MIB,
            old: 300,
            old_bytes: 3 * MIB,
            kept: 200,
            kept_bytes: 2 * MIB,
            oldest_ns: 10_000_000_000,
            half_live: 200,
            marks_bytes: [MIB, 2 * MIB, 3 * MIB],
            ..Aged::default()
        },
        Aged {
            live: 100,
            live_bytes: 8 * MIB,
            oldest_ns: 500_000_000,
            half_live: 100,
            marks_bytes: [8 * MIB; 3],
            ..Aged::default()
        },
    ];
    for (frame, aged) in frames.into_iter().zip(aged) {
        sample.heap(process, Function::Malloc, &[frame], 1000, 16 * MIB);
        let stack = sample.profile.stacks.last_mut().unwrap();
        stack.values.heap.aged = aged;
        stack.values.heap.sizes[14] = 1000;
        stack.values.heap.lifetimes[20] = 500;
    }
    sample.profile.has_ages = true;
    sample.profile.marks = Some(Marks {
        at: [2500, 5000, 7500].map(Duration::from_millis),
        end: Duration::from_secs(10),
    });
    sample.profile.held = Some(HeapTotals {
        live_bytes: 12 * MIB,
        live: 500,
        peak_bytes: 13 * MIB,
        peak: 510,
        free_calls: 1200,
        unmatched: 3,
        ..HeapTotals::default()
    });
    sample.profile
}

fn text(profile: &Profile, session: &Session, live: LiveOptions) -> String {
    let mut out = Vec::new();
    write(
        profile,
        session,
        &TableOptions::new(Metric::LiveBytes),
        &live,
        &mut out,
    )
    .unwrap();
    String::from_utf8(out).unwrap()
}

fn quiet() -> Session {
    let mut session = session();
    session.settings.traced.live = true;
    session.settings.traced.region = false;
    session.losses = Losses::default();
    session
}

const BY_SCORE: LiveOptions = LiveOptions {
    sort: LiveSort::Score,
    older_than: None,
};

/// The callers in the order of the table.
fn order(text: &str) -> Vec<&str> {
    let lines = text
        .lines()
        .filter_map(|line| line.split_once(" (a.c:3) → malloc"));
    lines.filter_map(|(row, _)| row.split(' ').next_back()).collect()
}

#[test]
fn all_figures_are_there() {
    crate::report::golden::check("live.table", || text(&sample(), &quiet(), BY_SCORE));
}

#[test]
fn estimates_say_how_sure_they_are() {
    let mut profile = sample();
    profile.sample_bytes = Some(512 << 10);
    for stack in &mut profile.stacks {
        let aged = &mut stack.values.heap.aged;
        aged.live_bytes_variance = u128::from(aged.live_bytes) * (128 << 10);
        aged.live_variance = u128::from(aged.live) * 50;
    }
    if let Some(held) = &mut profile.held {
        held.variances.peak_bytes = u128::from(held.peak_bytes) * (128 << 10);
    }
    let mut session = quiet();
    session.settings.traced.sampled = true;
    session.settings.sample_bytes = 512 << 10;
    crate::report::golden::check("live-sampled.table", || text(&profile, &session, BY_SCORE));
}

#[test]
fn the_leak_is_above_what_is_larger() {
    assert_eq!(
        order(&text(&sample(), &quiet(), BY_SCORE)),
        ["make_session", "fill_cache"]
    );
    let by_bytes = LiveOptions {
        sort: LiveSort::LiveBytes,
        older_than: None,
    };
    assert_eq!(
        order(&text(&sample(), &quiet(), by_bytes)),
        ["fill_cache", "make_session"]
    );
}

#[test]
fn other_orders() {
    for (sort, first) in [
        (LiveSort::Growth, "make_session"),
        (LiveSort::Oldest, "make_session"),
        (LiveSort::LiveCount, "make_session"),
        (LiveSort::LiveBytes, "fill_cache"),
    ] {
        let live = LiveOptions { sort, ..BY_SCORE };
        assert_eq!(order(&text(&sample(), &quiet(), live))[0], first, "{sort:?}");
    }
}

#[test]
fn only_old_blocks_count() {
    let old = LiveOptions {
        older_than: Some(Duration::from_secs(3)),
        ..BY_SCORE
    };
    let text = text(&sample(), &quiet(), old);
    assert_eq!(order(&text), ["make_session"]);
    assert!(text.contains("3.0 MiB of it at least 3.0 s old"), "{text}");
    assert!(text.contains("\n3.0 MiB     300"), "{text}");
}

#[test]
fn growth_that_is_not_known_is_not_shown() {
    let mut profile = sample();
    profile.marks = None;
    let text = text(&profile, &quiet(), BY_SCORE);
    assert!(!text.contains("GROWTH") && !text.contains("SCORE"), "{text}");
    assert!(text.contains("too short to tell growth"), "{text}");
    assert_eq!(order(&text), ["fill_cache", "make_session"]);
    assert_eq!(growth_bytes(&profile), None);
}

#[test]
fn lower_bounds_say_so() {
    let mut session = quiet();
    session.losses = Losses::new([(Loss::LiveMapFull, 5)]);
    let text = text(&sample(), &session, BY_SCORE);
    assert!(text.contains("at least 12.0 MiB live in 500 blocks"), "{text}");
    assert!(text.contains("lower bound"), "{text}");
}

#[test]
fn what_grew_most_is_named_first() {
    assert_eq!(growth_bytes(&sample()), Some(i128::from(2 * MIB)));
    assert_eq!(
        growers(&sample(), &CodeRules::DEFAULT, false, 3),
        ["+2.0 MiB: make_session (a.c:3) → malloc"]
    );
}
