//! Growth since the half-way mark, and the score: how much what a stack holds looks like a leak.
//!
//! A leak grows for as long as one looks, and its old blocks stay. What else grows does so for a
//! while, or has its old blocks replaced by new ones. With the growth per quarter of the recording
//! `q2`, `q3`, `q4`, in bytes:
//!
//! ```text
//! score = 2 min(q3, q4)  ×  min(1, (q3 + q4) / 2 q2)  ×  kept
//! kept  = blocks from before the half-way mark that are still live / blocks that were live then
//! ```
//!
//! - The first factor is growth that both quarters of the second half have seen: of a burst, and of
//!   a cache that stops to fill, one has seen none. It is 0 where the smaller is negative.
//! - The second is below 1 where growth slows down, as that of a cache does which finds more and
//!   more in itself. It is 1 where the second quarter saw no growth.
//! - The third is below 1 where old blocks are evicted, and 0 where a sawtooth has dropped them
//!   all.
//!
//! The first quarter is left out: of a program that was running already, blocks that replace ones
//! from before the recording look like growth, and most of them come early. The unit is bytes: a
//! steady leak that keeps all its blocks has its growth since half-way as score.

use std::time::Duration;

use super::sums::AgedSums;
use crate::profile::Marks;

/// Bytes by which live bytes have grown since the half-way mark.
pub(super) fn growth_bytes(aged: &AgedSums) -> i128 {
    difference(aged.live_bytes, aged.marks_bytes[Marks::HALF])
}

/// The score of a stack.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an order of stacks, not a figure that adds up"
)]
pub(super) fn score(aged: &AgedSums, marks: &Marks) -> u128 {
    let [_, second, third, fourth] = quarters(aged, marks);
    let sustained = 2.0 * third.min(fourth);
    if sustained <= 0.0 || aged.half_live == 0 {
        return 0;
    }
    let steady = if second > 0.0 {
        ((third + fourth) / (2.0 * second)).min(1.0)
    } else {
        1.0
    };
    let kept = (aged.kept as f64 / aged.half_live as f64).min(1.0);
    (sustained * steady * kept).round() as u128
}

/// Growth in each quarter of the recording. The marks are not exactly at the quarters: growth
/// between two is scaled to the length of a quarter.
#[expect(clippy::cast_precision_loss, reason = "as in `score`")]
fn quarters(aged: &AgedSums, marks: &Marks) -> [f64; Marks::COUNT + 1] {
    let [a, b, c] = aged.marks_bytes;
    let live = [0, a, b, c, aged.live_bytes];
    let times = [Duration::ZERO, marks.at[0], marks.at[1], marks.at[2], marks.end];
    let quarter = marks.end.as_secs_f64() / 4.0;
    [0, 1, 2, 3].map(|index: usize| {
        let time = times[index + 1].saturating_sub(times[index]).as_secs_f64();
        let growth = difference(live[index + 1], live[index]) as f64;
        if time > 0.0 { growth / time * quarter } else { 0.0 }
    })
}

