//! The facts of a recording, in words: what was traced and how, what was lost, what it cost.

use std::path::Path;

use serde::Serialize;
use tracer_ebpf::Function;

use crate::message::escape::one_line;
use crate::profile::cost::Cost;
use crate::profile::session::Traced;
use crate::profile::{HeapTotals, Profile, ProfiledProcess, Session};
use crate::report::merge::Completeness;
use crate::report::source::{ForeignFacts, Origin};
use crate::report::sums::{FunctionSums, Sums};
use crate::report::{ReportSource, label, losses, units};

/// Facts under one heading.
#[derive(Debug, Default, Serialize)]
pub(super) struct FactSection {
    title: &'static str,
    /// Names and values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    facts: Vec<(&'static str, String)>,
    /// Sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// The heads of the columns of a table, the first of which names its rows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    columns: Vec<&'static str>,
    /// The rows of that table.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rows: Vec<Vec<String>>,
}

/// Returns every section.
pub(super) fn sections(source: &ReportSource<'_>) -> Vec<FactSection> {
    match source.origin {
        Origin::Recording(session) => of_recording(source.profile, session),
        Origin::Foreign(facts) => vec![foreign(facts), processes(source.profile, None)],
    }
}

/// The sections of a recording of memtap's.
fn of_recording(profile: &Profile, session: &Session) -> Vec<FactSection> {
    let sums = FunctionSums::of(profile, None);
    let mut sections = vec![
        recording(profile, session, &sums),
        trust(profile, session, &sums),
        settings(session),
    ];
    sections.extend(session.cost.as_ref().map(|it| cost(it, session)));
    sections.push(functions(session, profile.held.as_ref(), &sums));
    sections.push(processes(profile, session.cost.as_ref()));
    sections
}

/// The facts of a profile of another program.
fn foreign(facts: &ForeignFacts) -> FactSection {
    let mut notes = vec!["Another program recorded this profile: its losses are not known.".to_owned()];
    if facts.period_bytes > 1 {
        let samples = units::samples(facts.period_bytes);
        notes.push(format!("Figures are estimates from {samples}."));
    }
    notes.extend(facts.comments.iter().map(|it| one_line(it).into_owned()));
    FactSection {
        title: "Recording",
        facts: facts
            .duration
            .map(|it| ("Duration", units::duration(it)))
            .into_iter()
            .collect(),
        notes,
        ..FactSection::default()
    }
}

/// Totals.
fn recording(profile: &Profile, session: &Session, sums: &FunctionSums) -> FactSection {
    let traced = session.settings.traced;
    let mut facts = vec![
        ("Duration", units::duration(session.duration)),
        ("Kernel", one_line(&session.kernel).into_owned()),
    ];
    if traced.heap {
        let heap = sums.heap_total();
        let calls = heap.calls - heap.failed.min(heap.calls);
        let count = units::group(calls);
        facts.push(("Allocations", about(traced, &count, calls, heap.variances.calls)));
        let bytes = units::bytes(heap.bytes);
        facts.push((
            "Allocated",
            about(traced, &bytes, heap.bytes, heap.variances.bytes),
        ));
    }
    if let Some(held) = &profile.held {
        let figure = |bytes: u64, variance, count: u64| {
            let bytes = u128::from(bytes);
            let text = about(traced, &units::bytes(bytes), bytes, variance);
            format!("{text} in {}", units::counted(count.into(), "block"))
        };
        let variances = &held.variances;
        facts.push((
            "Live at the end",
            figure(held.live_bytes, variances.live_bytes, held.live),
        ));
        facts.push(("Peak", figure(held.peak_bytes, variances.peak_bytes, held.peak)));
        let total = sums.heap_total();
        if total.temporary > 0 {
            let share = units::percent(total.temporary, total.blocks);
            facts.push((
                "Temporary",
                format!("{} ({share})", units::counted(total.temporary, "block")),
            ));
        }
        if total.usable_bytes > 0 {
            let unused = total.usable_bytes.saturating_sub(total.bytes);
            let share = units::percent(unused, total.usable_bytes);
            facts.push((
                "Unused room in blocks",
                format!("{} ({share})", units::bytes(unused)),
            ));
        }
    }
    FactSection {
        title: "Recording",
        facts,
        ..FactSection::default()
    }
}

