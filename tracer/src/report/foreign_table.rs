//! The table of a profile that another program wrote: totals of the figures that it has, and top
//! stacks.

use std::io::{self, Write};

use super::merge::{FrameGrouping, Merged, ProcessGrouping};
use super::rows::{AlignedRows, stack_line};
use super::source::{ForeignFacts, ReportView};
use super::{label, units};
use crate::message::escape::one_line;
use crate::profile::{Frame, Metric, Profile};

/// Writes the table to `out`, in lines of at most `width` characters where there is a limit.
///
/// Fails only as `out` fails.
pub(crate) fn write(
    profile: &Profile,
    facts: &ForeignFacts,
    view: &ReportView,
    width: Option<usize>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let processes = ProcessGrouping::per_pid(view.per_pid);
    let merged = |metric| Merged::of(profile, metric, processes, FrameGrouping::Lines);
    let mut names: Vec<String> = profile.processes.iter().map(label::process_and_number).collect();
    names.sort();
    names.dedup();
    let whose = match &*names {
        [] => "no process".to_owned(),
        [name] => name.clone(),
        names => units::counted(names.len() as u128, "process"),
    };
    let mut words = vec![whose, "recorded by another program".to_owned()];
    words.extend(facts.duration.map(units::duration));
    words.extend(facts.metrics.iter().map(|metric| {
        let total = amount(merged(*metric).total, *metric);
        format!("{} {total}", metric.name())
    }));
    if facts.period_bytes > 1 {
        words.push(format!("estimated from {}", units::samples(facts.period_bytes)));
    }
    writeln!(out, "{}", words.join(" · "))?;

    let mut merged = merged(view.metric);
    merged.sort_by_weight();
    if merged.stacks.is_empty() {
        return writeln!(out, "\nthere are no stacks of {}", view.metric.name());
    }
    let shown = &merged.stacks[..view.table.top.min(merged.stacks.len())];
    let rows = shown.iter().map(|stack| {
        let frames = stack.place.frames.iter().rev();
        let callers = frames.map(|it| frame_text(&profile.frames[merged.frames[*it]]));
        let line = stack_line(stack.place.function, callers, stack.place.walk);
        let mut cells = vec![
            amount(stack.weight, view.metric),
            units::percent(stack.weight, merged.total),
        ];
        if merged.processes.len() > 1 {
            let process = &profile.processes[merged.processes[stack.place.process]];
            cells.push(label::process(process, view.per_pid));
        }
        (cells, line)
    });
    let unit = if view.metric.is_bytes() { "BYTES" } else { "COUNT" };
    let names = [unit, "SHARE", "PROCESS"];
    let rows = AlignedRows {
        names: &names[..2 + usize::from(merged.processes.len() > 1)],
        last: "STACK",
        lines: rows.collect(),
    };
    rows.write(width, out)?;
    let rest = &merged.stacks[shown.len()..];
    if !rest.is_empty() {
        let weight = rest.iter().map(|it| it.weight).sum();
        writeln!(
            out,
            "… and {} with {} ({})",
            units::counted(rest.len() as u128, "more stack"),
            amount(weight, view.metric),
            units::percent(weight, merged.total)
        )?;
    }
    Ok(())
}

/// A frame with its file and line, where they are known.
fn frame_text(frame: &Frame) -> String {
    let name = label::frame(frame);
    match &frame.source {
        Some(source) => {
            let file = one_line(source.file.rsplit('/').next().unwrap_or_default());
            match source.line {
                0 => format!("{name} ({file})"),
                line => format!("{name} ({file}:{line})"),
            }
        }
        None => name,
    }
}

fn amount(weight: u128, metric: Metric) -> String {
    if metric.is_bytes() {
        units::bytes(weight)
    } else {
        units::group(weight)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracer_ebpf::Function;

    use super::*;
    use crate::report::sample::SampleProfile;

    #[test]
    fn figures_that_do_not_exist_are_left_out() {
        let mut sample = SampleProfile::default();
        let process = sample.process(0, "app");
        let main = sample.symbol("main.main");
        let fill = sample.line("main.fill", "/src/main.go", 12);
        sample.heap(process, Function::Unknown, &[main, fill], 10, 4096);
        sample.heap(process, Function::Unknown, &[main], 1, 1024);
        let facts = ForeignFacts {
            metrics: vec![Metric::AllocBytes],
            duration: Some(Duration::from_secs(10)),
            period_bytes: 524_288,
            ..ForeignFacts::default()
        };
        let mut view = ReportView::new(Metric::AllocBytes);
        view.table.top = 1;
        let text = |profile: &Profile, view: &ReportView| {
            let mut out = Vec::new();
            write(profile, &facts, view, None, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            text(&sample.profile, &view),
            "app · recorded by another program · 10.0 s · alloc-bytes 5.0 KiB · estimated from one sample per 512.0 KiB\n\
             \n  BYTES   SHARE  STACK\n4.0 KiB  80.0 %  main.fill (main.go:12) ← main.main\n\
             … and 1 more stack with 1.0 KiB (20.0 %)\n"
        );
        assert!(text(&Profile::default(), &view).ends_with("\nthere are no stacks of alloc-bytes\n"));
    }

    #[test]
    fn nothing_of_a_file_steers_a_terminal() {
        let mut sample = SampleProfile::default();
        let process = sample.process(0, "app\u{1b}[2J");
        let frame = sample.line("f\u{1b}]0;x\u{7}", "/src/a\u{1b}[31m.go\n", 12);
        sample.heap(process, Function::Unknown, &[frame], 1, 10);
        let facts = ForeignFacts {
            metrics: vec![Metric::AllocBytes],
            ..ForeignFacts::default()
        };
        let mut view = ReportView::new(Metric::AllocBytes);
        view.table.top = 1;
        let mut out = Vec::new();
        write(&sample.profile, &facts, &view, None, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.chars().all(|it| it == '\n' || !it.is_control()), "{text:?}");
        assert_eq!(text.lines().count(), 4, "{text}");
    }
}
