//! The difference of two profiles.
//!
//! Stacks are the same if their process has the same name, the same function was called, and their
//! callers are the same functions. Lines do not matter, nor whether a function was inlined: they
//! change with every build. Files matter where several functions have one name. Addresses of code
//! without symbols matter where both profiles have the same build of the file; otherwise the file's
//! name stands for all of them.

mod folded;
mod matching;
mod svg;
mod table;

use std::collections::HashMap;
use std::io::{self, Write};

use tracer_ebpf::Function;

use super::merge::Completeness;
use super::source::ReportSource;
use super::{Written, label};
use crate::profile::{Metric, Stack};
use matching::FrameMatcher;

pub(crate) use table::{DiffBy, DiffTableOptions};

/// The number of metrics.
const METRICS: usize = Metric::ALL.len();

/// Two profiles, stack by stack.
#[derive(Clone, Debug)]
pub(crate) struct ProfileDiff {
    /// The metrics that both have figures of.
    pub(super) metrics: Vec<Metric>,
    /// The names of processes.
    pub(super) processes: Vec<String>,
    /// The callers.
    pub(super) frames: Vec<DiffFrame>,
    /// The stacks of either, sorted by their indices.
    pub(super) stacks: Vec<DiffStack>,
}

/// A caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DiffFrame {
    /// Its name on one line.
    pub(super) name: String,
    /// Its source file, where one of the profiles knows it; empty where none does.
    pub(super) file: String,
}

/// A stack of either profile.
#[derive(Clone, Debug)]
pub(super) struct DiffStack {
    /// The properties that make it this stack.
    pub(super) key: DiffKey,
    /// The figures of the first profile.
    pub(super) before: DiffFigures,
    /// Those of the second.
    pub(super) after: DiffFigures,
}

/// The properties by which stacks of two profiles are the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct DiffKey {
    /// An index into [`ProfileDiff::processes`].
    pub(super) process: usize,
    /// The function that was called.
    pub(super) function: Function,
    /// The completeness of the stack.
    pub(super) walk: Completeness,
    /// Indices into [`ProfileDiff::frames`], from the outermost to the innermost.
    pub(super) frames: Vec<usize>,
}

/// The figures of a stack by metric, in the order of [`Metric::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DiffFigures {
    weights: [u128; METRICS],
    variances: [u128; METRICS],
}

impl DiffFigures {
    /// The weight by a metric.
    pub(super) fn weight(&self, metric: Metric) -> u128 {
        self.weights[index(metric)]
    }

    /// The variance of the weight.
    fn variance(&self, metric: Metric) -> u128 {
        self.variances[index(metric)]
    }
}

impl DiffFigures {
    /// Adds those of a stack.
    fn add(&mut self, stack: &Stack, metrics: &[Metric], scale: Option<DiffScale>) {
        for metric in metrics {
            let Some(weight) = metric.weight(stack) else {
                continue;
            };
            let (mut weight, mut variance) = (
                u128::from(weight),
                metric.variance(&stack.values.variances).unwrap_or(0),
            );
            if let Some(scale) = scale {
                weight = scale.apply(weight);
                variance = scale.apply(scale.apply(variance));
            }
            let index = index(*metric);
            self.weights[index] = self.weights[index].saturating_add(weight);
            self.variances[index] = self.variances[index].saturating_add(variance);
        }
    }
}

/// The key of a stack, by the new indices of its profile's frames and processes.
fn key(stack: &Stack, frames: &[usize], processes: &[usize]) -> DiffKey {
    let walk = Completeness::of(stack);
    DiffKey {
        process: processes[stack.process],
        function: stack.function,
        walk,
        frames: match walk {
            Completeness::Lost => Vec::new(),
            _ => stack.frames.iter().map(|it| frames[*it]).collect(),
        },
    }
}

impl DiffStack {
    /// The change of a weight.
    pub(super) fn change(&self, metric: Metric) -> i128 {
        change(self.before.weight(metric), self.after.weight(metric))
    }
}

/// The change from one weight to another.
fn change(before: u128, after: u128) -> i128 {
    let of = |weight| i128::try_from(weight).unwrap_or(i128::MAX);
    of(after).saturating_sub(of(before))
}

/// The place of a metric in [`Metric::ALL`].
fn index(metric: Metric) -> usize {
    Metric::ALL
        .iter()
        .position(|it| *it == metric)
        .unwrap_or_default()
}

/// The factor that the first profile's figures are multiplied by: a quotient of two lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiffScale {
    /// The length of the second recording in nanoseconds.
    pub after_ns: u128,
    /// The length of the first, not 0.
    pub before_ns: u128,
}