/// Losses and margins.
fn trust(profile: &Profile, session: &Session, sums: &FunctionSums) -> FactSection {
    let mut notes = losses::phrases(&session.losses);
    for note in &mut notes {
        note.insert_str(0, "Lost: ");
    }
    if notes.is_empty() {
        notes.push("Nothing lost.".to_owned());
    }
    let traced = session.settings.traced;
    if traced.sampled {
        notes.push(format!(
            "Figures are estimates from {}; ± is the margin at 95 %.",
            units::samples(session.settings.sample_bytes)
        ));
        let heap = sums.heap_total();
        if let Some(percent) = units::margin_percent(heap.bytes, heap.variances.bytes) {
            notes.push(format!("All allocated bytes: {}.", units::margin(percent)));
        }
    } else if session.losses.total() > 0 {
        notes.push("All other events were recorded.".to_owned());
    } else {
        notes.push("Every event was recorded: figures are exact.".to_owned());
    }
    let (mut calls, mut whole, mut lost) = (0, 0, 0);
    for stack in &profile.stacks {
        let count = u128::from(stack.values.calls);
        calls += count;
        match Completeness::of(stack) {
            Completeness::Whole => whole += count,
            Completeness::Truncated => {}
            Completeness::Lost => lost += count,
        }
    }
    let events = &session.events;
    let mut facts = vec![
        ("Calls with whole stacks", units::percent_at_least(whole, calls)),
        ("Calls without a stack", units::group(lost)),
        ("Events seen", units::group(events.seen.into())),
        ("recorded", units::group(events.recorded.into())),
    ];
    for (name, count) in [
        ("nested calls", events.nested),
        ("of other sizes", events.filtered),
        ("of other processes", events.foreign),
        ("not sampled", events.unsampled),
    ] {
        if count > 0 {
            facts.push((name, units::group(count.into())));
        }
    }
    FactSection {
        title: "Losses and margins",
        facts,
        notes,
        ..FactSection::default()
    }
}

/// The settings, those that were chosen for the user too.
fn settings(session: &Session) -> FactSection {
    let settings = &session.settings;
    let traced = settings.traced;
    let yes = |it: bool| (if it { "yes" } else { "no" }).to_owned();
    let mut events = Vec::new();
    if traced.heap {
        events.push("heap");
    }
    if traced.region {
        events.push("region");
    }
    let mut facts = vec![
        ("Events", events.join(", ")),
        ("Frees followed (--live)", yes(traced.live)),
        (
            "Sample",
            if traced.sampled {
                units::samples(settings.sample_bytes)
            } else {
                "every allocation".to_owned()
            },
        ),
        ("Unwinder", one_line(&settings.unwind).into_owned()),
    ];
    if let Some(follow) = settings.follow {
        facts.push(("Children followed", yes(follow)));
    }
    if let Some(size) = settings.min_size {
        facts.push(("Smallest size", units::bytes(size.into())));
    }
    if let Some(size) = settings.max_size {
        facts.push(("Largest size", units::bytes(size.into())));
    }
    facts.push(("Probes", units::group(session.probes.len() as u128)));
    let stepped = session.probes.iter().filter(|it| it.single_stepped).count();
    if stepped > 0 {
        facts.push(("Probes that are single-stepped", units::group(stepped as u128)));
    }
    let memory: u128 = session.memory.iter().map(|it| u128::from(it.bytes)).sum();
    if memory > 0 {
        facts.push(("Memory of the kernel side", units::bytes(memory)));
    }
    FactSection {
        title: "Settings",
        facts,
        ..FactSection::default()
    }
}

