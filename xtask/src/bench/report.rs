//! The figures as tables, as JSON, and as verdicts.

use std::fs;

use serde_json::{Value, json};

use super::compare::Line;
use super::tools::Role;
use super::{Effort, SIZE_BYTES};

/// What is measured where, before the first table.
pub(crate) fn heading(effort: &Effort) -> String {
    format!(
        "malloc({SIZE_BYTES}) and free, ns of thread CPU time per pair, {} rounds of {} × {} pairs; {}\n",
        effort.rounds,
        effort.batches,
        effort.pairs,
        machine()
    )
}

/// Whole tools.
pub(crate) fn calls(lines: &[Line<'_>]) -> String {
    let mut text = whole_tools(lines);
    text.push_str(
        "\nDepth: frames of the program, from main to the caller of malloc. The loop calls from one place, so that \
         memtap remembers its walk. bpftrace walks frame pointers alone: it has no row for the loop without them.\n",
    );
    text.push_str(&sentences(lines, "costs", "of bpftrace"));
    text
}

/// Whole tools that follow every block.
pub(crate) fn live(lines: &[Line<'_>]) -> String {
    let mut text = whole_tools(lines);
    text.push_str(
        "\nEvery block followed from its malloc to its free. heaptrack starts the loop, with functions of its own \
         before libc's, and counts the block that the C++ library takes when it is loaded; the others attach to \
         the running loop. bpftrace runs xtask/bench/live.bt.\n",
    );
    text.push_str(&sentences(lines, "costs", "of bpftrace"));
    text
}

fn whole_tools(lines: &[Line<'_>]) -> String {
    let mut text = String::from(
        "| tool | frame pointers | depth | median ns | fastest ns | over bare | of bare | of bpftrace | count error |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for line in lines {
        text.push_str(&calls_row(line));
    }
    text
}

fn calls_row(line: &Line<'_>) -> String {
    let (name, build, depth) = (line.tool.name, line.tool.build.label(), line.row.depth);
    let Some(median_ns) = line.median_ns else {
        return format!("| {name} | {build} | {depth} | {} | | | | | |\n", problem(line));
    };
    let is_base = line.tool.role == Role::Base;
    let beside = |value: Option<f64>, digits| cell(value.filter(|_| !is_base), digits);
    format!(
        "| {name} | {build} | {depth} | {median_ns:.1} | {:.1} | {} | {} | {} | {} |\n",
        line.row.min_ns,
        beside(line.over_base_ns, 1),
        beside(line.of_base, 1),
        cell(line.of_reference, 3),
        count_error(line),
    )
}

/// Walks without a tool around them.
pub(crate) fn walks(lines: &[Line<'_>]) -> String {
    let mut text = String::from(
        "| walk | depth | frames found | median ns | over the empty program | per frame | of bpf_get_stackid |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for line in lines {
        text.push_str(&walks_row(line));
    }
    text.push_str(
        "\nDepth: all frames behind malloc, with the three that libc starts the program with. The kernel's walk has \
         malloc itself as its first frame; it leaves out malloc's caller, and what is behind main's caller.\n",
    );
    text.push_str(&sentences(lines, "adds", "of what bpf_get_stackid adds"));
    text
}

fn walks_row(line: &Line<'_>) -> String {
    let (name, depth) = (line.tool.name, line.row.depth + START_FRAMES);
    let Some(median_ns) = line.median_ns else {
        return format!("| {name} | {depth} | | {} | | | |\n", problem(line));
    };
    let added = line.over_base_ns.filter(|_| line.tool.role != Role::Base);
    let frames = line.row.frames.and_then(|frames| u32::try_from(frames).ok());
    let per_frame = added.zip(frames).map(|(ns, frames)| ns / f64::from(frames));
    format!(
        "| {name} | {depth} | {} | {median_ns:.1} | {} | {} | {} |\n",
        frames.map_or_else(|| "–".to_owned(), |frames| frames.to_string()),
        cell(added, 1),
        cell(per_frame, 1),
        cell(line.of_reference.filter(|_| line.tool.role != Role::Base), 3),
    )
}

/// Frames between the program's `main` and its first instruction: `__libc_start_call_main`,
/// `__libc_start_main` and `_start`.
pub(crate) const START_FRAMES: u32 = 3;

/// One line of verdict for each row that has a limit.
fn sentences(lines: &[Line<'_>], verb: &str, of_what: &str) -> String {
    let sentences = lines.iter().filter_map(|line| sentence(line, verb, of_what));
    format!("\n{}\n", sentences.collect::<Vec<_>>().join("\n"))
}

fn sentence(line: &Line<'_>, verb: &str, of_what: &str) -> Option<String> {
    let (limit, verdict) = line.verdict()?;
    let depth = line.row.depth;
    let (word, name) = (verdict.word(), line.tool.name);
    let judgement = match line.of_reference {
        Some(share) => format!("{name} {verb} {share:.3} {of_what} at {depth} frames of the program"),
        None => format!("{name}: there are not both figures to compare at {depth} frames of the program"),
    };
    let miscount = match line.row.count_error {
        None | Some(0) => String::new(),
        Some(calls) => format!("; its count of calls is off by {calls:+}"),
    };
    let problem = line
        .row
        .problem
        .as_ref()
        .map(|problem| format!("; {problem}"))
        .unwrap_or_default();
    Some(format!(
        "{word}: {judgement}; the limit is {limit}{miscount}{problem}"
    ))
}

/// The rows for machines, with each round's median.
pub(crate) fn json(lines: &[Line<'_>]) -> Value {
    let rows = lines.iter().map(|line| {
        json!({
            "tool": line.tool.name,
            "frame_pointers": line.tool.build.label() == "yes",
            "depth": line.row.depth,
            "median_ns": line.median_ns,
            "min_ns": line.row.min_ns.is_finite().then_some(line.row.min_ns),
            "over_base_ns": line.over_base_ns,
            "of_base": line.of_base,
            "of_reference": line.of_reference,
            "limit": line.verdict().map(|(limit, _)| limit),
            "verdict": line.verdict().map(|(_, verdict)| verdict.word()),
            "count_error": line.row.count_error,
            "frames": line.row.frames,
            "round_ns": line.row.round_ns,
            "problem": line.row.problem,
        })
    });
    Value::Array(rows.collect())
}

/// A figure, or a dash.
pub(crate) fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

fn count_error(line: &Line<'_>) -> String {
    match line.row.count_error {
        Some(calls) => format!("{calls:+}"),
        None => "–".to_owned(),
    }
}

fn problem(line: &Line<'_>) -> String {
    let problem = line.row.problem.as_deref().unwrap_or("not measured");
    problem.replace('|', "/")
}

/// Kernel and processor: figures belong to the machine that they come from.
pub(crate) fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    format!("Linux {}, {model}", kernel.trim())
}
