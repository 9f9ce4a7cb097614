//! The values of a sample: Go's heap profile types first, in its order, which every viewer knows,
//! then memtap's own.

use crate::profile::{Metric, Stack};

/// A type of value.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleType {
    /// The name.
    pub(super) name: &'static str,
    /// `count` or `bytes`.
    pub(super) unit: &'static str,
    /// The metric that the value belongs to: there are values where there are figures of it.
    pub(super) metric: Metric,
    /// The value of a stack.
    pub(super) of: fn(&Stack) -> u64,
}

/// Every type, in the order of files.
pub(super) const SAMPLE_TYPES: [SampleType; 10] = [
    SampleType {
        name: "alloc_objects",
        unit: "count",
        metric: Metric::AllocCount,
        of: |stack| Metric::AllocCount.weight(stack).unwrap_or(0),
    },
    SampleType {
        name: "alloc_space",
        unit: "bytes",
        metric: Metric::AllocBytes,
        of: |stack| Metric::AllocBytes.weight(stack).unwrap_or(0),
    },
    SampleType {
        name: "inuse_objects",
        unit: "count",
        metric: Metric::LiveCount,
        of: |stack| Metric::LiveCount.weight(stack).unwrap_or(0),
    },
    SampleType {
        name: "inuse_space",
        unit: "bytes",
        metric: Metric::LiveBytes,
        of: |stack| Metric::LiveBytes.weight(stack).unwrap_or(0),
    },
    SampleType {
        name: "peak_space",
        unit: "bytes",
        metric: Metric::PeakBytes,
        of: |stack| Metric::PeakBytes.weight(stack).unwrap_or(0),
    },
    SampleType {
        name: "freed_objects",
        unit: "count",
        metric: Metric::FreedBytes,
        of: |stack| {
            if stack.function.is_heap() {
                stack.values.heap.freed
            } else {
                0
            }
        },
    },
    SampleType {
        name: "freed_space",
        unit: "bytes",
        metric: Metric::FreedBytes,
        of: |stack| Metric::FreedBytes.weight(stack).unwrap_or(0),
    },
    SampleType {
        name: "temporary_objects",
        unit: "count",
        metric: Metric::TemporaryCount,
        of: |stack| Metric::TemporaryCount.weight(stack).unwrap_or(0),
    },
    SampleType {
        name: "region_calls",
        unit: "count",
        metric: Metric::RegionBytes,
        of: |stack| {
            if stack.function.is_heap() {
                0
            } else {
                stack.values.calls
            }
        },
    },
    SampleType {
        name: "region_space",
        unit: "bytes",
        metric: Metric::RegionBytes,
        of: |stack| Metric::RegionBytes.weight(stack).unwrap_or(0),
    },
];

/// Returns the types of a profile that has figures of these metrics.
pub(super) fn sample_types(metrics: &[Metric]) -> Vec<SampleType> {
    let mut types = SAMPLE_TYPES.to_vec();
    types.retain(|it| metrics.contains(&it.metric));
    types
}

/// Returns the name of the type whose values a metric's weights are.
pub(super) const fn default_type(metric: Metric) -> &'static str {
    match metric {
        Metric::AllocBytes => "alloc_space",
        Metric::AllocCount => "alloc_objects",
        Metric::LiveBytes => "inuse_space",
        Metric::LiveCount => "inuse_objects",
        Metric::FreedBytes => "freed_space",
        Metric::TemporaryCount => "temporary_objects",
        Metric::PeakBytes => "peak_space",
        Metric::RegionBytes => "region_space",
    }
}

/// Returns the metric whose weights the values of this type are, as programs name and measure it.
/// Profiles of jemalloc and tcmalloc call what is in use `objects` and `space`.
pub(super) fn metric_of(name: &str, unit: &str) -> Option<Metric> {
    let (metric, own_unit) = match name {
        "objects" => (Metric::LiveCount, "count"),
        "space" => (Metric::LiveBytes, "bytes"),
        _ => {
            let metric = Metric::ALL.into_iter().find(|it| default_type(*it) == name)?;
            (metric, if metric.is_bytes() { "bytes" } else { "count" })
        }
    };
    (unit == own_unit).then_some(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_type_of_its_unit() {
        for metric in Metric::ALL {
            let name = default_type(metric);
            let found = SAMPLE_TYPES.iter().find(|it| it.name == name).expect(name);
            assert_eq!(metric_of(name, found.unit), Some(metric));
            assert_eq!(metric_of(name, "nanoseconds"), None);
        }
        assert_eq!(metric_of("space", "bytes"), Some(Metric::LiveBytes));
        assert_eq!(metric_of("cpu", "nanoseconds"), None);
    }

    #[test]
    fn the_first_are_in_the_order_that_viewers_know() {
        let names = sample_types(&Metric::ALL).into_iter().take(4).map(|it| it.name);
        assert_eq!(
            names.collect::<Vec<_>>(),
            ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"]
        );
        let alone = sample_types(&[Metric::RegionBytes]);
        let names: Vec<&str> = alone.iter().map(|it| it.name).collect();
        assert_eq!(names, ["region_calls", "region_space"]);
    }
}
