//! The figures as tables to read.

use std::fs;
use std::thread::available_parallelism;

use super::compare::miscount;
use super::grid::{Grid, Side, cell, group, nanoseconds, ratio};
use super::results::{Document, Judgement, LoopLine, Machine, ProgramRow, RowKind, Throughput};
use super::{tables, versions};

/// A title, and what is measured where.
pub(crate) fn heading(document: &Document) -> String {
    let (machine, effort) = (&document.machine, &document.effort);
    format!(
        "# What tracing costs\n\n`{}` on Linux {}, {}, {} CPUs. {} rounds of {} batches of {} pairs of malloc({}) and \
         free for each row of the loop, fewer pairs for slow tools; medians.{}\n",
        document.command,
        machine.kernel,
        machine.processor,
        machine.cpus,
        effort.rounds,
        effort.batches,
        group(&effort.pairs.to_string()),
        effort.size_bytes,
        if effort.quick {
            " A look, not figures to quote."
        } else {
            ""
        }
    )
}

/// The versions, the limits, and what they come to.
pub(crate) fn ending(document: &Document) -> String {
    format!(
        "{}\n{}",
        versions::line(&document.versions),
        judgements(&document.judgements)
    )
}

/// A line for each limit.
fn judgements(judgements: &[Judgement]) -> String {
    if judgements.is_empty() {
        return String::new();
    }
    let lines = judgements.iter().map(|each| format!("\n- {}", each.text()));
    format!("\n## Limits\n{}\n", lines.collect::<String>())
}

/// Tools that look at allocations alone.
pub(crate) fn loops(lines: &[LoopLine]) -> String {
    format!(
        "## Allocations traced: malloc and free in a loop\n\n{}\nDepth: functions of the program between main and \
         malloc. Only malloc is traced, not free. The loop calls from one place, so that memtap remembers its walk. \
         Tools that walk frame pointers have no rows for the loop without them. perf writes a record for each call; its \
         walks of copied stacks (dwarf) come after, and are not counted. ltrace stops the thread at each call, so \
         that wall time is what it costs.\n",
        whole_tools(lines)
    )
}

/// Tools that follow every block.
pub(crate) fn live(lines: &[LoopLine]) -> String {
    format!(
        "## Live heap: every block followed from malloc to free\n\n{}\nheaptrack, bytehound and valgrind start the \
         program; the others attach to it while it runs. bpftrace runs tests/bench/fixtures/live.bt.\n",
        whole_tools(lines)
    )
}

/// Both in two threads.
pub(crate) fn threads(lines: &[LoopLine]) -> String {
    format!(
        "## Two threads at once, and one\n\n{}\nNanoseconds of each thread, which has a processor of its own where there are two. The single \
         thread is one that main starts, like the two. valgrind lets one thread run at a time.\n",
        in_threads(lines)
    )
}

/// The table of whole tools on the loop.
pub(crate) fn whole_tools(lines: &[LoopLine]) -> String {
    let mut grid = Grid::new(&[
        ("tool", Side::Left),
        ("frame pointers", Side::Left),
        ("depth", Side::Right),
        ("ns per pair", Side::Right),
        ("time", Side::Left),
        ("× bare", Side::Right),
        ("memtap ÷ this", Side::Right),
        ("calls seen", Side::Right),
        ("notes", Side::Left),
    ]);
    for line in lines {
        let time = if line.median_ns.is_some() {
            serde_json::to_value(line.clock)
                .ok()
                .and_then(|name| Some(name.as_str()?.to_owned()))
        } else {
            None
        };
        grid.row(vec![
            line.tool.clone(),
            if line.frame_pointers { "yes" } else { "no" }.to_owned(),
            line.depth.to_string(),
            nanoseconds(line.median_ns),
            time.unwrap_or_default(),
            ratio(line.of_bare),
            ratio(line.memtap_of_it),
            seen(line),
            notes(line),
        ]);
    }
    grid.markdown()
}

