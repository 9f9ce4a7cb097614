//! Stacks that a reader cannot tell apart, made one.

use std::collections::BTreeMap;

use tracer_ebpf::Function;

use super::label;
use super::sums::Sums;
use crate::profile::{Frame, Metric, Profile, Stack};

/// The rule by which processes are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessGrouping {
    /// Merges processes of equal names.
    Comms,
    /// Merges processes of equal names and process IDs.
    Pids,
    /// Each entry of [`Profile::processes`].
    Images,
}

impl ProcessGrouping {
    /// Returns the rule of `--per-pid`.
    pub(super) const fn per_pid(per_pid: bool) -> Self {
        if per_pid { Self::Pids } else { Self::Comms }
    }
}

/// The rule by which frames are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameGrouping {
    /// Merges frames of equal names in a folded line.
    Names,
    /// Merges frames of equal names, files and lines, inlined ones apart from others.
    Lines,
}

/// The completeness of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Completeness {
    /// All of it.
    Whole,
    /// Its inner frames.
    Truncated,
    /// Nothing.
    Lost,
}

impl Completeness {
    /// Returns the completeness of a stack.
    pub(super) const fn of(stack: &Stack) -> Self {
        match stack.end {
            Some(end) if end.is_whole() => Self::Whole,
            Some(_) => Self::Truncated,
            None => Self::Lost,
        }
    }
}

/// The properties by which stacks are merged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StackKey {
    /// An index into [`Merged::processes`].
    pub(super) process: usize,
    /// The function that was called.
    pub(super) function: Function,
    /// The completeness of the stack.
    pub(super) walk: Completeness,
    /// Indices into [`Merged::frames`], from the outermost to the innermost.
    pub(super) frames: Vec<usize>,
}

/// The merged figures of equal stacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MergedStack {
    /// The key by which the stacks are equal.
    pub(super) place: StackKey,
    /// The figures.
    pub(super) sums: Sums,
    /// The weight.
    pub(super) weight: u128,
}

/// A profile's stacks, merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Merged {
    /// One of each group of processes, as an index into [`Profile::processes`].
    pub(super) processes: Vec<usize>,
    /// One of each group of frames, as an index into [`Profile::frames`].
    pub(super) frames: Vec<usize>,
    /// The stacks, in an order that depends on what they show alone.
    pub(super) stacks: Vec<MergedStack>,
    /// The sum of the weights.
    pub(super) total: u128,
    /// The part of the total that has whole stacks.
    pub(super) whole: u128,
}

impl Merged {
    /// Merges the stacks that the metric applies to.
    pub(super) fn of(
        profile: &Profile,
        metric: Metric,
        processes: ProcessGrouping,
        places: FrameGrouping,
    ) -> Self {
        Self::weighed(profile, |stack| metric.weight(stack), processes, places)
    }

    /// Merges the stacks that have a weight.
    pub(super) fn weighed(
        profile: &Profile,
        weight: impl Fn(&Stack) -> Option<u64>,
        processes: ProcessGrouping,
        places: FrameGrouping,
    ) -> Self {
        let process_groups = group_processes(profile, processes);
        let frame_groups = match places {
            FrameGrouping::Names => {
                Groups::of(profile.frames.iter().map(|it| label::folded(&label::frame(it))))
            }
            FrameGrouping::Lines => Groups::of(profile.frames.iter().map(line)),
        };

        let mut sums: BTreeMap<StackKey, (Sums, u128)> = BTreeMap::new();
        let (mut total, mut whole) = (0, 0);
        for stack in &profile.stacks {
            let Some(weight) = weight(stack).map(u128::from) else {
                continue;
            };
            let walk = Completeness::of(stack);
            let place = StackKey {
                process: process_groups.group[stack.process],
                function: stack.function,
                walk,
                // Frames of a lost stack would be shown nowhere, and must not keep it apart from
                // others.
                frames: match walk {
                    Completeness::Lost => Vec::new(),
                    _ => stack.frames.iter().map(|it| frame_groups.group[*it]).collect(),
                },
            };
            let (sum, weights) = sums.entry(place).or_default();
            sum.add(&stack.values);
            *weights += weight;
            total += weight;
            if walk == Completeness::Whole {
                whole += weight;
            }
        }

        Self {
            processes: process_groups.first,
            frames: frame_groups.first,
            stacks: sums
                .into_iter()
                .map(|(place, (sums, weight))| MergedStack { place, sums, weight })
                .collect(),
            total,
            whole,
        }
    }

