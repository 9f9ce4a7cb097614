//! Rows of something else than stacks: sites, functions, lines, modules, processes, sizes,
//! allocator functions.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::columns::{Align, Column};
use super::{StackDetail, TableOptions, amount, figures, room_beside, source, write_rest};
use crate::profile::{Frame, FrameName, Metric, Profile, Stack};
use crate::report::merge::Completeness;
use crate::report::own_code::{self, CodeClass};
use crate::report::sums::Sums;
use crate::report::{label, units};

/// The property of stacks that makes a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum GroupBy {
    /// The whole stack.
    #[default]
    Stack,
    /// The site.
    Site,
    /// Functions: those of sites, and all of the program's own that called them; every one that did
    /// with [`StackDetail::Full`].
    Function,
    /// Lines of source, likewise.
    Line,
    /// Programs and libraries, likewise.
    Module,
    /// Processes.
    Process,
    /// Sizes of blocks, by powers of two.
    Size,
    /// Functions of allocators.
    Allocator,
}

impl GroupBy {
    /// The header of the column, and the noun for a row.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Stack => ("STACK", "stack"),
            Self::Site => ("SITE", "site"),
            Self::Function => ("FUNCTION", "function"),
            Self::Line => ("LINE", "line"),
            Self::Module => ("MODULE", "module"),
            Self::Process => ("PROCESS", "process"),
            Self::Size => ("SIZE", "size"),
            Self::Allocator => ("ALLOCATOR", "function"),
        }
    }

    /// Returns true if a stack counts for all of its frames, not for its site alone.
    const fn is_cumulative(self) -> bool {
        matches!(self, Self::Function | Self::Line | Self::Module)
    }
}

/// The figures of a row.
#[derive(Default)]
struct Group {
    /// Those of stacks whose site it is.
    sums: Sums,
    weight: u128,
    /// The weight of all stacks that it is in.
    cumulative: u128,
}

/// Writes the rows.
pub(super) fn write(
    profile: &Profile,
    classes: &[CodeClass],
    by: GroupBy,
    options: &TableOptions<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    if by == GroupBy::Size {
        return write_sizes(profile, options, out);
    }
    let (groups, total) = groups(profile, classes, by, options);
    let mut groups: Vec<(String, Group)> = groups.into_iter().collect();
    groups.sort_by_key(|(_, it)| match options.sort {
        Some(column) => Reverse((column.key(&it.sums, it.weight, it.cumulative), it.cumulative)),
        None => Reverse(((it.weight, it.cumulative), it.sums.calls)),
    });
    let shown: Vec<&(String, Group)> = groups
        .iter()
        .filter(|(_, it)| options.is_shown(it.weight.max(it.cumulative), total))
        .take(options.top)
        .collect();
    let figured: Vec<(&Sums, u128)> = shown.iter().map(|(_, it)| (&it.sums, it.weight)).collect();
    let mut columns = figures(&figured, total, options);
    if by.is_cumulative() {
        let cumulative = |cell: &dyn Fn(u128) -> String| -> Vec<String> {
            shown.iter().map(|(_, it)| cell(it.cumulative)).collect()
        };
        let with_callees = cumulative(&|weight| {
            if options.metric.is_bytes() {
                units::bytes(weight)
            } else {
                units::group(weight)
            }
        });
        columns.push_fixed(Column::new("CUM", Align::Right, with_callees));
        let shares = cumulative(&|weight| units::percent(weight, total));
        columns.push_fixed(Column::new("CUM SHARE", Align::Right, shares));
    }
    let (header, noun) = by.names();
    let room = room_beside(&mut columns, options);
    writeln!(out)?;
    columns.write_header(header, options.colours, out)?;
    for (row, (name, _)) in shown.iter().enumerate() {
        let name = match room {
            Some(room) => options.charset.shorten(name, room),
            None => name.clone(),
        };
        columns.write_row(row, &name, out)?;
    }
    let weight: u128 = shown.iter().map(|(_, it)| it.weight).sum();
    write_rest(
        groups.len() - shown.len(),
        total - weight,
        total,
        noun,
        options,
        out,
    )
}