impl DiffScale {
    fn apply(self, figure: u128) -> u128 {
        match figure.checked_mul(self.after_ns) {
            Some(product) => product.saturating_add(self.before_ns / 2) / self.before_ns,
            None => (figure / self.before_ns).saturating_mul(self.after_ns),
        }
    }
}

impl ProfileDiff {
    /// Compares two profiles by the metrics that both have figures of. With a scale, the first
    /// profile's figures are those that a recording as long as the second would have had.
    #[must_use]
    pub(crate) fn of(before: &ReportSource<'_>, after: &ReportSource<'_>, scale: Option<DiffScale>) -> Self {
        let others = after.origin.metrics();
        let mut metrics = before.origin.metrics();
        metrics.retain(|it| others.contains(it));
        let mut diff = Self {
            metrics,
            processes: Vec::new(),
            frames: Vec::new(),
            stacks: Vec::new(),
        };
        let mut matcher = FrameMatcher::of(before.profile, after.profile);
        let mut processes = HashMap::new();
        let mut stacks: HashMap<DiffKey, (DiffFigures, DiffFigures)> = HashMap::new();
        // The second first: what both have is called as it is called there.
        for (profile, is_after) in [(after.profile, true), (before.profile, false)] {
            let frames: Vec<usize> = profile
                .frames
                .iter()
                .map(|it| matcher.index(it, profile))
                .collect();
            let images: Vec<usize> = profile
                .processes
                .iter()
                .map(|process| {
                    let next = processes.len();
                    *processes.entry(label::process(process, false)).or_insert(next)
                })
                .collect();
            let scale = scale.filter(|_| !is_after);
            for stack in &profile.stacks {
                let (before, after) = stacks.entry(key(stack, &frames, &images)).or_default();
                let figures = if is_after { after } else { before };
                figures.add(stack, &diff.metrics, scale);
            }
        }
        let mut names: Vec<(String, usize)> = processes.into_iter().collect();
        names.sort_unstable_by_key(|(_, index)| *index);
        diff.processes = names.into_iter().map(|(name, _)| name).collect();
        diff.frames = matcher.frames;
        let sides = |(key, (before, after))| DiffStack { key, before, after };
        diff.stacks = stacks.into_iter().map(sides).collect();
        diff.stacks.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        diff
    }

    /// Returns the metrics that both profiles have figures of.
    #[must_use]
    pub(crate) fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// Returns the weights of both profiles.
    #[must_use]
    pub(crate) fn totals(&self, metric: Metric) -> (u128, u128) {
        let sum = |side: fn(&DiffStack) -> &DiffFigures| {
            let weights = self.stacks.iter().map(|it| side(it).weight(metric));
            weights.fold(0, u128::saturating_add)
        };
        (sum(|it| &it.before), sum(|it| &it.after))
    }

    /// Returns the change of the weight of all stacks.
    #[must_use]
    pub(crate) fn growth(&self, metric: Metric) -> i128 {
        let (before, after) = self.totals(metric);
        change(before, after)
    }

    /// Returns true if any stack weighs more or less than before.
    #[must_use]
    pub(crate) fn has_changed(&self, metric: Metric) -> bool {
        self.stacks.iter().any(|it| it.change(metric) != 0)
    }

    /// Returns the stacks that grew most, each on a line.
    #[must_use]
    pub(crate) fn growers(&self, metric: Metric, most: usize) -> Vec<String> {
        table::growers(self, metric, most)
    }

    /// Writes the table.
    ///
    /// Fails only as `out` fails.
    pub(crate) fn write_table(&self, options: &DiffTableOptions, out: &mut dyn Write) -> io::Result<()> {
        table::write(self, options, out)
    }

    /// Writes folded stacks, and flushes `out`.
    ///
    /// Fails only as `out` fails.
    pub(super) fn write_folded(&self, metric: Metric, out: &mut dyn Write) -> io::Result<Written> {
        folded::write(self, metric, out)
    }

    /// Writes a flame graph, and flushes `out`.
    ///
    /// Fails only as `out` fails.
    pub(super) fn write_svg(&self, metric: Metric, out: &mut dyn Write) -> io::Result<Written> {
        svg::write(self, metric, out)
    }

    /// The names of a stack from the process to the function that was called, as folded lines have
    /// them.
    fn names<'a>(&'a self, key: &'a DiffKey) -> impl Iterator<Item = &'a str> {
        let mark = match key.walk {
            Completeness::Whole => None,
            Completeness::Truncated => Some(label::TRUNCATED),
            Completeness::Lost => Some(label::STACK_LOST),
        };
        let frames = key.frames.iter().map(|it| &*self.frames[*it].name);
        std::iter::once(&*self.processes[key.process])
            .chain(mark)
            .chain(frames)
            .chain([key.function.name()])
    }
}

#[cfg(test)]
mod tests;
