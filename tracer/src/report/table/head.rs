//! The first line: whose figures these are, how many, and how far they can be trusted.

use std::io::{self, Write};

use super::TableOptions;
use super::text::{BOLD, paint};
use crate::profile::session::Traced;
use crate::profile::{Profile, ProfiledProcess, Session};
use crate::report::merge::Merged;
use crate::report::sums::FunctionSums;
use crate::report::{label, losses, units};
use tracer_ebpf::Function;

/// Between two facts.
const DOT: &str = " · ";

/// Processes that are named one by one.
const NAMED_PROCESSES: usize = 3;

/// Writes the line, broken between two facts where it would be wider than it may be.
pub(super) fn write(
    profile: &Profile,
    session: &Session,
    merged: &Merged,
    options: &TableOptions<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    write_facts(&facts(profile, session, merged, options), options, out)
}

/// Writes facts on a line, broken between two where it would be wider than it may be.
pub(super) fn write_facts(
    facts: &[String],
    options: &TableOptions<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut line = String::new();
    let mut used = 0;
    for (index, fact) in facts.iter().enumerate() {
        let width = |text| options.charset.width(text);
        let fact_width = width(fact);
        if index > 0 {
            let whole = used + width(DOT) + fact_width;
            if options.width.is_some_and(|limit| whole > limit) {
                writeln!(out, "{line}")?;
                line = String::from("  ");
                used = line.len();
            } else {
                line.push_str(DOT);
                used += width(DOT);
            }
        }
        used += fact_width;
        line.push_str(&if index == 0 {
            paint(fact, BOLD, options.colours)
        } else {
            fact.clone()
        });
    }
    writeln!(out, "{line}")
}

/// Returns the facts of the line.
fn facts(profile: &Profile, session: &Session, merged: &Merged, options: &TableOptions<'_>) -> Vec<String> {
    let mut facts = vec![processes(profile), units::duration(session.duration)];
    let traced = session.settings.traced;
    let sums = FunctionSums::of(profile, None);
    if traced.heap {
        let heap = sums.heap_total();
        let calls = heap.calls - heap.failed.min(heap.calls);
        let count = units::counted(calls, "allocation");
        facts.push(about(traced, &count, calls, heap.variances.calls));
        let bytes = units::bytes(heap.bytes);
        facts.push(about(traced, &bytes, heap.bytes, heap.variances.bytes));
        facts.extend(estimated(session));
    }
    if let Some(held) = &profile.held {
        let figure = |bytes: u64, variance| {
            let bytes = u128::from(bytes);
            about(traced, &units::bytes(bytes), bytes, variance)
        };
        let live = figure(held.live_bytes, held.variances.live_bytes);
        let blocks = units::counted(held.live.into(), "block");
        facts.push(format!("{live} live in {blocks}"));
        let peak = figure(held.peak_bytes, held.variances.peak_bytes);
        facts.push(format!("peak {peak}"));
    }
    if traced.region {
        let calls = REGION.iter().map(|it| sums.get(*it).calls).sum();
        facts.push(units::counted(calls, "memory-map call"));
    }
    if merged.total > 0 {
        let unit = if options.metric.is_bytes() {
            "bytes".to_owned()
        } else {
            format!("{}s", options.metric.counts())
        };
        facts.push(if merged.whole == merged.total {
            "all stacks whole".to_owned()
        } else {
            let share = units::percent_at_least(merged.whole, merged.total);
            format!("{share} of {unit} have whole stacks")
        });
    }
    facts.extend(losses(session));
    if let Some(cost) = &session.cost {
        facts.push(format!("cost {:.1} % of a CPU", cost.estimated_overhead_percent));
        // Less is not worth a word.
        if u128::from(cost.foreign_hits) * 100 >= u128::from(cost.hits) && cost.foreign_hits > 0 {
            let share = units::percent(cost.foreign_hits.into(), cost.hits.into());
            facts.push(format!("of it {share} in processes that are not traced"));
        }
        if let Some(budget) = cost.budget.filter(|budget| budget.windows > 0) {
            facts.push(format!(
                "probes in for {:.1} % of the time, in {}",
                100.0 * budget.probed_time_share,
                units::counted(budget.windows.into(), "window")
            ));
        }
    }
    facts
}

/// A figure in words, as the estimate that it may be: with how far the truth may be from it.
pub(super) fn about(traced: Traced, words: &str, estimate: u128, variance: u128) -> String {
    match units::margin_percent(estimate, variance) {
        Some(percent) => format!("≈ {words} {}", units::margin(percent)),
        // So large that nothing was left out, or nothing was seen.
        None if traced.sampled => format!("≈ {words}"),
        None => words.to_owned(),
    }
}

/// Returns the source of estimates and the meaning of their margins.
pub(super) fn estimated(session: &Session) -> Option<String> {
    session.settings.traced.sampled.then(|| {
        format!(
            "estimated from {}, ± at 95 %",
            units::samples(session.settings.sample_bytes)
        )
    })
}

/// Returns the losses, or that there are none.
pub(super) fn losses(session: &Session) -> Vec<String> {
    let lost = losses::phrases(&session.losses);
    if lost.is_empty() {
        return vec!["nothing lost".to_owned()];
    }
    lost.into_iter().map(|it| format!("lost: {it}")).collect()
}

/// The system calls of the region family.
const REGION: [Function; 4] = [Function::Mmap, Function::Munmap, Function::Mremap, Function::Brk];

/// Returns the names of the processes.
pub(super) fn processes(profile: &Profile) -> String {
    let mut processes: Vec<&ProfiledProcess> = profile.processes.iter().collect();
    processes.sort_by_key(|it| (it.pid, &it.comm));
    match processes.len() {
        0 => "no process".to_owned(),
        1..=NAMED_PROCESSES => {
            let names: Vec<String> = processes.iter().map(|it| label::process_and_number(it)).collect();
            names.join(", ")
        }
        count => units::counted(count as u128, "process"),
    }
}
