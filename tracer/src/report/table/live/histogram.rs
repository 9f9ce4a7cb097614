//! Histograms on one line.

use std::time::Duration;

use crate::report::sums::Histogram;
use crate::report::units;

/// Bars, the smallest first; a bucket without anything is [`NOTHING`].
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// An empty bucket between others.
const NOTHING: char = '·';

/// Blocks by size.
pub(super) fn sizes(histogram: &Histogram) -> String {
    line(histogram, |bucket| units::bytes(bound(bucket).into()))
}

/// Blocks by lifetime.
pub(super) fn lifetimes(histogram: &Histogram) -> String {
    line(histogram, |bucket| time(bound(bucket)))
}

/// Returns the lower bound of a bucket; the first has what is smaller than 1 too.
fn bound(bucket: usize) -> u64 {
    if bucket == 0 { 0 } else { 1 << bucket }
}

/// Returns a bar for each power of two from the first filled bucket to the last, and where most
/// are.
fn line(histogram: &Histogram, from: impl Fn(usize) -> String) -> String {
    let counts = &histogram.0;
    let Some(first) = counts.iter().position(|count| *count > 0) else {
        return units::NONE.to_owned();
    };
    let last = counts.iter().rposition(|count| *count > 0).unwrap_or(first);
    let most = counts.iter().copied().max().unwrap_or(0);
    let total: u128 = counts.iter().map(|count| u128::from(*count)).sum();
    let bars: String = counts[first..=last]
        .iter()
        .map(|count| bar(*count, most))
        .collect();
    let peak = counts.iter().position(|count| *count == most).unwrap_or(first);
    format!(
        "{} {bars} {}   most from {} to {} ({})",
        from(first),
        end(counts.len(), last, &from),
        from(peak),
        end(counts.len(), peak, &from),
        units::percent(most.into(), total)
    )
}

/// Returns the upper bound of a bucket as text; the last one has none.
fn end(buckets: usize, bucket: usize, from: &impl Fn(usize) -> String) -> String {
    if bucket + 1 == buckets {
        "any".to_owned()
    } else {
        from(bucket + 1)
    }
}

/// Bars grow with the count; what is there is seen.
fn bar(count: u64, most: u64) -> char {
    if count == 0 {
        return NOTHING;
    }
    let steps = BARS.len() as u128;
    let step = (u128::from(count) * steps).div_ceil(u128::from(most.max(1)));
    usize::try_from(step).map_or(BARS[7], |step| BARS[step.clamp(1, BARS.len()) - 1])
}

/// A time from microseconds upwards.
fn time(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..1_000_000 => format!("{} ms", micros / 1000),
        _ => units::duration(Duration::from_micros(micros)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_ebpf::BUCKETS;

    fn histogram(counts: &[(usize, u64)]) -> Histogram {
        let mut histogram = Histogram([0; BUCKETS]);
        for (bucket, count) in counts {
            histogram.0[*bucket] = *count;
        }
        histogram
    }

    #[test]
    fn bars_go_from_the_first_to_the_last() {
        assert_eq!(
            sizes(&histogram(&[(4, 100), (5, 50), (7, 1)])),
            "16 B █▄·▁ 256 B   most from 16 B to 32 B (66.2 %)"
        );
        assert_eq!(
            lifetimes(&histogram(&[(0, 1), (11, 3), (31, 3)])),
            "0 µs ▃··········█···················█ any   most from 2 ms to 4 ms (42.9 %)"
        );
        assert_eq!(sizes(&histogram(&[])), "–");
    }

    #[test]
    fn the_largest_counts_do_not_overflow() {
        let text = sizes(&histogram(&[(1, u64::MAX), (2, u64::MAX)]));
        assert!(text.contains("██"), "{text}");
    }
}
