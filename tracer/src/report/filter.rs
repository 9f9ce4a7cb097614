//! A part of a profile: the stacks that pass a frame, of some processes, of some functions, or that
//! weigh enough.

use std::collections::BTreeMap;

use regex::Regex;
use tracer_ebpf::Function;

use super::label;
use super::merge::Completeness;
use crate::profile::{Frame, GroupVariance, HeapTotals, Metric, Profile, ProfiledProcess, Stack};

/// The stacks that are kept: those for which everything holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct StackFilter {
    /// A frame's name or source file matches.
    pub focus: Option<Regex>,
    /// No frame's name and source file match.
    pub ignore: Option<Regex>,
    /// The process is one of these; any where there are none.
    pub pids: Vec<u32>,
    /// The process has one of these names; any where there are none.
    pub comms: Vec<String>,
    /// The function that was called is one of these; any where there are none.
    pub functions: Vec<Function>,
    /// The stack, with all that look the same, weighs at least this share of what is left by the
    /// rest, in percent.
    pub min_percent: Option<f64>,
}

/// A part of a profile.
#[derive(Clone, Debug)]
pub(crate) struct FilteredProfile {
    /// The part.
    pub profile: Profile,
    /// Its weight.
    pub weight: u128,
    /// The weight of the whole.
    pub total: u128,
}

impl StackFilter {
    /// Returns true if everything is kept.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        !self.has_processes() && !self.has_stacks()
    }

    /// Returns true if processes are chosen.
    const fn has_processes(&self) -> bool {
        !self.pids.is_empty() || !self.comms.is_empty()
    }

    /// Returns true if stacks of a process are chosen.
    const fn has_stacks(&self) -> bool {
        self.focus.is_some()
            || self.ignore.is_some()
            || !self.functions.is_empty()
            || self.min_percent.is_some()
    }

    /// Returns the part of a profile that is kept; the metric is that of weights.
    ///
    /// The heap's totals are those of the process that is kept, where it is one and all of its
    /// stacks are kept; there are none otherwise.
    #[must_use]
    pub(crate) fn apply(&self, profile: &Profile, metric: Metric) -> FilteredProfile {
        let total = weight(&profile.stacks, metric);
        let is_kept: Vec<bool> = profile
            .processes
            .iter()
            .map(|it| self.keeps_process(it))
            .collect();
        let focused = matches(profile, self.focus.as_ref());
        let ignored = matches(profile, self.ignore.as_ref());
        let keeps = |stack: &&Stack| {
            let passes = |frames: &[bool]| stack.frames.iter().any(|it| frames[*it]);
            is_kept[stack.process]
                && (self.functions.is_empty() || self.functions.contains(&stack.function))
                && (self.focus.is_none() || passes(&focused))
                && !passes(&ignored)
        };
        let mut part = Profile {
            stacks: profile.stacks.iter().filter(keeps).cloned().collect(),
            ..profile.clone()
        };
        if let Some(percent) = self.min_percent {
            drop_light(&mut part, metric, percent);
        }
        self.keep_totals(&mut part);
        drop_processes(&mut part, &is_kept);
        if let ([process], false) = (&*part.processes, self.has_stacks())
            && self.has_processes()
        {
            part.held = process.held;
        }
        FilteredProfile {
            weight: weight(&part.stacks, metric),
            total,
            profile: part,
        }
    }

    fn keeps_process(&self, process: &ProfiledProcess) -> bool {
        (self.pids.is_empty() || self.pids.contains(&process.pid))
            && (self.comms.is_empty() || self.comms.contains(&process.comm))
    }

    /// Drops totals of stacks that are not there any more.
    fn keep_totals(&self, part: &mut Profile) {
        if self.has_stacks() {
            part.together.clear();
            part.held = None;
            for process in &mut part.processes {
                process.held = None;
            }
        } else if self.has_processes() {
            part.together.retain(|it| it.process.is_some());
            part.held = None;
        }
    }
}

