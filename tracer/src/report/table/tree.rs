//! Stacks as a tree of functions, with shares.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::columns::{Align, Column, Columns};
use super::{StackDetail, TableOptions, amount, room_beside};
use crate::profile::Profile;
use crate::report::merge::Completeness;
use crate::report::own_code::{self, CodeClass};
use crate::report::{label, units};

/// The direction that a tree grows in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TreeDirection {
    /// From the sites to their callers.
    Callers,
    /// From the processes to what they call.
    Callees,
}

/// The share in percent below which a branch is cut, unless another is asked for.
const MIN_PERCENT: f64 = 1.0;

/// A branch.
#[derive(Default)]
struct Branch {
    weight: u128,
    /// The branches of it, by the number of their name.
    children: BTreeMap<usize, Branch>,
}

/// A line of the tree.
struct Line {
    weight: u128,
    text: String,
}

/// Writes the tree.
pub(super) fn write(
    profile: &Profile,
    classes: &[CodeClass],
    direction: TreeDirection,
    options: &TableOptions<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut names = NumberedNames::default();
    let whole = grow(profile, classes, direction, options, &mut names);
    let options = TableOptions {
        min_percent: options.min_percent.or(Some(MIN_PERCENT)),
        ..*options
    };
    let arrow = match direction {
        TreeDirection::Callers => "← ",
        TreeDirection::Callees => "→ ",
    };
    let mut printer = Printer {
        names: &names.names,
        total: whole.weight,
        options: &options,
        arrow,
        lines: Vec::new(),
    };
    printer.branches(&whole, 0);
    let Printer { lines, total, .. } = printer;

    let mut columns = Columns::new(options.charset);
    let (name, header) = match (options.metric.is_bytes(), direction) {
        (true, TreeDirection::Callers) => ("BYTES", "SITES AND THEIR CALLERS"),
        (true, TreeDirection::Callees) => ("BYTES", "PROCESSES AND THEIR CALLEES"),
        (false, TreeDirection::Callers) => ("COUNT", "SITES AND THEIR CALLERS"),
        (false, TreeDirection::Callees) => ("COUNT", "PROCESSES AND THEIR CALLEES"),
    };
    let weights = lines.iter().map(|line| amount(line.weight, options.metric));
    columns.push_fixed(Column::new(name, Align::Right, weights));
    let shares = lines.iter().map(|line| units::percent(line.weight, total));
    columns.push_fixed(Column::new("SHARE", Align::Right, shares));
    let room = room_beside(&mut columns, &options);
    writeln!(out)?;
    columns.write_header(header, options.colours, out)?;
    for (row, line) in lines.iter().enumerate() {
        let text = match room {
            Some(room) => options.charset.shorten(&line.text, room),
            None => line.text.clone(),
        };
        columns.write_row(row, &text, out)?;
    }
    Ok(())
}

/// Makes the tree of all stacks that the metric applies to.
fn grow(
    profile: &Profile,
    classes: &[CodeClass],
    direction: TreeDirection,
    options: &TableOptions<'_>,
    names: &mut NumberedNames,
) -> Branch {
    let frame_names: Vec<usize> = profile
        .frames
        .iter()
        .map(|it| names.number(super::name(it, options.short_names)))
        .collect();
    let mut root = Branch::default();
    for stack in &profile.stacks {
        let Some(weight) = options.metric.weight(stack).map(u128::from) else {
            continue;
        };
        let walk = Completeness::of(stack);
        let frames: &[usize] = if walk == Completeness::Lost {
            &[]
        } else {
            &stack.frames
        };
        let process = label::process(&profile.processes[stack.process], options.per_pid);
        let mut path = vec![names.number(process)];
        match walk {
            Completeness::Whole => {}
            Completeness::Truncated => path.push(names.number(label::TRUNCATED.to_owned())),
            Completeness::Lost => path.push(names.number(label::STACK_LOST.to_owned())),
        }
        let site = own_code::site(frames, classes);
        let is_full = options.stacks == StackDetail::Full;
        let own = frames.iter().enumerate().filter(|(at, frame)| {
            is_full
                || site == Some(*at)
                || (site.is_none_or(|site| *at < site) && classes[**frame] == CodeClass::Own)
        });
        path.extend(own.map(|(_, frame)| frame_names[*frame]));
        if is_full || site.is_none() {
            path.push(names.number(stack.function.name().to_owned()));
        }
        if direction == TreeDirection::Callers {
            path.reverse();
        }
        root.add(&path, weight);
    }
    root
}

impl Branch {
    /// Adds a weight to this branch and along a path of it.
    fn add(&mut self, path: &[usize], weight: u128) {
        self.weight += weight;
        let mut node = self;
        for name in path {
            node = node.children.entry(*name).or_default();
            node.weight += weight;
        }
    }
}

/// Names by number, each once.
#[derive(Default)]
struct NumberedNames {
    names: Vec<String>,
    numbers: BTreeMap<String, usize>,
}

impl NumberedNames {
    fn number(&mut self, name: String) -> usize {
        if let Some(number) = self.numbers.get(&name) {
            return *number;
        }
        self.names.push(name.clone());
        self.numbers.insert(name, self.names.len() - 1);
        self.names.len() - 1
    }
}

/// The lines of a tree in the making.
struct Printer<'a> {
    names: &'a [String],
    total: u128,
    options: &'a TableOptions<'a>,
    arrow: &'static str,
    lines: Vec<Line>,
}

impl Printer<'_> {
    /// Adds the branches of a node, the heaviest first. A chain without forks is not indented.
    fn branches(&mut self, node: &Branch, depth: usize) {
        let mut children: Vec<(&usize, &Branch)> = node.children.iter().collect();
        children.sort_by(|(a_name, a), (b_name, b)| {
            let name = |number: &usize| &self.names[*number];
            (Reverse(a.weight), name(a_name)).cmp(&(Reverse(b.weight), name(b_name)))
        });
        let (shown, cut): (Vec<_>, Vec<_>) = children
            .into_iter()
            .partition(|(_, child)| self.options.is_shown(child.weight, self.total));
        let is_chain = depth > 0 && shown.len() == 1 && cut.is_empty() && shown[0].1.weight == node.weight;
        let depth_of_child = if is_chain { depth } else { depth + 1 };
        for (name, child) in shown {
            let arrow = if depth == 0 { "" } else { self.arrow };
            self.push(
                child.weight,
                depth_of_child,
                &format!("{arrow}{}", self.names[*name]),
            );
            self.branches(child, depth_of_child);
        }
        if !cut.is_empty() {
            let weight = cut.iter().map(|(_, child)| child.weight).sum();
            let more = units::counted(cut.len() as u128, "more branch");
            self.push(weight, depth_of_child, &format!("… {more}"));
        }
    }

    fn push(&mut self, weight: u128, depth: usize, text: &str) {
        let indent = "  ".repeat(depth.saturating_sub(1));
        self.lines.push(Line {
            weight,
            text: format!("{indent}{text}"),
        });
    }
}
