//! The arithmetic against the same in floating point, and the estimators against what they
//! estimate.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "comparisons with floating point"
)]

extern crate std;

use std::cell::Cell;

use super::*;

/// Random numbers that are the same each time.
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = random(seed);
    move || {
        state = state.wrapping_add(RANDOM_STEP);
        random(state)
    }
}

#[test]
fn rates_fit_a_word() {
    for rate in [
        Rate::EVERY,
        Rate {
            interval: INTERVAL_MAX,
            inverse_share: u32::MAX,
        },
    ] {
        assert_eq!(Rate::unpack(rate.pack()), rate);
    }
}

#[test]
fn logarithms_are_right() {
    let mut next = numbers(1);
    let mut worst = 0.0_f64;
    let mut check = |number: u64| {
        let number = number | 1;
        // Near 1 the distance from 1 has more digits than the number.
        let below = (number.wrapping_neg()) as f64 / 2f64.powi(64);
        let expected = if below < 0.5 {
            -(-below).ln_1p()
        } else {
            -(number as f64 / 2f64.powi(64)).ln()
        };
        let found = minus_ln(number) as f64 / 2f64.powi(34);
        let error = (found - expected).abs();
        worst = worst.max(error);
        assert!(error < 2f64.powi(-29), "{number:#x}: {found} for {expected}");
        if expected > 1e-6 {
            assert!(error < 0.001 * expected, "{number:#x}: {found} for {expected}");
        }
    };
    // Every scale from both ends, and what lies between.
    for shift in 0..64 {
        for _ in 0..2000 {
            check(next() >> shift);
            check(!(next() >> shift));
        }
    }
    for number in [
        0,
        1,
        u64::MAX,
        1 << 63,
        (1 << 63) - 1,
        0xB504_F333_F9DE_6800,
        0xB504_F333_F9DE_67FF,
    ] {
        check(number);
    }
    assert!(worst > 0.0);
}

/// Of a million numbers at equal distances, the share that gives a distance of at most `s` is the
/// share of those with `-ln(u) <= s / T`, to one in a million: so is the distribution what it
/// should be, up to its far end.
#[test]
fn distances_are_exponential() {
    const STEPS: u64 = 1 << 20;
    for interval in [2, 7, 64, 1000, 4096, 524_288, 16_777_216, INTERVAL_MAX] {
        let mut distances: std::vec::Vec<u64> = (0..STEPS)
            .map(|step| distance((step << 44) + (1 << 43), interval))
            .collect();
        distances.sort_unstable();
        assert!(distances[0] >= 1);
        for hundredths in [1, 3, 10, 30, 70, 100, 150, 200, 300, 500, 800, 1000] {
            let bytes = u64::from(interval) * hundredths / 100;
            let found = distances.partition_point(|distance| *distance <= bytes) as f64 / STEPS as f64;
            let expected = -(-(bytes as f64) / f64::from(interval)).exp_m1();
            assert!(
                (found - expected).abs() < 2.0 / STEPS as f64,
                "{found} of distances are at most {bytes} at {interval}, not {expected}"
            );
        }
        // A point falls into a byte with this probability: the mean distance is its inverse. The
        // last step of the million stands for all the largest distances, which its own is short of
        // by a few in a million.
        let expected = -1.0 / (-1.0 / f64::from(interval)).exp_m1();
        let mean = distances.iter().map(|it| *it as f64).sum::<f64>() / STEPS as f64;
        assert!((mean / expected - 1.0).abs() < 2e-6, "{mean} for {expected}");
    }
}

/// `E[w I] = p E[w] = 1` from a millionth of an interval to 30 intervals, and with probes that are
/// attached for a part of the time.
#[test]
fn weights_have_the_right_mean() {
    let mut next = numbers(2);
    for interval in [2_u32, 3, 100, 4096, 524_288, 1_000_003, 16_777_216, INTERVAL_MAX] {
        for step in 0..3000 {
            // Evenly over the logarithm of x.
            let x = 1e-6 * 3e7_f64.powf(f64::from(step) / 3000.0);
            let room = room((x * f64::from(interval)) as u64);
            let x = room as f64 / f64::from(interval);
            let p = -(-x).exp_m1();
            let share = 1.0 + (next() % 1000) as f64 / 100.0;
            for inverse_share in [1 << SHARE_BITS, (share * 65536.0) as u32] {
                let share = f64::from(inverse_share) / 65536.0;
                let rate = Rate {
                    interval,
                    inverse_share,
                };
                let mean = exact_weight(room, rate) as f64 / 2f64.powi(WEIGHT_BITS.cast_signed());
                assert!(
                    (mean * p / share - 1.0).abs() < 3e-7,
                    "{room} bytes at {rate:?}: {mean} for {}",
                    share / p
                );
            }
        }
    }
}

