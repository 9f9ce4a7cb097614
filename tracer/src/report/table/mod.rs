//! Totals and top stacks, for a person at a terminal.
//!
//! ```text
//! redis-server 4711 · 10.0 s · 1,204,331 allocations · 412.3 MiB · nothing lost
//!
//!     BYTES   SHARE    CALLS     AVG  STACK
//! 201.1 MiB  48.8 %  812,004   259 B  malloc ← ztrymalloc_usable (zmalloc.c:97) ← …
//! ```
//!
//! Stacks are read from the function that was called outwards. Where a line is too long for the
//! width, outer frames give way first (`… ← …`), then long names lose their middle.

mod columns;
mod fit;
mod head;
pub(crate) mod live;
mod plumbing;
mod text;
mod totals;

use std::io::{self, Write};

use super::merge::{Completeness, FrameGrouping, Merged, MergedStack, ProcessGrouping};
use super::{label, units};
use crate::message::escape::one_line;
use crate::profile::{Metric, Profile, Session};
use columns::{Align, Column, Columns};
use fit::Piece;

/// The layout of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableOptions {
    /// The order of stacks, and the unit of shares.
    pub metric: Metric,
    /// Tell processes of the same name apart.
    pub per_pid: bool,
    /// The characters that fit a line; nothing where lines may have any length.
    pub width: Option<usize>,
    /// True for a terminal with colours.
    pub colours: bool,
    /// The number of stacks in the table.
    pub top: usize,
}

impl TableOptions {
    /// Stacks shown unless more or fewer are asked for.
    pub(crate) const TOP: usize = 20;

    /// A metric's table, without limit of width and without colours.
    #[cfg(test)]
    #[must_use]
    pub(crate) const fn new(metric: Metric) -> Self {
        Self {
            metric,
            per_pid: false,
            width: None,
            colours: false,
            top: Self::TOP,
        }
    }
}

/// The fewest characters that a stack is worth showing in; columns of figures give way first.
const MIN_STACK_WIDTH: usize = 28;

/// The most characters that a process's name takes in its column: `comm` has at most 15, a pid at
/// most 7.
const MAX_PROCESS_WIDTH: usize = 23;

/// Writes the table to `out`.
///
/// Fails only as `out` fails.
pub(crate) fn write(
    profile: &Profile,
    session: &Session,
    options: &TableOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut merged = Merged::of(
        profile,
        options.metric,
        ProcessGrouping::per_pid(options.per_pid),
        FrameGrouping::Lines,
    );
    merged.sort_by_weight();
    head::write(profile, session, &merged, options, out)?;
    let traced = session.settings.traced;
    let applies = match options.metric {
        Metric::AllocBytes | Metric::AllocCount => traced.heap,
        Metric::RegionBytes => traced.region,
        _ => traced.live,
    };
    if applies {
        write_stacks(profile, &merged, options, out)?;
    }
    totals::write(profile, session, options, out)
}

/// The table of stacks.
fn write_stacks(
    profile: &Profile,
    merged: &Merged,
    options: &TableOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    if merged.stacks.is_empty() {
        return match options.metric {
            Metric::RegionBytes => writeln!(out, "\nno memory was mapped"),
            Metric::LiveBytes | Metric::LiveCount => writeln!(out, "\nnothing is live"),
            Metric::FreedBytes => writeln!(out, "\nnothing was given back"),
            Metric::TemporaryCount => writeln!(out, "\nnothing was given back at once"),
            _ => writeln!(out, "\nnothing was allocated"),
        };
    }
    let shown = &merged.stacks[..options.top.min(merged.stacks.len())];
    let columns = figures(shown, merged.total, options.metric);
    write_shown(profile, merged, shown, columns, options, out)?;
    let rest = &merged.stacks[shown.len()..];
    if !rest.is_empty() {
        let weight: u128 = rest.iter().map(|it| it.weight).sum();
        let amount = if options.metric.is_bytes() {
            units::bytes(weight)
        } else {
            units::counted(weight, options.metric.counts())
        };
        writeln!(
            out,
            "… and {} with {amount} ({})",
            units::counted(rest.len() as u128, "more stack"),
            units::percent(weight, merged.total)
        )?;
    }
    Ok(())
}

/// The rows of stacks beside their figures.
fn write_shown(
    profile: &Profile,
    merged: &Merged,
    shown: &[MergedStack],
    mut columns: Columns,
    options: &TableOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    if merged.processes.len() > 1 {
        columns.push_fixed(process_column(profile, merged, shown, options));
    }
    let room = options.width.map(|width| {
        columns.shrink_to(width.saturating_sub(MIN_STACK_WIDTH));
        width.saturating_sub(columns.width()).max(MIN_STACK_WIDTH)
    });
    writeln!(out)?;
    columns.write_header("STACK", options.colours, out)?;
    for (row, stack) in shown.iter().enumerate() {
        let stack = fit::line(&pieces(profile, merged, stack), room, options.colours);
        columns.write_row(row, &stack, out)?;
    }
    Ok(())
}

