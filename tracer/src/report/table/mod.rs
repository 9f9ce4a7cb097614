//! Totals and top stacks, for a person at a terminal.
//!
//! ```text
//! redis-server 4711 · 10.0 s · 1,204,331 allocations · 412.3 MiB · nothing lost
//!
//!     BYTES   SHARE    CALLS     AVG  SITE
//! 201.1 MiB  48.8 %  812,004   259 B  createRawStringObject (object.c:88) → … → malloc
//!       ← createObject (object.c:50) ← processInputBuffer (networking.c:2520) ← …
//! ```
//!
//! A row begins with the site of its stacks: the innermost frame of the program's own code, as
//! [`own_code`] tells it. Its callers are below. Where a line is too long for the
//! width, the function that was called gives way first, then the line of the source, then the
//! middle of a name.

mod columns;
mod groups;
mod head;
pub(crate) mod live;
mod sort;
mod stack_view;
mod text;
mod totals;
mod tree;
mod view;

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::merge::{Completeness, FrameGrouping, Merged, MergedStack, ProcessGrouping};
use super::own_code::{self, CodeClass, CodeRules};
use super::sums::Sums;
use super::{label, names, units};
use crate::message::escape::one_line;
use crate::profile::{Frame, FrameName, Metric, Profile, Session};
use columns::{Align, Column, Columns};
use stack_view::{ShownFrame, StackView};
use text::CharsetWriter;

pub(crate) use groups::GroupBy;
pub(crate) use sort::SortColumn;
pub(crate) use text::Charset;
pub(crate) use tree::TreeDirection;
pub(crate) use view::TableView;

/// The part of a stack that a row shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StackDetail {
    /// Its site.
    Site,
    /// Its site, and below it the callers on at most three lines.
    #[default]
    Brief,
    /// Its site, and below it every frame on a line of its own.
    Full,
}

/// The layout of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableOptions<'a> {
    /// The unit of shares, and the order of rows unless another is asked for.
    pub metric: Metric,
    /// Tell processes of the same name apart.
    pub per_pid: bool,
    /// The characters that fit a line; nothing where lines may have any length.
    pub width: Option<usize>,
    /// True for a terminal with colours.
    pub colours: bool,
    /// The characters that there are.
    pub charset: Charset,
    /// The number of rows.
    pub top: usize,
    /// Rows of less than this share of the total, in percent, are left out.
    pub min_percent: Option<f64>,
    /// The part of stacks that is shown.
    pub stacks: StackDetail,
    /// The properties of stacks that make a row.
    pub by: GroupBy,
    /// A tree in place of rows.
    pub tree: Option<TreeDirection>,
    /// The order of rows, where it is not that of the metric.
    pub sort: Option<SortColumn>,
    /// Names of functions are short: without return types, parameters and arguments of templates.
    pub short_names: bool,
    /// The rules by which the program's own code is told.
    pub rules: &'a CodeRules,
}

impl TableOptions<'_> {
    /// Rows unless more or fewer are asked for.
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
            charset: Charset::Unicode,
            top: Self::TOP,
            min_percent: None,
            stacks: StackDetail::Brief,
            by: GroupBy::Stack,
            tree: None,
            sort: None,
            short_names: true,
            rules: &CodeRules::DEFAULT,
        }
    }

    /// Returns true if a part of the total is large enough to be shown.
    #[expect(clippy::cast_precision_loss, reason = "a share to be compared with a limit")]
    fn is_shown(&self, weight: u128, total: u128) -> bool {
        self.min_percent
            .is_none_or(|least| weight as f64 * 100.0 >= total as f64 * least)
    }
}

/// The fewest characters that a stack is worth showing in; columns of figures give way first.
const MIN_STACK_WIDTH: usize = 48;

/// The fewest characters that a stack gets, however narrow the terminal.
const MIN_ROOM: usize = 20;

/// The most characters that a process's name takes in its column: `comm` has at most 15, a pid at
/// most 7.
const MAX_PROCESS_WIDTH: usize = 23;

