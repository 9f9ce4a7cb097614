//! The table of a difference: what grew, what shrank, what is new and what is gone.
//!
//! ```text
//! before.pb.gz → after.pb.gz · live-bytes · 4.1 MiB → 6.2 MiB: +2.1 MiB
//! 2 stacks grew, 1 of them new; 1 shrank, 0 of them gone
//!
//!   CHANGE    BEFORE      AFTER  STACK
//! +2.0 MiB   1.0 MiB    3.0 MiB  malloc ← make_session ← main
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

use super::{DiffStack, ProfileDiff, change};
use crate::message::escape::one_line;
use crate::profile::Metric;
use crate::report::rows::{AlignedRows, stack_line};
use crate::report::units;

/// The things that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiffBy {
    /// Stacks.
    Stack,
    /// Functions, by themselves and with all that they call.
    Function,
}

/// The layout of the table.
#[derive(Clone, Debug)]
pub(crate) struct DiffTableOptions {
    /// The weight.
    pub metric: Metric,
    /// The rows.
    pub by: DiffBy,
    /// The name of the first profile.
    pub before: String,
    /// The name of the second.
    pub after: String,
    /// The length of the second recording in nanoseconds, where figures are per second of it.
    pub per_second_of_ns: Option<u128>,
    /// The rows that grew, and those that shrank, at most.
    pub top: usize,
    /// The characters that fit a line; nothing where lines may have any length.
    pub width: Option<usize>,
}

impl DiffTableOptions {
    /// A weight in words.
    fn amount(&self, weight: u128) -> String {
        let Some(ns) = self.per_second_of_ns else {
            return amount(weight, self.metric);
        };
        let rate = weight.saturating_mul(1_000_000_000) / ns.max(1);
        format!("{}/s", amount(rate, self.metric))
    }

    /// A change in words.
    fn signed(&self, change: i128) -> String {
        let sign = match change {
            0 => "",
            1.. => "+",
            _ => "-",
        };
        format!("{sign}{}", self.amount(change.unsigned_abs()))
    }
}

fn amount(weight: u128, metric: Metric) -> String {
    if metric.is_bytes() {
        units::bytes(weight)
    } else {
        units::group(weight)
    }
}

/// A row before it is text.
struct DiffRow {
    before: u128,
    after: u128,
    variance: u128,
    /// The change of a function by itself.
    own: Option<i128>,
    text: String,
}

impl DiffRow {
    fn change(&self) -> i128 {
        change(self.before, self.after)
    }
}

/// Writes the table.
pub(super) fn write(diff: &ProfileDiff, options: &DiffTableOptions, out: &mut dyn Write) -> io::Result<()> {
    let metric = options.metric;
    let (before, after) = diff.totals(metric);
    writeln!(
        out,
        "{} → {} · {} · {} → {}: {}",
        one_line(&options.before),
        one_line(&options.after),
        metric.name(),
        options.amount(before),
        options.amount(after),
        options.signed(change(before, after))
    )?;
    if !diff.has_changed(metric) {
        return writeln!(out, "nothing changed");
    }
    let (rows, noun) = match options.by {
        DiffBy::Stack => (stack_rows(diff, metric), "stack"),
        DiffBy::Function => (function_rows(diff, metric), "function"),
    };
    let (mut grew, mut shrank): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .filter(|it| it.change() != 0 || it.own.is_some_and(|own| own != 0))
        .partition(|it| it.change() > 0 || it.change() == 0 && it.own.unwrap_or(0) > 0);
    writeln!(
        out,
        "{} grew, {} of them new; {} shrank, {} of them gone",
        units::counted(grew.len() as u128, noun),
        grew.iter().filter(|it| it.before == 0).count(),
        shrank.len(),
        shrank.iter().filter(|it| it.after == 0).count()
    )?;
    grew.sort_by_cached_key(|it| (Reverse(it.change()), it.text.clone()));
    shrank.sort_by_cached_key(|it| (it.change(), it.text.clone()));
    for rows in [&grew, &shrank] {
        if !rows.is_empty() {
            write_rows(rows, options, out)?;
        }
    }
    Ok(())
}