#[test]
fn weights_are_neighbours_of_their_mean() {
    let rate = Rate {
        interval: 1000,
        inverse_share: 1 << SHARE_BITS,
    };
    for bytes in [1, 10, 500, 1000, 5000, 100_000] {
        let mean = exact_weight(bytes, rate) as f64 / 2f64.powi(WEIGHT_BITS.cast_signed());
        let mut sum = 0;
        let steps = 1 << 16;
        for step in 0..steps {
            let weight = weight(bytes, rate, step << (WEIGHT_BITS - 16));
            assert!((weight as f64 - mean).abs() < 1.0, "{weight} for {mean}");
            sum += weight;
        }
        assert!((sum as f64 / steps as f64 - mean).abs() < 2.0 / steps as f64);
    }
    assert_eq!(weight(1, Rate::EVERY, u64::MAX), 1);
    assert_eq!(weight(1 << 40, rate, u64::MAX), 1);
    let half = Rate {
        interval: 1,
        inverse_share: 2 << SHARE_BITS,
    };
    assert_eq!(weight(7, half, u64::MAX), 2);
}

#[test]
fn rooms_have_bounds() {
    assert_eq!([0, 1, 77, 1 << 39].map(room), [1, 1, 77, 1 << 39]);
    assert_eq!([BYTES_MAX, u64::MAX].map(room), [BYTES_MAX; 2]);
    // The longest distance of the largest interval is less.
    assert!(distance(0, INTERVAL_MAX) < BYTES_MAX);
}

/// A CPU whose programs are interrupted, one time of so many, by another one between any two steps.
struct Cpu {
    interval: u32,
    distance: Cell<i64>,
    state: Cell<u64>,
    interrupt: u64,
    depth: Cell<u32>,
    /// What the interrupting programs ask for, how often they did, and the sum of their weights.
    other_bytes: u64,
    others: Cell<u64>,
    other_weights: Cell<u64>,
}

impl Cpu {
    fn new(interval: u32, interrupt: u64, seed: u64) -> Self {
        let cpu = Self {
            interval,
            distance: Cell::new(0),
            state: Cell::new(random(seed)),
            interrupt,
            depth: Cell::new(0),
            other_bytes: 100,
            others: Cell::new(0),
            other_weights: Cell::new(0),
        };
        cpu.distance.set(distance(cpu.random(), interval).cast_signed());
        cpu
    }

    fn step(&self) -> u64 {
        self.state.set(self.state.get().wrapping_add(RANDOM_STEP));
        random(self.state.get())
    }

    fn may_be_interrupted(&self) {
        if self.interrupt > 0 && self.depth.get() < 3 && self.step().is_multiple_of(self.interrupt) {
            self.depth.set(self.depth.get() + 1);
            self.others.set(self.others.get() + 1);
            let weight = self.allocate(self.other_bytes);
            self.other_weights.set(self.other_weights.get() + weight);
            self.depth.set(self.depth.get() - 1);
        }
    }

    /// What an allocation stands for; 0 if it is not sampled.
    fn allocate(&self, bytes: u64) -> u64 {
        let rate = Rate {
            interval: self.interval,
            inverse_share: 1 << SHARE_BITS,
        };
        let room = room(bytes);
        let before = self.count_down(room);
        if is_sampled(self, self.interval, room, before) {
            weight(room, rate, self.random())
        } else {
            0
        }
    }
}

impl Points for Cpu {
    fn count_down(&self, bytes: u64) -> i64 {
        self.may_be_interrupted();
        let before = self.distance.get();
        self.distance.set(before.wrapping_sub(bytes.cast_signed()));
        self.may_be_interrupted();
        before
    }

    fn restart(&self, distance: u64) {
        self.may_be_interrupted();
        self.distance.set(distance.cast_signed());
    }

    fn random(&self) -> u64 {
        self.may_be_interrupted();
        self.step()
    }
}