/// Writes the table to `out`.
///
/// Fails only as `out` fails.
pub(crate) fn write(
    profile: &Profile,
    session: &Session,
    options: &TableOptions<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let out = &mut CharsetWriter {
        charset: options.charset,
        out,
    };
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
        write_rows(profile, &mut merged, options, out)?;
    }
    totals::write(profile, session, options, out)
}

/// The rows, or the tree.
fn write_rows(
    profile: &Profile,
    merged: &mut Merged,
    options: &TableOptions<'_>,
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
    let classes = options.rules.classes(profile);
    match (options.tree, options.by) {
        (Some(direction), _) => tree::write(profile, &classes, direction, options, out),
        (None, GroupBy::Stack) => write_stacks(profile, merged, &classes, options, out),
        (None, by) => groups::write(profile, &classes, by, options, out),
    }
}

/// The table of stacks.
fn write_stacks(
    profile: &Profile,
    merged: &mut Merged,
    classes: &[CodeClass],
    options: &TableOptions<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    if let Some(column) = options.sort {
        let key = |it: &MergedStack| column.key(&it.sums, it.weight, it.weight);
        merged.stacks.sort_by_key(|it| std::cmp::Reverse(key(it)));
    }
    let shown = merged
        .stacks
        .iter()
        .filter(|it| options.is_shown(it.weight, merged.total));
    let shown: Vec<&MergedStack> = shown.take(options.top).collect();
    let figured: Vec<(&Sums, u128)> = shown.iter().map(|it| (&it.sums, it.weight)).collect();
    let columns = figures(&figured, merged.total, options);
    write_shown(profile, merged, classes, &shown, columns, options, out)?;
    let weight: u128 = shown.iter().map(|it| it.weight).sum();
    write_rest(
        merged.stacks.len() - shown.len(),
        merged.total - weight,
        merged.total,
        "stack",
        options,
        out,
    )
}

/// The line for rows that are not shown.
fn write_rest(
    count: usize,
    weight: u128,
    total: u128,
    noun: &str,
    options: &TableOptions<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    if count == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "… and {} with {} ({})",
        units::counted(count as u128, &format!("more {noun}")),
        amount(weight, options.metric),
        units::percent(weight, total)
    )
}

/// A weight with its unit.
fn amount(weight: u128, metric: Metric) -> String {
    if metric.is_bytes() {
        units::bytes(weight)
    } else {
        units::counted(weight, metric.counts())
    }
}

/// The rows of stacks beside their figures, and what is shown below each.
fn write_shown(
    profile: &Profile,
    merged: &Merged,
    classes: &[CodeClass],
    shown: &[&MergedStack],
    mut columns: Columns,
    options: &TableOptions<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    if merged.processes.len() > 1 {
        columns.push_fixed(process_column(profile, merged, shown, options));
    }
    let room = room_beside(&mut columns, options);
    writeln!(out)?;
    columns.write_header("SITE", options.colours, out)?;
    let (charset, colours) = (options.charset, options.colours);
    for (row, stack) in shown.iter().enumerate() {
        let view = stack_view(profile, merged, classes, stack, options.short_names);
        columns.write_row(row, &view.site_line(room, charset, colours), out)?;
        let below = match options.stacks {
            StackDetail::Site => Vec::new(),
            StackDetail::Brief => view.caller_lines(options.width, charset, colours),
            StackDetail::Full => view.frame_lines(colours),
        };
        for line in below {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// Returns the room for what follows the columns on a line; columns give way where it is small.
fn room_beside(columns: &mut Columns, options: &TableOptions<'_>) -> Option<usize> {
    options.width.map(|width| {
        columns.shrink_to(width.saturating_sub(MIN_STACK_WIDTH));
        width.saturating_sub(columns.width()).max(MIN_ROOM)
    })
}

/// Bytes of a row, and how many calls or blocks have them; of its sums and its weight.
type BytesAndCount = fn(&Sums, u128) -> (u128, u128);

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
            Metric::AllocBytes | Metric::AllocCount => ("BYTES", "CALLS", |it, _| (it.bytes, it.calls)),
            Metric::LiveBytes | Metric::LiveCount => ("LIVE", "BLOCKS", |it, _| (it.live_bytes, it.live)),
            Metric::FreedBytes => ("FREED", "BLOCKS", |it, _| (it.freed_bytes, it.freed)),
            Metric::TemporaryCount => ("BYTES", "TEMPORARY", |it, weight| (it.bytes, weight)),
            // What a region stack weighs is what it grew by, which `mremap`'s bytes are not.
            Metric::RegionBytes => ("BYTES", "CALLS", |it, weight| (weight, it.calls)),
            Metric::PeakBytes => ("PEAK", "CALLS", |it, weight| (weight, it.calls)),
        };
        Self {
            bytes_name,
            count_name,
            of,
        }
    }
}