/// Returns true for each frame that matches.
fn matches(profile: &Profile, pattern: Option<&Regex>) -> Vec<bool> {
    let is_match = |frame: &Frame| {
        pattern.is_some_and(|pattern| {
            let file = frame.source.as_ref().map_or("", |it| &it.file);
            pattern.is_match(&label::frame(frame)) || pattern.is_match(file)
        })
    };
    profile.frames.iter().map(is_match).collect()
}

fn weight(stacks: &[Stack], metric: Metric) -> u128 {
    stacks
        .iter()
        .filter_map(|it| metric.weight(it))
        .map(u128::from)
        .sum()
}

/// Drops stacks that weigh less than this share, with all that look the same.
fn drop_light(part: &mut Profile, metric: Metric, percent: f64) {
    // Names are numbered, since texts of stacks would be gigabytes.
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let mut number = |name: String| {
        let next = names.len();
        *names.entry(name).or_insert(next)
    };
    let frames: Vec<usize> = part.frames.iter().map(|it| number(label::frame(it))).collect();
    let processes: Vec<usize> = part
        .processes
        .iter()
        .map(|it| number(label::process(it, false)))
        .collect();
    let keys: Vec<_> = part
        .stacks
        .iter()
        .map(|stack| {
            let path: Vec<usize> = stack.frames.iter().map(|it| frames[*it]).collect();
            (
                processes[stack.process],
                stack.function,
                Completeness::of(stack),
                path,
            )
        })
        .collect();
    let mut weights: BTreeMap<_, u128> = BTreeMap::new();
    for (key, stack) in keys.iter().zip(&part.stacks) {
        *weights.entry(key).or_default() += u128::from(metric.weight(stack).unwrap_or(0));
    }
    let total: u128 = weights.values().sum();
    let is_heavy = |weight: u128| to_f64(weight) * 100.0 >= percent * to_f64(total);
    let mut heavy = keys.iter().map(|key| is_heavy(weights[key]));
    part.stacks.retain(|_| heavy.next().unwrap_or(false));
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a share need not be exact to the last unit"
)]
const fn to_f64(weight: u128) -> f64 {
    weight as f64
}

/// Drops processes, and numbers the others anew.
fn drop_processes(part: &mut Profile, is_kept: &[bool]) {
    let mut place = vec![0; is_kept.len()];
    let mut next = 0;
    for (place, is_kept) in place.iter_mut().zip(is_kept) {
        *place = next;
        next += usize::from(*is_kept);
    }
    let mut kept = is_kept.iter();
    part.processes.retain(|_| kept.next().is_some_and(|it| *it));
    for stack in &mut part.stacks {
        stack.process = place[stack.process];
    }
    part.together
        .retain(|it| it.process.is_none_or(|process| is_kept[process]));
    for group in &mut part.together {
        let GroupVariance { process, .. } = group;
        *process = process.map(|it| place[it]);
    }
}

