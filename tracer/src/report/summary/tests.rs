//! Summaries of small profiles, against golden files.

use super::totals::AllocTotals;
use super::*;
use crate::profile::session::Traced;
use crate::profile::{GroupVariance, HeapTotals, HeapVariances, Variances};
use crate::report::sample::{SampleProfile, mixed, session};
use crate::report::{golden, units};
use serde_json::Value;
use tracer_ebpf::{Function, MAX_FRAMES, StackEnd};

fn text(summary: &Summary) -> String {
    let mut out = Vec::new();
    summary.write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn json(profile: &Profile, session: &Session) -> Value {
    serde_json::from_str(&text(&Summary::of(profile, session, Metric::AllocBytes))).unwrap()
}

#[test]
fn mixed_profile() {
    golden::check("mixed.summary.json", || {
        text(&Summary::of(&mixed(), &session(), Metric::AllocBytes))
    });
}

#[test]
fn order_in_the_profile_does_not_matter() {
    let mut other = mixed();
    other.stacks.reverse();
    other.objects.reverse();
    for metric in Metric::ALL {
        assert_eq!(
            text(&Summary::of(&mixed(), &session(), metric)),
            text(&Summary::of(&other, &session(), metric))
        );
    }
}

#[test]
fn heap_without_a_call_is_empty_and_zero() {
    let mut session = session();
    session.settings.traced.region = false;
    let json = json(&Profile::default(), &session);
    assert_eq!(
        json["totals"],
        serde_json::json!({ "functions": {}, "alloc": { "count": 0, "bytes": 0 } })
    );
    assert_eq!(json["settings"]["events"], serde_json::json!(["heap"]));
    assert_eq!(json["top_stacks"], serde_json::json!([]));
}

#[test]
fn blocks_that_do_not_apply_are_left_out() {
    let mut session = session();
    session.settings.traced.heap = false;
    let json = json(&mixed(), &session);
    for block in ["functions", "alloc"] {
        assert_eq!(json["totals"].get(block), None);
    }
    assert_eq!(json["totals"]["regions"]["mmap"]["failed"], 1);
    assert_eq!(json.get("cost"), None);
}

#[test]
fn failed_calls_are_known_only_with_returns() {
    let mut sample = SampleProfile::default();
    let process = sample.process(1, "p");
    let values = sample.stack(process, Function::Malloc, &[], Some(StackEnd::Complete));
    (values.calls, values.bytes, values.failed) = (10, 640, 2);
    values.heap.blocks = 8;
    let traced = |live| Traced {
        heap: true,
        region: false,
        live,
        sampled: false,
    };
    let functions = |live| {
        let totals = Totals::of(&sample.profile, Some(process), traced(live));
        serde_json::to_string(&totals).unwrap()
    };
    let with = functions(true);
    assert!(
        with.contains(r#""malloc":{"calls":10,"bytes":640,"failed":2}"#),
        "{with}"
    );
    assert!(with.contains(r#""alloc":{"count":8,"bytes":640}"#), "{with}");
    assert!(!functions(false).contains("failed"));
}

#[test]
fn totals_of_processes_add_up() {
    let profile = mixed();
    let all = Totals::of(&profile, None, session().settings.traced);
    let each =
        (0..profile.processes.len()).map(|it| Totals::of(&profile, Some(it), session().settings.traced));
    let (mut count, mut bytes) = (0, 0);
    for alloc in each.filter_map(|it| it.alloc) {
        count += alloc.count;
        bytes += alloc.bytes;
    }
    let expected = AllocTotals {
        count,
        bytes,
        ..AllocTotals::default()
    };
    assert_eq!(all.alloc, Some(expected));
    let summary = Summary::of(&profile, &session(), Metric::AllocBytes);
    let top: u128 = summary.top_stacks.iter().map(|it| it.weight).sum();
    assert_eq!(top, bytes);
}

/// Variances of figures that are estimates: those of different stacks add up, those of a whole
/// stand beside it.
#[test]
fn estimates_have_their_errors_beside_them() {
    let mut profile = mixed();
    for (stack, variance) in profile.stacks.iter_mut().zip(1_u128..) {
        stack.values.variances = Variances {
            calls: 100 * variance,
            bytes: 10_000 * variance,
            ..Variances::default()
        };
    }
    profile.sample_bytes = Some(4096);
    let mut session = session();
    session.settings.traced.sampled = true;
    session.settings.sample_bytes = 4096;
    let summary = json(&profile, &session);
    let heap: Vec<u128> = profile
        .stacks
        .iter()
        .zip(1_u128..)
        .filter(|(stack, _)| stack.function.is_heap())
        .map(|(_, variance)| variance)
        .collect();
    let sum: u128 = heap.iter().sum();
    let alloc = &summary["totals"]["alloc"];
    assert_eq!(alloc["count_stderr"], serde_json::json!(units::stderr(100 * sum)));
    assert_eq!(
        alloc["bytes_stderr"],
        serde_json::json!(units::stderr(10_000 * sum))
    );
    let realloc = &summary["totals"]["functions"]["realloc"];
    assert_eq!(realloc["calls_stderr"], 20, "the fourth stack: {realloc}");
    assert_eq!(realloc["bytes_stderr"], 200);
    assert!(summary["top_stacks"][0]["bytes_stderr"].is_u64());
    assert_eq!(summary["totals"]["regions"]["mmap"].get("calls_stderr"), None);
    session.settings.traced.sampled = false;
    assert!(!text(&Summary::of(&profile, &session, Metric::AllocBytes)).contains("_stderr"));
}

/// Stacks that were seen in the same windows vary together: their sum is less sure than its parts
/// say.
#[test]
fn sums_of_stacks_that_vary_together_say_so() {
    let mut profile = mixed();
    profile.sample_bytes = Some(1);
    let together = |process, function, deviation: u128| GroupVariance {
        process,
        function,
        calls_variance: deviation.pow(2),
        bytes_variance: (10 * deviation).pow(2),
    };
    profile.together = vec![
        together(None, None, 400),
        together(None, Some(Function::Malloc), 300),
        together(Some(0), None, 200),
        together(Some(0), Some(Function::Malloc), 100),
    ];
    // Of its own it is less sure than of its windows.
    let realloc = profile
        .stacks
        .iter_mut()
        .find(|stack| stack.function == Function::Realloc)
        .expect("one in the sample");
    realloc.values.variances.calls = 50 * 50;
    profile.together.push(together(None, Some(Function::Realloc), 10));
    let mut session = session();
    session.settings.traced.sampled = true;
    let summary = json(&profile, &session);
    let totals = &summary["totals"];
    assert_eq!(totals["alloc"]["count_stderr"], 400);
    assert_eq!(totals["alloc"]["bytes_stderr"], 4000);
    assert_eq!(totals["functions"]["malloc"]["calls_stderr"], 300);
    assert_eq!(totals["functions"]["realloc"]["calls_stderr"], 50);
    let processes = summary["processes"].as_array().expect("a list");
    let is_first = |process: &&Value| process["pid"] == profile.processes[0].pid;
    let first = &processes.iter().find(is_first).expect("it is there")["totals"];
    assert_eq!(first["alloc"]["count_stderr"], 200, "{first}");
    assert_eq!(first["functions"]["malloc"]["bytes_stderr"], 1000);
}

#[test]
fn only_the_heaviest_stacks_are_kept() {
    let mut sample = SampleProfile::default();
    let process = sample.process(1, "p");
    for bytes in 0..150 {
        let frame = sample.symbol(&format!("f{bytes}"));
        sample.heap(process, Function::Malloc, &[frame], 1, bytes);
    }
    let deep = vec![0; MAX_FRAMES];
    sample.heap(process, Function::Malloc, &deep, 1, u64::MAX);
    sample.heap(process, Function::Malloc, &deep, 1, u64::MAX);
    let summary = Summary::of(&sample.profile, &session(), Metric::AllocBytes);
    assert_eq!(summary.top_stacks.len(), Summary::TOP);
    assert_eq!(summary.top_stacks[0].frames.len(), MAX_FRAMES);
    assert_eq!(summary.stacks.distinct, 152);
    assert!(text(&summary).contains("\"weight\": 36893488147419103230"));
}

#[test]
fn what_is_held_is_told_of_each_process_and_of_all() {
    let mut sample = SampleProfile::default();
    let process = sample.process(1, "p");
    let frame = sample.symbol("f");
    sample.heap(process, Function::Malloc, &[frame], 16, 640);
    let held = HeapTotals {
        live_bytes: 480,
        live: 8,
        peak_bytes: 500,
        peak: 9,
        peak_by_stack_bytes: None,
        free_calls: 10,
        unmatched: 2,
        missed: 0,
        variances: HeapVariances::default(),
    };
    sample.profile.processes[process].held = Some(held);
    sample.profile.held = Some(HeapTotals {
        peak_by_stack_bytes: Some(320),
        ..held
    });
    let mut session = session();
    session.settings.traced.live = true;
    let json = json(&sample.profile, &session);
    for totals in [&json["totals"], &json["processes"][0]["totals"]] {
        assert_eq!(totals["freed"], serde_json::json!({ "count": 8, "bytes": 160 }));
        assert_eq!(totals["live"], serde_json::json!({ "count": 8, "bytes": 480 }));
        assert_eq!(totals["peak"]["bytes"], 500);
        assert_eq!(totals["temporary"]["count"], 2);
        assert_eq!(totals["usable_bytes"], 648);
        assert_eq!(
            totals["functions"]["free"],
            serde_json::json!({ "calls": 10, "unmatched": 2, "missed": 0 })
        );
    }
    assert_eq!(json["totals"]["peak"]["by_stack_bytes"], 320);
    assert_eq!(json["processes"][0]["totals"]["peak"].get("by_stack_bytes"), None);
}
