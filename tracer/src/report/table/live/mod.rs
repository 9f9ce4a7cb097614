//! The report on live blocks, for leak hunting.
//!
//! ```text
//! server 4711 · 60.0 s · 41.2 MiB live in 120,331 blocks · peak 44.0 MiB · …
//!
//!     LIVE  BLOCKS  OLDEST     GROWTH     SCORE  SITE
//! 24.2 MiB  24,780  59.9 s  +12.0 MiB  12.0 MiB  make_session (session.c:40) → malloc
//!       ← accept_client (server.c:112) ← …
//! ```
//!
//! The score is defined in [`growth`].

mod head;
mod histogram;

use std::cmp::Reverse;
use std::io::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::columns::{Align, Column, Columns};
use super::text::{Charset, CharsetWriter};
use super::{TableOptions, margin_column, stack_view, totals, write_shown};
use crate::profile::{Profile, Session, Stack};
use crate::report::merge::{FrameGrouping, Merged, MergedStack, ProcessGrouping};
use crate::report::own_code::CodeRules;
use crate::report::sums::{AgedSums, FunctionSums, Sums};
use crate::report::{growth, units};

/// The order of stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LiveSort {
    /// By the leak score.
    Score,
    /// By live bytes.
    LiveBytes,
    /// By live blocks.
    LiveCount,
    /// By growth since the half-way mark.
    Growth,
    /// By the age of the oldest block.
    Oldest,
}

/// The layout of the report on live blocks, beside that of any table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LiveOptions {
    /// The order of stacks.
    pub sort: LiveSort,
    /// The age from which on blocks count in the table of stacks.
    pub older_than: Option<Duration>,
}

/// Writes the report to `out`. The metric of `options` does not matter.
///
/// Fails only as `out` fails.
pub(crate) fn write(
    profile: &Profile,
    session: &Session,
    options: &TableOptions<'_>,
    live: &LiveOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let out = &mut CharsetWriter {
        charset: options.charset,
        out,
    };
    let mut merged = merged(profile, options.per_pid, live.older_than.is_some());
    let rows = rows(profile, &mut merged, live);
    let total = total(profile);
    head::write(profile, session, &total.aged, options, live, out)?;
    write_stacks(profile, &merged, &rows, options, live, out)?;
    write_blocks(&total, out)?;
    totals::write(profile, session, options, out)
}

/// Writes the line above a report that others follow.
///
/// Fails only as `out` fails.
pub(crate) fn write_separator(
    session: &Session,
    options: &TableOptions<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let line = format!("── {} ──", units::duration(session.duration));
    writeln!(out, "{}", options.charset.show(&line))
}

/// Bytes by which live bytes grew since the half-way mark; nothing where the recording was too
/// short to tell.
#[must_use]
pub(crate) fn growth_bytes(profile: &Profile) -> Option<i128> {
    profile.marks.map(|_| growth::growth_bytes(&total(profile).aged))
}

/// The stacks that grew most since the half-way mark, each on a line.
#[must_use]
pub(crate) fn growers(profile: &Profile, rules: &CodeRules, per_pid: bool, most: usize) -> Vec<String> {
    let merged = merged(profile, per_pid, false);
    let classes = rules.classes(profile);
    let mut stacks: Vec<_> = merged
        .stacks
        .iter()
        .map(|it| (growth::growth_bytes(&it.sums.aged), it))
        .filter(|(growth, _)| *growth > 0)
        .collect();
    stacks.sort_by_key(|(growth, _)| Reverse(*growth));
    stacks
        .into_iter()
        .take(most)
        .map(|(growth, stack)| {
            let view = stack_view(profile, &merged, &classes, stack, true);
            let line = view.site_line(Some(GROWER_WIDTH), Charset::Unicode, false);
            format!("{}: {line}", units::signed_bytes(growth))
        })
        .collect()
}

/// The width of a stack in a message.
const GROWER_WIDTH: usize = 160;

/// Returns the sums of all stacks that count.
fn total(profile: &Profile) -> Sums {
    FunctionSums::of(profile, None).heap_total()
}

/// The stacks of which something is live; or something old enough.
fn merged(profile: &Profile, per_pid: bool, old: bool) -> Merged {
    let weight = |stack: &Stack| {
        let aged = &stack.values.heap.aged;
        let bytes = if old { aged.old_bytes } else { aged.live_bytes };
        (stack.function.is_heap() && bytes > 0).then_some(bytes)
    };
    Merged::weighed(
        profile,
        weight,
        ProcessGrouping::per_pid(per_pid),
        FrameGrouping::Lines,
    )
}

/// The figures of a row.
struct LiveRow {
    bytes: u128,
    bytes_variance: u128,
    blocks: u128,
    /// Growth and score.
    past: Option<(i128, u128)>,
    oldest_ns: u64,
}