/// Groups the stacks that the metric applies to. Returns the groups by name, and the total.
fn groups(
    profile: &Profile,
    classes: &[CodeClass],
    by: GroupBy,
    options: &TableOptions<'_>,
) -> (BTreeMap<String, Group>, u128) {
    // Each name once: frames are in many stacks.
    let name = |frame| group_name(profile, frame, by, options.short_names);
    let frame_names: Vec<String> = profile.frames.iter().map(name).collect();
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let mut total = 0;
    for stack in &profile.stacks {
        let Some(weight) = options.metric.weight(stack).map(u128::from) else {
            continue;
        };
        total += weight;
        let key = match by {
            GroupBy::Process => label::process(&profile.processes[stack.process], true),
            GroupBy::Allocator => stack.function.name().to_owned(),
            _ => match own_code::site(frames_of(stack), classes) {
                Some(site) => frame_names[stack.frames[site]].clone(),
                None => without_site(stack),
            },
        };
        if by.is_cumulative() {
            let is_full = options.stacks == StackDetail::Full;
            let counted = frames_of(stack)
                .iter()
                .filter(|it| is_full || classes[**it] == CodeClass::Own);
            let names = counted.map(|it| &frame_names[*it]);
            for name in names.chain([&key]).collect::<BTreeSet<_>>() {
                match groups.get_mut(name) {
                    Some(group) => group.cumulative += weight,
                    None => {
                        groups.insert(
                            name.clone(),
                            Group {
                                cumulative: weight,
                                ..Group::default()
                            },
                        );
                    }
                }
            }
        }
        let group = groups.entry(key).or_default();
        group.sums.add(&stack.values);
        group.weight += weight;
    }
    (groups, total)
}

/// The sum of the weights of all rows.
#[cfg(test)]
pub(super) fn weights(
    profile: &Profile,
    classes: &[CodeClass],
    by: GroupBy,
    options: &TableOptions<'_>,
) -> u128 {
    let (groups, _) = groups(profile, classes, by, options);
    groups.values().map(|group| group.weight).sum()
}

/// The frames of a stack; none of a lost one.
fn frames_of(stack: &Stack) -> &[usize] {
    match Completeness::of(stack) {
        Completeness::Lost => &[],
        _ => &stack.frames,
    }
}

/// The group of a stack that has no site.
fn without_site(stack: &Stack) -> String {
    match Completeness::of(stack) {
        Completeness::Lost => label::STACK_LOST.to_owned(),
        _ => format!("[{}]", stack.function.name()),
    }
}

/// The group of a frame.
fn group_name(profile: &Profile, frame: &Frame, by: GroupBy, is_short: bool) -> String {
    let function = super::name(frame, is_short);
    match by {
        GroupBy::Module => match (&frame.name, frame.object.and_then(|at| profile.objects.get(at))) {
            (_, Some(object)) => {
                let name = object.path.file_name().unwrap_or(object.path.as_os_str());
                crate::message::escape::one_line(&name.to_string_lossy()).into_owned()
            }
            (FrameName::Offset { module, .. }, None) => {
                format!("[{}]", crate::message::escape::one_line(module))
            }
            (FrameName::Compiled, None) => label::COMPILED.to_owned(),
            _ => "[no file]".to_owned(),
        },
        GroupBy::Site | GroupBy::Line => match source(frame) {
            Some(source) => format!("{function} ({source})"),
            None => function,
        },
        _ => function,
    }
}

/// Writes blocks by size, which are known where blocks are tracked.
fn write_sizes(profile: &Profile, options: &TableOptions<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut sums = Sums::default();
    for stack in profile.stacks.iter().filter(|it| it.function.is_heap()) {
        sums.add(&stack.values);
    }
    let counts: Vec<(usize, u128)> = sums
        .sizes
        .0
        .iter()
        .map(|count| u128::from(*count))
        .enumerate()
        .filter(|(_, count)| *count > 0)
        .collect();
    let total: u128 = counts.iter().map(|(_, count)| count).sum();
    if total == 0 {
        return writeln!(out, "\nno sizes: they are counted with --live");
    }
    let mut columns = super::Columns::new(options.charset);
    let blocks = counts.iter().map(|(_, count)| units::group(*count));
    columns.push_fixed(Column::new("BLOCKS", Align::Right, blocks));
    let shares = counts.iter().map(|(_, count)| units::percent(*count, total));
    columns.push_fixed(Column::new("SHARE", Align::Right, shares));
    writeln!(out)?;
    columns.write_header("SIZE", options.colours, out)?;
    for (row, (bucket, _)) in counts.iter().enumerate() {
        let from = if *bucket == 0 { 0 } else { 1_u128 << bucket };
        let below = 1_u128 << (bucket + 1);
        let range = format!(
            "{} to {}",
            units::bytes(from),
            amount(below - 1, Metric::AllocBytes)
        );
        columns.write_row(row, &range, out)?;
    }
    Ok(())
}