/// Returns the heap's totals as stacks tell them, for a report that shows them: the peak is what
/// these stacks held when all held the most, as near as snapshots tell.
#[must_use]
pub(crate) fn totals_of_stacks(profile: &Profile) -> HeapTotals {
    let mut held = HeapTotals::default();
    let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
    for stack in profile.stacks.iter().filter(|it| it.function.is_heap()) {
        let values = &stack.values;
        add(&mut held.live, values.live());
        add(&mut held.live_bytes, values.live_bytes());
        add(&mut held.free_calls, values.heap.freed);
        add(&mut held.peak_bytes, values.heap.peak_bytes);
    }
    held.peak_bytes = held.peak_bytes.max(held.live_bytes);
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::folded;
    use crate::report::sample::{SampleProfile, full, mixed, options};

    fn lines(filter: &StackFilter, profile: &Profile) -> Vec<String> {
        let part = filter.apply(profile, Metric::AllocBytes);
        let mut out = Vec::new();
        let written = folded::write(&part.profile, options(), &mut out).unwrap();
        assert_eq!(written.total, part.weight);
        let text = String::from_utf8(out).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn pattern(text: &str) -> Regex {
        Regex::new(text).unwrap()
    }

    fn everything() -> StackFilter {
        StackFilter::default()
    }

    #[test]
    fn focus_and_ignore_part_a_profile() {
        let all = lines(&everything(), &mixed());
        for text in [
            "parse",
            "^main$",
            r"vec\.rs",
            "libstripped",
            "nothing",
            "0x7f12",
            "^$",
        ] {
            let focus = StackFilter {
                focus: Some(pattern(text)),
                ..everything()
            };
            let ignore = StackFilter {
                ignore: Some(pattern(text)),
                ..everything()
            };
            let mut both = lines(&focus, &mixed());
            both.extend(lines(&ignore, &mixed()));
            both.sort();
            assert_eq!(both, all, "{text}");
        }
        let focus = StackFilter {
            focus: Some(pattern("/src/parse/lib.rs")),
            ignore: Some(pattern("grow")),
            ..everything()
        };
        assert_eq!(
            lines(&focus, &mixed()),
            ["server;[truncated];[0x7f1234567000];<[u8: 4] as Parse>::parse;malloc 7000"]
        );
    }

    #[test]
    fn processes_and_functions_are_chosen() {
        let pid = StackFilter {
            pids: vec![101],
            ..everything()
        };
        assert_eq!(
            lines(&pid, &mixed()),
            [
                "worker;_start;main;grow;malloc 0",
                "worker;_start;main;malloc 80000"
            ]
        );
        let comm = StackFilter {
            comms: vec!["worker".into()],
            pids: vec![100, 4711],
            ..everything()
        };
        assert_eq!(lines(&comm, &mixed()), ["worker;_start;main;malloc 40000"]);
        let functions = StackFilter {
            functions: vec![Function::Calloc, Function::Realloc],
            ..everything()
        };
        assert_eq!(
            lines(&functions, &mixed()),
            [
                "server;_start;main;broken name;realloc 1000000",
                "server;_start;main;calloc 4096"
            ]
        );
    }

    #[test]
    fn light_stacks_are_those_that_look_the_same_together() {
        let mut sample = SampleProfile::default();
        let process = sample.process(1, "p");
        let [f, g] = ["f", "g"].map(|name| sample.symbol(name));
        for bytes in [30, 30] {
            sample.heap(process, Function::Malloc, &[f], 1, bytes);
        }
        sample.heap(process, Function::Malloc, &[g], 1, 40);
        let at_least = |percent| StackFilter {
            min_percent: Some(percent),
            ..everything()
        };
        assert_eq!(lines(&at_least(50.0), &sample.profile), ["p;f;malloc 60"]);
        assert_eq!(lines(&at_least(40.0), &sample.profile).len(), 2);
        assert_eq!(lines(&at_least(61.0), &sample.profile).len(), 0);
    }

    #[test]
    fn the_heaps_totals_are_those_of_what_is_left() {
        let (profile, _) = full();
        let one = StackFilter {
            pids: vec![100],
            ..everything()
        };
        let part = one.apply(&profile, Metric::AllocBytes).profile;
        assert_eq!(part.processes.len(), 1);
        assert_eq!(part.held, part.processes[0].held);
        assert_eq!(part.processes[0].held, profile.processes[1].held);
        assert!(part.together.iter().all(|it| it.process == Some(0)));
        assert_eq!(part.together.len(), 1);

        let some = StackFilter {
            focus: Some(pattern("parse")),
            ..everything()
        };
        let part = some.apply(&profile, Metric::AllocBytes);
        assert_eq!(part.profile.held, None);
        assert!(part.profile.processes.iter().all(|it| it.held.is_none()));
        let live = part.profile.stacks.iter().map(|it| it.values.live_bytes());
        let freed = part.profile.stacks.iter().map(|it| it.values.heap.freed);
        let held = totals_of_stacks(&part.profile);
        assert_eq!(held.live_bytes, live.sum::<u64>());
        assert_eq!(held.free_calls, freed.sum::<u64>());
        assert!(held.peak_bytes >= held.live_bytes);
        assert!(part.weight < part.total && part.profile.together.is_empty());
        assert!(everything().is_empty() && !some.is_empty() && !one.is_empty());
    }
}