impl LiveRow {
    fn of(profile: &Profile, aged: &AgedSums, old: bool) -> Self {
        let (bytes, blocks, bytes_variance) = if old {
            (aged.old_bytes, aged.old, aged.old_bytes_variance)
        } else {
            (aged.live_bytes, aged.live, aged.live_bytes_variance)
        };
        Self {
            bytes,
            bytes_variance,
            blocks,
            past: profile
                .marks
                .map(|marks| (growth::growth_bytes(aged), growth::score(aged, &marks))),
            oldest_ns: aged.oldest_ns,
        }
    }
}

/// Sorts the stacks, and makes their rows.
fn rows(profile: &Profile, merged: &mut Merged, live: &LiveOptions) -> Vec<LiveRow> {
    let row = |stack: &MergedStack| LiveRow::of(profile, &stack.sums.aged, live.older_than.is_some());
    merged.stacks.sort_by_cached_key(|stack| {
        let row = row(stack);
        let (growth, score) = row.past.unwrap_or_default();
        let figure = match live.sort {
            LiveSort::Score => score,
            LiveSort::LiveBytes | LiveSort::Growth => 0,
            LiveSort::LiveCount => row.blocks,
            LiveSort::Oldest => row.oldest_ns.into(),
        };
        // Of stacks without a score the one that grew most is the first.
        let grew = match live.sort {
            LiveSort::Score | LiveSort::Growth => growth,
            _ => 0,
        };
        Reverse((figure, grew, row.bytes, row.blocks))
    });
    merged.stacks.iter().map(row).collect()
}

/// The table of stacks.
fn write_stacks(
    profile: &Profile,
    merged: &Merged,
    rows: &[LiveRow],
    options: &TableOptions<'_>,
    live: &LiveOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    if merged.stacks.is_empty() {
        return match live.older_than {
            Some(age) => writeln!(out, "\nnothing is live that is {} old", units::duration(age)),
            None => writeln!(out, "\nnothing is live"),
        };
    }
    let count = options.top.min(rows.len());
    let columns = figures(&rows[..count], options.charset);
    let classes = options.rules.classes(profile);
    let shown: Vec<&MergedStack> = merged.stacks[..count].iter().collect();
    write_shown(profile, merged, &classes, &shown, columns, options, out)?;
    let rest = &rows[count..];
    if !rest.is_empty() {
        writeln!(
            out,
            "… and {} with {}",
            units::counted(rest.len() as u128, "more stack"),
            units::bytes(rest.iter().map(|row| row.bytes).sum()),
        )?;
    }
    Ok(())
}

/// The columns of figures; the last give way where the width is small.
fn figures(rows: &[LiveRow], charset: Charset) -> Columns {
    let column =
        |name, cell: &dyn Fn(&LiveRow) -> String| Column::new(name, Align::Right, rows.iter().map(cell));
    let mut columns = Columns::new(charset);
    columns.push_fixed(column("LIVE", &|row| units::bytes(row.bytes)));
    let margins = rows
        .iter()
        .map(|row| units::margin_percent(row.bytes, row.bytes_variance));
    columns.extend(margin_column(margins));
    columns.push(column("BLOCKS", &|row| units::group(row.blocks)));
    columns.push(column("OLDEST", &|row| {
        units::duration(Duration::from_nanos(row.oldest_ns))
    }));
    if rows.iter().any(|row| row.past.is_some()) {
        columns.push(column("GROWTH", &|row| {
            row.past
                .map_or_else(String::new, |(growth, _)| units::signed_bytes(growth))
        }));
        columns.push(column("SCORE", &|row| {
            row.past
                .map_or_else(String::new, |(_, score)| units::bytes(score))
        }));
    }
    columns
}

/// Writes the histograms of all blocks by size and by lifetime, and the allocator's rounding.
fn write_blocks(total: &Sums, out: &mut dyn Write) -> io::Result<()> {
    if total.blocks == 0 {
        return Ok(());
    }
    writeln!(out)?;
    let lines = [
        Some(("sizes", histogram::sizes(&total.sizes))),
        (total.freed > 0).then(|| ("lifetimes", histogram::lifetimes(&total.lifetimes))),
        (total.temporary > 0).then(|| {
            let share = units::percent(total.temporary, total.blocks);
            let blocks = units::counted(total.temporary, "block");
            let what = "given back by their thread's next call of the allocator";
            ("temporary", format!("{blocks} ({share}) {what}"))
        }),
        (total.usable_bytes > 0).then(|| ("rounding", rounding(total))),
    ];
    for (name, text) in lines.into_iter().flatten() {
        writeln!(out, "{name:<9}  {text}")?;
    }
    Ok(())
}

/// Returns the bytes that blocks have room for beside those that were asked for.
fn rounding(total: &Sums) -> String {
    let asked = units::bytes(total.bytes);
    let usable = units::bytes(total.usable_bytes);
    let waste = total.usable_bytes.saturating_sub(total.bytes);
    format!(
        "{asked} asked for, room for {usable}: {} ({} of it) unused",
        units::bytes(waste),
        units::percent(waste, total.usable_bytes)
    )
}

#[cfg(test)]
mod tests;