/// Bytes of a stack, and how many calls or blocks have them.
type BytesAndCount = fn(&MergedStack) -> (u128, u128);

/// The names of the two columns of figures, and their values: bytes, and the number of calls or
/// blocks that have them.
struct MetricColumns {
    bytes_name: &'static str,
    count_name: &'static str,
    of: BytesAndCount,
}

impl MetricColumns {
    const fn of(metric: Metric) -> Self {
        let (bytes_name, count_name, of): (_, _, BytesAndCount) = match metric {
            Metric::AllocBytes | Metric::AllocCount => {
                ("BYTES", "CALLS", |it| (it.sums.bytes, it.sums.calls))
            }
            Metric::LiveBytes | Metric::LiveCount => {
                ("LIVE", "BLOCKS", |it| (it.sums.live_bytes, it.sums.live))
            }
            Metric::FreedBytes => ("FREED", "BLOCKS", |it| (it.sums.freed_bytes, it.sums.freed)),
            Metric::TemporaryCount => ("BYTES", "TEMPORARY", |it| (it.sums.bytes, it.weight)),
            // What a region stack weighs is what it grew by, which `mremap`'s bytes are not.
            Metric::RegionBytes => ("BYTES", "CALLS", |it| (it.weight, it.sums.calls)),
            Metric::PeakBytes => ("PEAK", "CALLS", |it| (it.weight, it.sums.calls)),
        };
        Self {
            bytes_name,
            count_name,
            of,
        }
    }
}

/// The figures of stacks, those that they are sorted by first: the last give way where the width is
/// small.
fn figures(stacks: &[MergedStack], total: u128, metric: Metric) -> Columns {
    let MetricColumns {
        bytes_name,
        count_name,
        of,
    } = MetricColumns::of(metric);
    let column = |name, cell: &dyn Fn(&MergedStack) -> String| {
        Column::new(name, Align::Right, stacks.iter().map(cell))
    };
    let bytes = column(bytes_name, &|it| units::bytes(of(it).0));
    let count = column(count_name, &|it| units::group(of(it).1));
    let share = column("SHARE", &|it| units::percent(it.weight, total));
    let mut columns = Columns::default();
    let (first, third) = if metric.is_bytes() {
        (bytes, count)
    } else {
        (count, bytes)
    };
    columns.push_fixed(first);
    let margins = stacks.iter().map(|it| {
        let variance = metric.variance(&it.sums.variances).unwrap_or(0);
        units::margin_percent(it.weight, variance)
    });
    columns.extend(margin_column(margins));
    columns.push_fixed(share);
    columns.push(third);
    // Where the two are not of the same blocks, there is no average.
    if !matches!(metric, Metric::TemporaryCount | Metric::PeakBytes) {
        columns.push(column("AVG", &|it| {
            let (bytes, count) = of(it);
            bytes
                .checked_div(count)
                .map_or(units::NONE.to_owned(), units::bytes)
        }));
    }
    columns
}

/// The margin from which on a row shows its own, in percent.
const MARGIN_SHOWN: f64 = 5.0;

/// Returns a column of margins, filled where they are large; nothing where none is.
fn margin_column(percents: impl Iterator<Item = Option<f64>>) -> Option<Column> {
    let cells = percents.map(|percent| percent.filter(|percent| *percent > MARGIN_SHOWN));
    let cells: Vec<Option<f64>> = cells.collect();
    cells.iter().any(Option::is_some).then(|| {
        let cells = cells
            .into_iter()
            .map(|cell| cell.map_or_else(String::new, units::margin));
        Column::new("±", Align::Right, cells)
    })
}

/// Returns the column of the processes' names.
fn process_column(
    profile: &Profile,
    merged: &Merged,
    stacks: &[MergedStack],
    options: &TableOptions,
) -> Column {
    let names = stacks.iter().map(|it| {
        let process = &profile.processes[merged.processes[it.place.process]];
        text::shorten(&label::process(process, options.per_pid), MAX_PROCESS_WIDTH)
    });
    Column::new("PROCESS", Align::Left, names)
}

/// The frames of a stack, from the function that was called outwards.
fn pieces(profile: &Profile, merged: &Merged, stack: &MergedStack) -> Vec<Piece> {
    let place = &stack.place;
    let mut pieces = vec![Piece::name(place.function.name().to_owned())];
    for frame in place.frames.iter().rev() {
        let frame = &profile.frames[merged.frames[*frame]];
        let source = frame.source.as_ref().map(|it| {
            let file = it.file.rsplit('/').next().unwrap_or_default();
            format!("{}:{}", one_line(file), it.line)
        });
        pieces.push(Piece {
            name: label::frame(frame),
            source,
        });
    }
    let mut pieces = plumbing::fold(pieces);
    match place.walk {
        Completeness::Whole => {}
        Completeness::Truncated => pieces.push(Piece::name(label::TRUNCATED.to_owned())),
        Completeness::Lost => pieces.push(Piece::name(label::STACK_LOST.to_owned())),
    }
    pieces
}

#[cfg(test)]
mod tests;