fn write_rows(rows: &[DiffRow], options: &DiffTableOptions, out: &mut dyn Write) -> io::Result<()> {
    let shown = &rows[..options.top.min(rows.len())];
    let has_margins = shown.iter().any(|it| it.variance > 0);
    let is_by_function = options.by == DiffBy::Function;
    let mut names = vec!["CHANGE"];
    if has_margins {
        names.push("±");
    }
    if is_by_function {
        names.push("ITSELF");
    }
    names.extend(["BEFORE", "AFTER"]);
    let cells = |row: &DiffRow| {
        let mut cells = vec![options.signed(row.change())];
        if has_margins {
            cells.push(margin(row.variance, options));
        }
        if is_by_function {
            cells.push(row.own.map_or_else(String::new, |own| options.signed(own)));
        }
        let word = |weight, word: &str| {
            if weight == 0 {
                word.to_owned()
            } else {
                options.amount(weight)
            }
        };
        cells.extend([word(row.before, "new"), word(row.after, "gone")]);
        (cells, row.text.clone())
    };
    let table = AlignedRows {
        names: &names,
        last: if is_by_function { "FUNCTION" } else { "STACK" },
        lines: shown.iter().map(cells).collect(),
    };
    table.write(options.width, out)?;
    let rest = &rows[shown.len()..];
    if !rest.is_empty() {
        let noun = if is_by_function {
            "more function"
        } else {
            "more stack"
        };
        let rest_text = units::counted(rest.len() as u128, noun);
        if is_by_function {
            // Functions that call each other have their bytes in common: they do not add up.
            writeln!(out, "… and {rest_text}")?;
        } else {
            let sum: i128 = rest.iter().map(DiffRow::change).fold(0, i128::saturating_add);
            writeln!(out, "… and {rest_text} with {}", options.signed(sum))?;
        }
    }
    Ok(())
}

/// The margin of a change at 95 %: 1.96 standard errors.
fn margin(variance: u128, options: &DiffTableOptions) -> String {
    if variance == 0 {
        return String::new();
    }
    let margin = units::stderr(variance).saturating_mul(196) / 100;
    format!("±{}", options.amount(margin))
}

/// The text of a stack, with its process where there are several.
fn stack_text(diff: &ProfileDiff, stack: &DiffStack) -> String {
    let callers = stack.key.frames.iter().rev();
    let names = callers.map(|it| diff.frames[*it].name.clone());
    let line = stack_line(stack.key.function, names, stack.key.walk);
    if diff.processes.len() > 1 {
        format!("{}: {line}", diff.processes[stack.key.process])
    } else {
        line
    }
}

fn stack_rows(diff: &ProfileDiff, metric: Metric) -> Vec<DiffRow> {
    let changed = diff.stacks.iter().filter(|it| it.change(metric) != 0);
    changed.map(|stack| stack_row(diff, stack, metric)).collect()
}

fn stack_row(diff: &ProfileDiff, stack: &DiffStack, metric: Metric) -> DiffRow {
    let variances = [&stack.before, &stack.after].map(|it| it.variance(metric));
    DiffRow {
        before: stack.before.weight(metric),
        after: stack.after.weight(metric),
        variance: variances[0].saturating_add(variances[1]),
        own: None,
        text: stack_text(diff, stack),
    }
}

/// The rows of functions: a stack counts once for each function in it, and for the innermost by
/// itself.
fn function_rows(diff: &ProfileDiff, metric: Metric) -> Vec<DiffRow> {
    let mut rows: HashMap<usize, DiffRow> = HashMap::new();
    for stack in &diff.stacks {
        let of = stack_row(diff, stack, metric);
        let distinct: BTreeSet<usize> = stack.key.frames.iter().copied().collect();
        for frame in distinct {
            let row = rows.entry(frame).or_insert_with(|| DiffRow {
                before: 0,
                after: 0,
                variance: 0,
                own: Some(0),
                text: function_text(diff, frame),
            });
            row.before = row.before.saturating_add(of.before);
            row.after = row.after.saturating_add(of.after);
            row.variance = row.variance.saturating_add(of.variance);
            if stack.key.frames.last() == Some(&frame) {
                row.own = row.own.map(|own| own.saturating_add(of.change()));
            }
        }
    }
    rows.into_values().collect()
}

fn function_text(diff: &ProfileDiff, frame: usize) -> String {
    let frame = &diff.frames[frame];
    match frame.file.rsplit('/').next() {
        Some(file) if !file.is_empty() => format!("{} ({})", frame.name, one_line(file)),
        _ => frame.name.clone(),
    }
}

/// The stacks that grew most, each on a line.
pub(super) fn growers(diff: &ProfileDiff, metric: Metric, most: usize) -> Vec<String> {
    let grew = diff.stacks.iter().filter(|it| it.change(metric) > 0);
    let mut grew: Vec<(i128, String)> = grew.map(|it| (it.change(metric), stack_text(diff, it))).collect();
    grew.sort_by(|a, b| (Reverse(a.0), &a.1).cmp(&(Reverse(b.0), &b.1)));
    let lines = grew.into_iter().take(most);
    lines
        .map(|(change, text)| {
            let amount = amount(change.unsigned_abs(), metric);
            format!("+{amount}: {text}")
        })
        .collect()
}