/// The figures of rows, those that they are sorted by first: the last give way where the width is
/// small.
fn figures(rows: &[(&Sums, u128)], total: u128, options: &TableOptions<'_>) -> Columns {
    let metric = options.metric;
    let MetricColumns {
        bytes_name,
        count_name,
        of,
    } = MetricColumns::of(metric);
    let column = |name, cell: &dyn Fn(&Sums, u128) -> String| {
        Column::new(
            name,
            Align::Right,
            rows.iter().map(|(sums, weight)| cell(sums, *weight)),
        )
    };
    let bytes = column(bytes_name, &|sums, weight| units::bytes(of(sums, weight).0));
    let count = column(count_name, &|sums, weight| units::group(of(sums, weight).1));
    let share = column("SHARE", &|_, weight| units::percent(weight, total));
    let mut columns = Columns::new(options.charset);
    let (first, third) = if metric.is_bytes() {
        (bytes, count)
    } else {
        (count, bytes)
    };
    columns.push_fixed(first);
    let margins = rows.iter().map(|(sums, weight)| {
        let variance = metric.variance(&sums.variances).unwrap_or(0);
        units::margin_percent(*weight, variance)
    });
    columns.extend(margin_column(margins));
    columns.push_fixed(share);
    columns.push(third);
    // Where the two are not of the same blocks, there is no average.
    if !matches!(metric, Metric::TemporaryCount | Metric::PeakBytes) {
        columns.push(column("AVG", &|sums, weight| {
            let (bytes, count) = of(sums, weight);
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
    stacks: &[&MergedStack],
    options: &TableOptions<'_>,
) -> Column {
    let names = stacks.iter().map(|it| {
        let process = &profile.processes[merged.processes[it.place.process]];
        let name = label::process(process, options.per_pid);
        options.charset.shorten(&name, MAX_PROCESS_WIDTH)
    });
    Column::new("PROCESS", Align::Left, names)
}

/// Returns a stack as a row shows it. `classes` are those of the profile's frames.
fn stack_view(
    profile: &Profile,
    merged: &Merged,
    classes: &[CodeClass],
    stack: &MergedStack,
    short_names: bool,
) -> StackView {
    let place = &stack.place;
    let frames: Vec<usize> = place.frames.iter().map(|it| merged.frames[*it]).collect();
    let site = own_code::site(&frames, classes).map(|at| frames.len() - 1 - at);
    let shown = frames.iter().rev().map(|frame| ShownFrame {
        name: name(&profile.frames[*frame], short_names),
        source: source(&profile.frames[*frame]),
        class: classes[*frame],
    });
    let end = match place.walk {
        Completeness::Whole => None,
        Completeness::Truncated => Some(label::TRUNCATED),
        Completeness::Lost => Some(label::STACK_LOST),
    };
    StackView::new(place.function.name(), &shown.collect::<Vec<_>>(), site, end)
}

/// A frame's name, escaped.
fn name(frame: &Frame, is_short: bool) -> String {
    let name = label::frame(frame);
    match &frame.name {
        FrameName::Symbol(_) if is_short => names::short(&name).into_owned(),
        _ => name,
    }
}

/// `file:line` of a frame, by the file's base name.
fn source(frame: &Frame) -> Option<String> {
    let source = frame.source.as_ref()?;
    let file = source.file.rsplit('/').next().unwrap_or_default();
    Some(format!("{}:{}", one_line(file), source.line))
}

#[cfg(test)]
mod tests;
