//! Stacks that a reader cannot tell apart, each with its weight by every metric that applies.

use std::collections::BTreeMap;

use super::merge::{Completeness, Groups, StackKey};
use super::source::Origin;
use super::sums::Sums;
use crate::profile::{Metric, Profile};

/// Returns the metrics that there are figures of, the chosen one first.
pub(super) fn metrics(chosen: Metric, origin: Origin<'_>) -> Vec<Metric> {
    let others = origin.metrics().into_iter().filter(|metric| *metric != chosen);
    std::iter::once(chosen).chain(others).collect()
}

/// A stack with its weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WeighedStack {
    /// The key by which its parts are equal.
    pub(super) place: StackKey,
    /// The weight by each metric; nothing where the metric does not apply to the stack.
    pub(super) weights: Vec<Option<u128>>,
    /// The figures.
    pub(super) sums: Sums,
}

/// Merges the stacks that any of the metrics applies to. They are in the order of their keys.
pub(super) fn stacks(
    profile: &Profile,
    metrics: &[Metric],
    processes: &Groups,
    frames: &Groups,
) -> Vec<WeighedStack> {
    let mut merged: BTreeMap<StackKey, (Vec<Option<u128>>, Sums)> = BTreeMap::new();
    for stack in &profile.stacks {
        let weights: Vec<Option<u64>> = metrics.iter().map(|metric| metric.weight(stack)).collect();
        if weights.iter().all(Option::is_none) {
            continue;
        }
        let walk = Completeness::of(stack);
        let place = StackKey {
            process: processes.group[stack.process],
            function: stack.function,
            walk,
            frames: match walk {
                // Nothing would show them.
                Completeness::Lost => Vec::new(),
                _ => stack.frames.iter().map(|it| frames.group[*it]).collect(),
            },
        };
        let (sum_weights, sums) = merged
            .entry(place)
            .or_insert_with(|| (vec![None; metrics.len()], Sums::default()));
        for (sum, weight) in sum_weights.iter_mut().zip(weights) {
            if let Some(weight) = weight {
                *sum = Some(sum.unwrap_or_default() + u128::from(weight));
            }
        }
        sums.add(&stack.values);
    }
    merged
        .into_iter()
        .map(|(place, (weights, sums))| WeighedStack { place, weights, sums })
        .collect()
}

#[cfg(test)]
mod tests {
    use tracer_ebpf::{Function, StackEnd};

    use super::super::sample::{SampleProfile, session};
    use super::super::source::ForeignFacts;
    use super::*;
    use crate::profile::Values;

    #[test]
    fn chosen_metric_is_the_first_and_others_need_their_events() {
        let mut session = session();
        session.settings.traced.live = true;
        let all = metrics(Metric::PeakBytes, Origin::Recording(&session));
        assert_eq!(all.len(), Metric::ALL.len());
        assert_eq!(&all[..2], [Metric::PeakBytes, Metric::AllocBytes]);
        session.settings.traced.live = false;
        session.settings.traced.region = false;
        assert_eq!(
            metrics(Metric::AllocCount, Origin::Recording(&session)),
            [Metric::AllocCount, Metric::AllocBytes]
        );
        let facts = ForeignFacts {
            metrics: vec![Metric::AllocBytes, Metric::LiveBytes],
            ..ForeignFacts::default()
        };
        assert_eq!(
            metrics(Metric::LiveBytes, Origin::Foreign(&facts)),
            [Metric::LiveBytes, Metric::AllocBytes]
        );
    }

    #[test]
    fn weights_of_equal_stacks_add_up() {
        let mut sample = SampleProfile::default();
        let process = sample.process(1, "p");
        let frames = [sample.symbol("f"), sample.symbol("f"), sample.symbol("g")];
        sample.heap(process, Function::Malloc, &frames[..1], 1, u64::MAX);
        sample.heap(process, Function::Malloc, &frames[1..2], 2, u64::MAX);
        *sample.stack(process, Function::Mmap, &frames[2..], Some(StackEnd::Complete)) = Values {
            bytes: 5,
            ..Values::default()
        };
        // No metric applies to it.
        sample.stack(process, Function::Munmap, &frames[2..], Some(StackEnd::Complete));
        let metrics = [Metric::AllocBytes, Metric::AllocCount, Metric::RegionBytes];
        let processes = Groups::of(std::iter::once(0));
        let groups = Groups::of(["f", "f", "g"].into_iter());
        let stacks = stacks(&sample.profile, &metrics, &processes, &groups);
        let weights: Vec<_> = stacks.iter().map(|it| it.weights.clone()).collect();
        assert_eq!(
            weights,
            [
                vec![Some(u128::from(u64::MAX) * 2), Some(3), None],
                vec![None, None, Some(5)]
            ]
        );
    }
}