/// The table of tools in one thread and in two.
fn in_threads(lines: &[LoopLine]) -> String {
    let mut grid = Grid::new(&[
        ("tool", Side::Left),
        ("frame pointers", Side::Left),
        ("threads", Side::Right),
        ("ns per pair", Side::Right),
        ("÷ one thread", Side::Right),
        ("calls seen", Side::Right),
        ("notes", Side::Left),
    ]);
    for line in lines {
        let alone = lines.iter().find(|other| {
            other.threads == 1 && other.tool == line.tool && other.frame_pointers == line.frame_pointers
        });
        let share = line.median_ns.zip(alone.and_then(|alone| alone.median_ns));
        grid.row(vec![
            line.tool.clone(),
            if line.frame_pointers { "yes" } else { "no" }.to_owned(),
            line.threads.to_string(),
            nanoseconds(line.median_ns),
            cell(
                share.filter(|_| line.threads > 1).map(|(own, alone)| own / alone),
                3,
            ),
            seen(line),
            notes(line),
        ]);
    }
    grid.markdown()
}

/// The part of the calls that a tool told of.
fn seen(line: &LoopLine) -> String {
    let Some(seen) = line.calls_seen else {
        return "–".to_owned();
    };
    let about = if line.calls_stderr.is_some() { "≈ " } else { "" };
    match miscount(line) {
        0 if line.calls_stderr.is_none() => "all".to_owned(),
        // So few that a share would not show them.
        extra @ 1..=999 => format!("{extra:+}"),
        _ => format!("{about}{} %", cell(percent(seen, line.calls_made), 1)),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a benchmark stay far below 2^52"
)]
fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| 100.0 * part as f64 / whole as f64)
}