/// The estimate of a count of `n` has a variance of about `n (1/p - 1)`; a right one is off by more
/// than five times its root once in two million times, and these numbers are the same each time.
fn assert_count(found: u64, calls: u64, bytes: u64, interval: u32, what: &str) {
    let p = -(-(room(bytes) as f64) / f64::from(interval)).exp_m1();
    // Rounding adds at most 1/4 per sampled allocation.
    let variance = calls as f64 * (1.0 / p - 1.0 + p / 4.0);
    let off = (found as f64 - calls as f64) / variance.sqrt();
    assert!(off.abs() < 5.0, "{what}: {found} for {calls}, off by {off} sigma");
}

#[test]
fn estimates_are_unbiased_however_programs_interrupt_each_other() {
    const SIZES: [u64; 6] = [0, 8, 100, 1000, 10_000, 1_000_000];
    const ROUNDS: u64 = 300_000;
    for interrupt in [0, 1000, 50, 3] {
        for interval in [100, 4096, 100_000] {
            let cpu = Cpu::new(interval, interrupt, interrupt + u64::from(interval));
            let mut found = [0; SIZES.len()];
            for _ in 0..ROUNDS {
                for (sum, bytes) in found.iter_mut().zip(SIZES) {
                    *sum += cpu.allocate(bytes);
                }
            }
            let what = std::format!("interval {interval}, interrupted once in {interrupt}");
            for (sum, bytes) in found.into_iter().zip(SIZES) {
                assert_count(
                    sum,
                    ROUNDS,
                    bytes,
                    interval,
                    &std::format!("{bytes} bytes, {what}"),
                );
            }
            if interrupt > 0 {
                let others = cpu.others.get();
                assert_count(cpu.other_weights.get(), others, cpu.other_bytes, interval, &what);
            }
        }
    }
}

/// The mean of the estimated variances is the variance of the estimates. With 4,000 runs the latter
/// is known to `sqrt(2 / 4000)` = 2.2 %.
#[test]
fn variances_are_estimated() {
    const RUNS: u32 = 4000;
    const MIX: [(u64, u64); 4] = [(64, 2000), (700, 300), (5000, 40), (60_000, 3)];
    let calls: u64 = MIX.iter().map(|(_, calls)| calls).sum();
    let bytes: u64 = MIX.iter().map(|(bytes, calls)| bytes * calls).sum();
    for interval in [100, 1000, 10_000] {
        let cpu = Cpu::new(interval, 0, 7);
        let variance_shift = variance_shift_of(interval);
        let (mut squares, mut variances) = ([0.0; 2], [0.0; 2]);
        for _ in 0..RUNS {
            let (mut found, mut estimated) = ([0.0; 2], [0.0; 2]);
            for (size, calls) in MIX {
                for _ in 0..calls {
                    let weight = cpu.allocate(size);
                    if weight > 0 {
                        found[0] += weight as f64;
                        found[1] += (weight * size) as f64;
                        estimated[0] += count_variance(weight) as f64;
                        estimated[1] += bytes_variance(size, weight, variance_shift) as f64
                            * 4f64.powi(variance_shift.cast_signed());
                    }
                }
            }
            for (figure, truth) in [calls, bytes].into_iter().enumerate() {
                squares[figure] += (found[figure] - truth as f64).powi(2);
                variances[figure] += estimated[figure];
            }
        }
        for figure in 0..2 {
            let ratio = variances[figure] / squares[figure];
            assert!((ratio - 1.0).abs() < 5.0 * 0.023, "interval {interval}: {ratio}");
        }
    }
}

#[test]
fn variances_of_bytes_keep_their_size_in_every_unit() {
    for interval in [2_u32, 100, 4096, 65_536, 524_288, 16_777_216, INTERVAL_MAX] {
        for variance_shift in [variance_shift_of(interval), VARIANCE_SHIFT_OF_ANY] {
            for bytes in [1, 64, 5000, 1 << 20] {
                let rate = Rate {
                    interval,
                    inverse_share: 1 << SHARE_BITS,
                };
                let weight = weight(bytes, rate, 0);
                let exact = (bytes as f64).powi(2) * weight as f64 * (weight as f64 - 1.0);
                let found = bytes_variance(bytes, weight, variance_shift) as f64;
                let unit = 4f64.powi(variance_shift.cast_signed());
                let tolerance = 0.51 + 0.001 * exact / unit;
                assert!(
                    (found - exact / unit).abs() <= tolerance,
                    "{bytes} bytes at {interval}, shift {variance_shift}: {found} for {}",
                    exact / unit
                );
            }
        }
    }
}
