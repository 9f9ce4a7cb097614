//! Ranges of code, made few.

use tracer_ebpf::CodeRange;

/// Joins ranges that overlap or touch; and, where there are still more than `most`, those with the smallest gaps between
/// them. What lies in such a gap is taken for the allocator's own: functions of one source file stand side by side.
pub(super) fn merge(mut ranges: Vec<CodeRange>, most: usize) -> Vec<CodeRange> {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut merged: Vec<CodeRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    while merged.len() > most.max(1) {
        let gap = |at: &usize| merged[at + 1].start.saturating_sub(merged[*at].end);
        let Some(at) = (0..merged.len() - 1).min_by_key(gap) else {
            break;
        };
        merged[at].end = merged[at + 1].end;
        merged.remove(at + 1);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(pairs: &[(i64, i64)]) -> Vec<CodeRange> {
        pairs
            .iter()
            .map(|&(start, end)| CodeRange { start, end })
            .collect()
    }

    #[test]
    fn what_touches_is_one() {
        let merged = merge(ranges(&[(10, 20), (-5, 3), (20, 25), (12, 14)]), 9);
        assert_eq!(merged, ranges(&[(-5, 3), (10, 25)]));
    }

    #[test]
    fn smallest_gaps_go_first() {
        let many = ranges(&[(0, 10), (12, 20), (100, 110), (111, 120), (500, 501)]);
        assert_eq!(merge(many.clone(), 3), ranges(&[(0, 20), (100, 120), (500, 501)]));
        assert_eq!(merge(many, 1), ranges(&[(0, 501)]));
        assert_eq!(merge(Vec::new(), 4), []);
    }
}