fn notes(line: &LoopLine) -> String {
    let lost = match miscount(line) {
        lost if lost < 0 => u64::try_from(-lost)
            .ok()
            .and_then(|lost| percent(lost, line.calls_made)),
        _ => None,
    };
    let lost = lost.map(|lost| format!("lost {lost:.1} % of the calls"));
    let error = line
        .calls_stderr
        .map(|error| format!("± {} calls", group(&format!("{error:.0}"))));
    let note = line.note.clone().filter(|_| line.median_ns.is_some());
    let words = [line.problem.clone(), lost, error, note];
    words.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Walks without a tool around them.
pub(crate) fn walks(lines: &[LoopLine]) -> String {
    let mut grid = Grid::new(&[
        ("walk", Side::Left),
        ("stack", Side::Right),
        ("frames found", Side::Right),
        ("ns per pair", Side::Right),
        ("over the empty program", Side::Right),
        ("per frame", Side::Right),
        ("memtap ÷ this", Side::Right),
        ("notes", Side::Left),
    ]);
    for line in lines {
        let added = line.over_bare_ns.filter(|_| line.kind != RowKind::Bare);
        let frames = line.frames.and_then(|frames| u32::try_from(frames).ok());
        grid.row(vec![
            line.tool.clone(),
            (line.depth + START_FRAMES).to_string(),
            frames.map_or_else(|| "–".to_owned(), |frames| frames.to_string()),
            nanoseconds(line.median_ns),
            nanoseconds(added),
            cell(added.zip(frames).map(|(ns, frames)| ns / f64::from(frames)), 1),
            ratio(line.memtap_of_it),
            notes(line),
        ]);
    }
    format!(
        "## The walk alone\n\n{}\nStack: all frames behind malloc, with main and the three that libc starts it with. \
         The kernel's walk has malloc itself as its first frame; it leaves out malloc's caller, and what is behind \
         main's caller. memtap ÷ this: what its fresh walk adds, of what this one adds.\n",
        grid.markdown()
    )
}

/// Frames between the program's functions and its first instruction: `main`,
/// `__libc_start_call_main`, `__libc_start_main` and `_start`.
pub(crate) const START_FRAMES: u32 = 4;

/// A process that works.
pub(crate) fn budget(rows: &[Throughput]) -> String {
    format!(
        "## A running process with a million calls a second\n\n{}\nPairs of malloc and free with a microsecond's work \
         each, per second of CPU time: while traced, and before and after. Calls seen: of those that were made while \
         the tool was at work; over 100 % are those seen while it came and went, and estimates where memtap samples. Of \
         redis-server under redis-benchmark: requests per second of the server's CPU time; on the clock, server, client and \
         memtap share the machine.\n",
        throughput(rows)
    )
}

/// The table of it.
pub(crate) fn throughput(rows: &[Throughput]) -> String {
    let mut grid = Grid::new(&[
        ("tool", Side::Left),
        ("bare, per s", Side::Right),
        ("traced, per s", Side::Right),
        ("throughput kept", Side::Right),
        ("calls seen", Side::Right),
        ("notes", Side::Left),
    ]);
    let share =
        |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{:.1} %", 100.0 * value));
    for row in rows {
        let note = row.note.clone().filter(|_| row.kept.is_some());
        let notes = [row.problem.clone(), note];
        grid.row(vec![
            row.tool.clone(),
            group(&cell(row.bare_per_s, 0)),
            group(&cell(row.traced_per_s, 0)),
            share(row.kept),
            share(row.seen_share),
            notes.into_iter().flatten().collect::<Vec<_>>().join("; "),
        ]);
    }
    grid.markdown()
}

/// Real programs.
pub(crate) fn programs(rows: &[ProgramRow]) -> String {
    format!(
        "## Real programs\n\n{}\nCPU: user and system time of the program and its children, not of the tool's own \
         processes. Ratios are medians of pairs, each run beside one alone right before it. Of redis-server, the time of 100,000 \
         requests of redis-benchmark (set, get, 20 connections); it runs with libc loaded before its jemalloc, so that \
         it calls libc's malloc. strace stands for what its users would take for the mmap calls of a program; it sees no \
         malloc.\n",
        programs_table(rows)
    )
}

/// The table of them.
pub(crate) fn programs_table(rows: &[ProgramRow]) -> String {
    let mut grid = Grid::new(&[
        ("program", Side::Left),
        ("tool", Side::Left),
        ("CPU s", Side::Right),
        ("× bare", Side::Right),
        ("wall s", Side::Right),
        ("wall × bare", Side::Right),
        ("memtap ÷ this", Side::Right),
        ("calls seen", Side::Right),
        ("notes", Side::Left),
    ]);
    for row in rows {
        let requests = row
            .requests_per_s
            .map(|requests| format!("{} requests/s", group(&format!("{requests:.0}"))));
        let notes = [row.problem.clone(), requests, row.note.clone()];
        grid.row(vec![
            row.name.clone(),
            row.tool.clone(),
            cell(row.cpu_s, 2),
            ratio(row.cpu_of_bare),
            cell(row.wall_s, 2),
            ratio(row.wall_of_bare),
            ratio(row.memtap_of_it),
            row.calls_seen
                .map_or_else(|| "–".to_owned(), |calls| group(&calls.to_string())),
            notes.into_iter().flatten().collect::<Vec<_>>().join("; "),
        ]);
    }
    grid.markdown()
}

/// Unwind tables.
pub(crate) fn unwind_tables(rows: &[tables::TablesRow]) -> String {
    format!("## Unwind tables\n\n{}", tables::markdown(rows))
}

/// Kernel and processor: figures belong to the machine that they come from.
pub(crate) fn machine() -> Machine {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    Machine {
        kernel: kernel.trim().to_owned(),
        processor: model.to_owned(),
        cpus: available_parallelism().map_or(1, usize::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Clock;

    fn line(calls_seen: Option<u64>) -> LoopLine {
        LoopLine {
            tool: "a tool".to_owned(),
            kind: RowKind::Peer,
            frame_pointers: true,
            depth: 20,
            threads: 1,
            clock: Clock::Wall,
            median_ns: Some(1234.5),
            min_ns: None,
            round_ns: Vec::new(),
            over_bare_ns: None,
            of_bare: Some(123.4),
            memtap_of_it: Some(0.25),
            calls_made: 1000,
            calls_seen,
            calls_stderr: None,
            frames: None,
            note: None,
            problem: None,
        }
    }

    #[test]
    fn a_row_of_a_tool() {
        let table = whole_tools(&[line(Some(320))]);
        let row = table.lines().last().expect("a row");
        for part in [
            " 1,234 |",
            " wall ",
            " 123 |",
            " 0.25 |",
            " 32.0 % |",
            "lost 68.0 % of the calls",
        ] {
            assert!(row.contains(part), "{part} in {row}");
        }
        assert_eq!(seen(&line(Some(1000))), "all");
        assert_eq!(seen(&line(Some(1003))), "+3");
        assert_eq!(seen(&line(None)), "–");
        let estimate = LoopLine {
            calls_stderr: Some(40.0),
            ..line(Some(990))
        };
        assert_eq!(
            (seen(&estimate), notes(&estimate)),
            ("≈ 99.0 %".to_owned(), "± 40 calls".to_owned())
        );
    }
}
