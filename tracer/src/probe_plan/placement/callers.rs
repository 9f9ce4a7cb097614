//! The allocator's own code, as ranges that a return address is looked up in: a call from there is
//! nested.

use tracer_ebpf::{CodeRange, MAX_CODE_RANGES, ProbeSpec};

use crate::probe_plan::detect::symbols::Placed;

/// Puts the callers of a function that are the allocator's own into its description, as distances
/// from the probe: every function's code, this one's own too, and calls that the allocator makes
/// for itself elsewhere (glibc frees what it kept for a thread that ends), each with the address
/// that it returns to.
pub(in crate::probe_plan) fn put_callers(
    spec: &mut ProbeSpec,
    placed: &Placed,
    offset: u64,
    functions: &[Placed],
    own_calls: &[(u64, u64)],
) {
    let probe = placed.address + offset;
    let distance = |address: u64| address.wrapping_sub(probe).cast_signed();
    let bodies = functions.iter().filter(|other| other.len > 0).map(|other| {
        let start = distance(other.address);
        // A call that is the last instruction of a function returns to just past its end.
        CodeRange {
            start: start + 1,
            end: start.saturating_add_unsigned(other.len + 1),
        }
    });
    let elsewhere = own_calls
        .iter()
        .filter(|(target, _)| *target == placed.address)
        .map(|(_, next)| {
            let start = distance(*next);
            CodeRange {
                start,
                end: start + 1,
            }
        });
    let used = merge(bodies.chain(elsewhere).collect(), MAX_CODE_RANGES - 1);
    let mut callers = [CodeRange::default(); MAX_CODE_RANGES];
    callers[0] = CodeRange {
        start: used.iter().map(|range| range.start).min().unwrap_or(0),
        end: used.iter().map(|range| range.end).max().unwrap_or(0),
    };
    callers[1..=used.len()].copy_from_slice(&used);
    spec.callers_len = u32::try_from(used.len() + 1).unwrap_or(0);
    spec.callers = callers;
}

/// Joins ranges that overlap or touch; and, where there are still more than `most`, those with the
/// smallest gaps between them. What lies in such a gap is taken for the allocator's own: functions
/// of one source file stand side by side.
fn merge(mut ranges: Vec<CodeRange>, most: usize) -> Vec<CodeRange> {
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