fn difference(now: u128, before: u128) -> i128 {
    let of = |bytes| i128::try_from(bytes).unwrap_or(i128::MAX);
    of(now).saturating_sub(of(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Marks = Marks {
        at: [
            Duration::from_secs(25),
            Duration::from_secs(50),
            Duration::from_secs(75),
        ],
        end: Duration::from_secs(100),
    };

    /// The figures after 100 seconds of a stack that allocates and frees blocks of one kilobyte:
    /// `made` is the number of blocks that each second allocates, `freed` the number that it frees,
    /// the oldest first.
    fn lived(made: impl Fn(u64) -> u64, freed: impl Fn(u64) -> u64) -> AgedSums {
        let mut blocks = std::collections::VecDeque::new();
        let mut aged = AgedSums::default();
        for second in 0..100 {
            if let Some(mark) = [25, 50, 75].iter().position(|at| *at == second) {
                aged.marks_bytes[mark] = blocks.len() as u128 * 1024;
            }
            if second == 50 {
                aged.half_live = blocks.len() as u128;
            }
            for _ in 0..freed(second) {
                blocks.pop_front();
            }
            blocks.extend(std::iter::repeat_n(
                second,
                usize::try_from(made(second)).unwrap(),
            ));
        }
        aged.live = blocks.len() as u128;
        aged.live_bytes = aged.live * 1024;
        aged.kept = blocks.iter().filter(|second| **second < 50).count() as u128;
        aged
    }

    fn scored(made: impl Fn(u64) -> u64, freed: impl Fn(u64) -> u64) -> u128 {
        score(&lived(made, freed), &MARKS)
    }

    #[test]
    fn a_leak_scores_what_it_grew_by() {
        let leak = lived(|_| 10, |_| 0);
        assert_eq!(growth_bytes(&leak), 500 * 1024);
        assert_eq!(score(&leak, &MARKS), 500 * 1024);
    }

    #[test]
    fn a_leak_in_steps_is_one() {
        let steps = scored(|second| if second % 5 == 0 { 50 } else { 0 }, |_| 0);
        assert_eq!(steps, 500 * 1024);
    }

    #[test]
    fn a_leak_that_speeds_up_is_not_worth_less() {
        assert!(scored(|second| second, |_| 0) > scored(|_| 50, |_| 0));
    }

    #[test]
    fn a_cache_that_is_full_scores_nothing() {
        assert_eq!(scored(|second| if second < 60 { 1000 } else { 0 }, |_| 0), 0);
        assert_eq!(scored(|second| if second < 20 { 1000 } else { 0 }, |_| 0), 0);
    }

    #[test]
    fn a_cache_that_fills_ever_slower_is_below_a_leak_of_its_size() {
        let fills = |second: u64| [800, 400, 200, 100][usize::try_from(second / 25).unwrap()];
        let cache = lived(fills, |_| 0);
        let whole = cache.live_bytes / 1024;
        let leak = scored(|_| u64::try_from(whole).unwrap() / 100, |_| 0);
        assert!(score(&cache, &MARKS) * 6 < leak);
        // It has not stopped: it may be a leak.
        assert!(score(&cache, &MARKS) > 0);
    }

    #[test]
    fn evictions_count_against_growth() {
        // Grows by 1 block a second, and replaces 19.
        let cache = lived(|_| 20, |second| if second < 10 { 0 } else { 19 });
        assert!(growth_bytes(&cache) > 0);
        assert_eq!(cache.kept, 0);
        assert_eq!(score(&cache, &MARKS), 0);
        // Of one that replaces fewer, some old blocks are left.
        let part = scored(|_| 20, |second| if second < 50 { 0 } else { 5 });
        assert!(part > 0 && part < 500 * 1024, "{part}");
        // A cache of a fixed size does not grow.
        let full = |second| if second < 10 { 0 } else { 20 };
        assert_eq!(scored(|_| 20, full), 0);
    }

    #[test]
    fn what_is_there_from_the_start_scores_nothing() {
        assert_eq!(scored(|second| if second == 0 { 100_000 } else { 0 }, |_| 0), 0);
    }

    #[test]
    fn a_burst_scores_nothing() {
        for at in [10, 40, 60, 90] {
            let burst = |second| if second == at { 100_000 } else { 0 };
            assert_eq!(scored(burst, |_| 0), 0, "{at}");
            // Nor on top of what is there from the start.
            assert_eq!(
                scored(|second| burst(second) + u64::from(second == 0), |_| 0),
                0,
                "{at}"
            );
        }
    }

    #[test]
    fn a_sawtooth_scores_nothing() {
        for period in [7, 10, 20, 30, 33] {
            let freed = |second: u64| {
                if second > 0 && second.is_multiple_of(period) {
                    100 * period
                } else {
                    0
                }
            };
            assert_eq!(scored(|_| 100, freed), 0, "{period}");
        }
    }

    #[test]
    fn marks_need_not_be_at_the_quarters() {
        let marks = Marks {
            at: [24, 53, 72].map(Duration::from_secs),
            end: Duration::from_secs(100),
        };
        let leak = AgedSums {
            live_bytes: 100_000,
            marks_bytes: [24_000, 53_000, 72_000],
            half_live: 53,
            kept: 53,
            ..AgedSums::default()
        };
        assert_eq!(score(&leak, &marks), 50_000);
    }

    #[test]
    fn a_stack_that_shrinks_has_negative_growth() {
        let shrinks = lived(
            |second| u64::from(second < 50) * 10,
            |second| u64::from(second > 80) * 10,
        );
        assert!(growth_bytes(&shrinks) < 0);
        assert_eq!(score(&shrinks, &MARKS), 0);
    }
}