    /// The heaviest first; among equals the order stays.
    pub(super) fn sort_by_weight(&mut self) {
        self.stacks
            .sort_by_key(|it| std::cmp::Reverse((it.weight, it.sums.calls)));
    }
}

/// Things sorted into groups of equals, the groups numbered by the order of what they show.
pub(super) struct Groups {
    /// The group of each thing.
    pub(super) group: Vec<usize>,
    /// The first thing of each group.
    pub(super) first: Vec<usize>,
}

impl Groups {
    /// Groups things by their keys.
    pub(super) fn of<K: Ord>(keys: impl Iterator<Item = K>) -> Self {
        let keys: Vec<K> = keys.collect();
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by(|a, b| keys[*a].cmp(&keys[*b]));
        let mut group = vec![0; keys.len()];
        let mut first: Vec<usize> = Vec::new();
        for index in order {
            if first.last().is_none_or(|it| keys[*it] != keys[index]) {
                first.push(index);
            }
            group[index] = first.len() - 1;
        }
        Self { group, first }
    }
}

/// Groups processes as asked.
pub(super) fn group_processes(profile: &Profile, processes: ProcessGrouping) -> Groups {
    match processes {
        ProcessGrouping::Comms => Groups::of(profile.processes.iter().map(|it| label::process(it, false))),
        ProcessGrouping::Pids => Groups::of(profile.processes.iter().map(|it| label::process(it, true))),
        // The index comes last, so that images are ordered by what can be seen of them first.
        ProcessGrouping::Images => Groups::of(
            profile
                .processes
                .iter()
                .enumerate()
                .map(|(index, it)| (it.pid, label::process(it, false), it, index)),
        ),
    }
}

/// Returns all properties of a frame that a table shows.
fn line(frame: &Frame) -> (String, Option<(&str, u32)>, bool) {
    let source = frame.source.as_ref().map(|it| (&*it.file, it.line));
    (label::frame(frame), source, frame.inlined)
}

#[cfg(test)]
mod tests {
    use super::super::sample::SampleProfile;
    use super::*;

    #[test]
    fn lines_are_told_apart_only_where_they_are_shown() {
        let mut sample = SampleProfile::default();
        let process = sample.process(1, "p");
        let [one, two] = [10, 20].map(|line| sample.line("f", "a.c", line));
        sample.heap(process, Function::Malloc, &[one], 1, 100);
        sample.heap(process, Function::Malloc, &[two], 2, 50);
        let of = |places| {
            Merged::of(
                &sample.profile,
                Metric::AllocBytes,
                ProcessGrouping::Comms,
                places,
            )
        };
        assert_eq!(of(FrameGrouping::Names).stacks.len(), 1);
        assert_eq!(of(FrameGrouping::Names).stacks[0].sums.calls, 3);
        assert_eq!(of(FrameGrouping::Lines).stacks.len(), 2);
        assert_eq!(of(FrameGrouping::Lines).total, 150);
    }

    #[test]
    fn order_does_not_depend_on_the_profiles() {
        let mut forward = SampleProfile::default();
        let process = forward.process(1, "p");
        let frames = ["b", "a", "c"].map(|name| forward.symbol(name));
        for frame in frames {
            forward.heap(process, Function::Malloc, &[frame], 1, 10);
        }
        let mut backward = forward.clone();
        backward.profile.stacks.reverse();
        let names = |sample: &SampleProfile| {
            let merged = Merged::of(
                &sample.profile,
                Metric::AllocBytes,
                ProcessGrouping::Comms,
                FrameGrouping::Lines,
            );
            let frames = merged.stacks.iter().map(|it| merged.frames[it.place.frames[0]]);
            frames.collect::<Vec<_>>()
        };
        assert_eq!(names(&forward), [1, 0, 2]);
        assert_eq!(names(&forward), names(&backward));
    }
}