/// The cost of tracing.
fn cost(cost: &Cost, session: &Session) -> FactSection {
    let nanoseconds = |ns: u64| units::duration(std::time::Duration::from_nanos(ns));
    let mut facts = vec![
        (
            "Cost for the targets",
            format!("{:.2} % of a CPU", cost.estimated_overhead_percent),
        ),
        ("Time that targets lost", nanoseconds(cost.estimated_target_ns)),
        ("in eBPF programs", nanoseconds(cost.bpf_ns)),
        ("Hits of probes", units::group(cost.hits.into())),
    ];
    if cost.foreign_hits > 0 {
        facts.push((
            "by processes that are not traced",
            units::group(cost.foreign_hits.into()),
        ));
    }
    if let Some(budget) = &cost.budget {
        let kept = if budget.kept { "kept" } else { "exceeded" };
        facts.push((
            "Budget",
            format!("{} % of a CPU, {kept}", budget.max_overhead_percent),
        ));
        if session.settings.traced.sampled && budget.sample_bytes_largest > 1 {
            let [least, most] =
                [budget.sample_bytes_smallest, budget.sample_bytes_largest].map(|it| units::bytes(it.into()));
            facts.push(("Sampling interval", format!("{least} to {most}")));
        }
        if budget.windows > 0 {
            let share = 100.0 * budget.probed_time_share;
            let windows = units::counted(budget.windows.into(), "window");
            facts.push((
                "Probes attached",
                format!("{share:.1} % of the time, in {windows}"),
            ));
        }
    }
    FactSection {
        title: "Cost",
        facts,
        ..FactSection::default()
    }
}

/// The totals of each function.
fn functions(session: &Session, held: Option<&HeapTotals>, sums: &FunctionSums) -> FactSection {
    let traced = session.settings.traced;
    let row = |name: &str, sums: &Sums, knows_failures: bool| {
        let failed = if knows_failures {
            units::group(sums.failed)
        } else {
            units::NONE.to_owned()
        };
        vec![
            name.to_owned(),
            units::group(sums.calls),
            units::bytes(sums.bytes),
            failed,
        ]
    };
    // Without `--live` returns of allocators are not traced.
    let mut rows: Vec<Vec<String>> = sums
        .heap()
        .map(|(function, sums)| row(function.name(), &sums, traced.live))
        .collect();
    if let Some(held) = held {
        rows.push(vec![
            Function::Free.name().to_owned(),
            units::group(held.free_calls.into()),
            units::bytes(sums.heap_total().freed_bytes),
            units::NONE.to_owned(),
        ]);
    }
    if traced.region {
        for function in [Function::Mmap, Function::Munmap, Function::Mremap, Function::Brk] {
            rows.push(row(function.name(), &sums.get(function), true));
        }
    }
    FactSection {
        title: "Totals by function",
        columns: vec!["Function", "Calls", "Bytes", "Failed"],
        rows,
        ..FactSection::default()
    }
}

/// The processes.
fn processes(profile: &Profile, cost: Option<&Cost>) -> FactSection {
    let mut processes: Vec<&ProfiledProcess> = profile.processes.iter().collect();
    processes.sort_by(|a, b| (a.pid, &a.comm, &a.exe).cmp(&(b.pid, &b.comm, &b.exe)));
    let path = |path: &Path| one_line(&path.to_string_lossy()).into_owned();
    let rows = processes
        .into_iter()
        .map(|process| {
            let exe = process.exe.as_deref();
            let mut row = vec![
                label::process_and_number(process),
                exe.map_or_else(|| units::NONE.to_owned(), path),
                (if process.exited { "ended" } else { "runs" }).to_owned(),
            ];
            row.extend(cost.map(|cost| format!("{:.2} %", cost.of(process.hits).estimated_overhead_percent)));
            row
        })
        .collect();
    let mut columns = vec!["Process", "Program", "At the end"];
    columns.extend(cost.map(|_| "Cost"));
    FactSection {
        title: "Processes",
        columns,
        rows,
        ..FactSection::default()
    }
}

/// A figure in words, as the estimate that it may be.
fn about(traced: Traced, words: &str, estimate: u128, variance: u128) -> String {
    match units::margin_percent(estimate, variance) {
        Some(percent) => format!("≈ {words} {}", units::margin(percent)),
        None if traced.sampled => format!("≈ {words}"),
        None => words.to_owned(),
    }
}
