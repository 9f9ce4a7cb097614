//! Which allocations are sampled, and what a sampled one stands for: integers alone, so that the
//! kernel side can do it.
//!
//! Sample points are a Poisson process over the bytes that are allocated, with a mean distance of
//! `interval` bytes. An allocation of `s` bytes (at least one) is sampled if a point falls into it,
//! which it does with probability `p = 1 - exp(-s / interval)`. It then stands for `w` allocations
//! like itself: `w` is `1 / p`, rounded at random to one of the two integers next to it so that its
//! mean is just that (Horvitz and Thompson's estimator, 1952). So every sum of `w`, `w × s` and the
//! like over sampled allocations is an unbiased estimate of the same sum over all.
//!
//! With `I` for "is sampled", one allocation adds `w I` to the estimate of a count. `E[w I] = 1`,
//! so the variance is `E[w² I] - 1 = E[w² I] - E[w I] = E[w (w - 1) I]`: the sum of `w (w - 1)`
//! over what is sampled is an unbiased estimate of the variance of a count, and that of
//! `s² w (w - 1)` of the variance of bytes. Both are zero for allocations that are sampled for
//! sure.
#![expect(
    clippy::inline_always,
    reason = "the kernel side's programs have calls only where the verifier gains by one"
)]

#[cfg(test)]
mod tests;

/// The largest mean distance of sample points, in bytes.
pub const INTERVAL_MAX: u32 = 1 << 30;

/// The most that an allocation may stand for, interval and share taken together: weights are 32
/// bits wide.
pub const WEIGHT_MAX: u64 = 1 << 31;

/// Fraction bits of [`Rate::inverse_share`].
pub const SHARE_BITS: u32 = 16;

/// How much is sampled. In one word, so that a program sees the two numbers change together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The mean distance of sample points, in bytes; 1: every allocation is sampled.
    pub interval: u32,
    /// How many times as long as the probes are attached the recording lasts, at least 1, with
    /// [`SHARE_BITS`] of fraction: what is counted stands for what is not, too.
    pub inverse_share: u32,
}

impl Rate {
    /// Every allocation, all the time.
    pub const EVERY: Self = Self {
        interval: 1,
        inverse_share: 1 << SHARE_BITS,
    };

    /// The word.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.inverse_share as u64) << 32 | self.interval as u64
    }

    /// From the word.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
    pub const fn unpack(word: u64) -> Self {
        Self {
            interval: word as u32,
            inverse_share: (word >> 32) as u32,
        }
    }
}

/// Allocations so large or larger count down as so many bytes: they are sampled whatever the
/// interval.
pub const BYTES_MAX: u64 = 1 << 40;

/// The bytes of an allocation that a sample point can fall into: an empty one has room for one.
#[inline(always)]
#[must_use]
pub const fn room(bytes: u64) -> u64 {
    match bytes {
        0 => 1,
        1..BYTES_MAX => bytes,
        _ => BYTES_MAX,
    }
}

/// The state of one CPU: the distance to its next sample point, and its random numbers. Programs
/// interrupt each other between any two of these steps.
pub trait Points {
    /// Subtracts bytes from the distance. Returns what it was; 0 or less where another program is
    /// about to [`restart`](Self::restart) it.
    fn count_down(&self, bytes: u64) -> i64;

    /// Sets the distance.
    fn restart(&self, distance: u64);

    /// 64 random bits.
    fn random(&self) -> u64;
}

/// Whether an allocation is sampled, by what [`Points::count_down`] by its [`room`] has returned.
///
/// Any two distances are drawn independently, and the process has no memory: it does not matter who
/// restarts the distance, nor how often. A program that finds it used up asks a fresh draw of its
/// own whether a point falls into its bytes.
#[inline(always)]
#[must_use]
pub fn is_sampled(points: &impl Points, interval: u32, room: u64, before: i64) -> bool {
    if before > room.cast_signed() {
        return false;
    }
    let fresh = distance(points.random(), interval);
    if before > 0 {
        points.restart(fresh);
        return true;
    }
    fresh <= room
}

/// The next number of a generator whose state goes up by [`RANDOM_STEP`] for each: Steele, Lea and
/// Flood's `SplitMix64` (2014). An addition is all that changes the state, so that programs that
/// interrupt each other get different numbers.
#[inline(always)]
#[must_use]
pub const fn random(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// See [`random`]: the golden ratio, which visits every state.
pub const RANDOM_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Fraction bits of [`minus_ln`].
const LN_BITS: u32 = 34;

/// `-ln(u)` for `u = random / 2^64`, with [`LN_BITS`] of fraction; off by less than 2^-29: three
/// roundings to 31 bits or more.
///
/// `u` is brought between `2^(-1/4)` and 1 by factors of 2, `2^(1/2)` and `2^(1/4)`, whose
/// logarithms are known; the rest is the series of `-ln(1 - d) = d (1 + d/2 + d²/3 + …)`, whose
/// 12th term is below 2^-32 then.
#[inline(always)]
const fn minus_ln(random: u64) -> u64 {
    /// A quarter of the logarithm of 2, with 16 bits more.
    const QUARTER_OF_LN_2: u64 = 195_103_586_505_167;
    const ROOT_OF_HALF: u64 = 0xB504_F333_F9DE_6800;
    const FOURTH_ROOT_OF_HALF: u64 = 0xD744_FCCA_D69D_6800;
    /// The roots of 2, with 31 bits of fraction.
    const ROOT: u64 = 3_037_000_499;
    const FOURTH_ROOT: u64 = 2_553_802_833;
    const TERMS: u64 = 11;

    let random = random | 1;
    let octaves = random.leading_zeros();
    let mut quarters = 4 * octaves as u64;
    let mut fraction = random << octaves;
    if fraction < ROOT_OF_HALF {
        fraction = ((fraction >> 32) * ROOT) << 1;
        quarters += 2;
    }
    if fraction < FOURTH_ROOT_OF_HALF {
        fraction = ((fraction >> 32) * FOURTH_ROOT) << 1;
        quarters += 1;
    }
    let rest = fraction.wrapping_neg();
    let mut series = 0;
    let mut term = TERMS;
    while term > 0 {
        series = (1 << 32) / term + ((series * (rest >> 32)) >> 32);
        term -= 1;
    }
    ((quarters * QUARTER_OF_LN_2) >> 16) + (((rest >> (64 - LN_BITS)) * series) >> 32)
}

/// The distance to the next sample point in whole bytes, from 1: the point falls into the byte of
/// that number. It is at most `s` with probability `1 - exp(-s / interval)`.
#[inline(always)]
#[must_use]
pub const fn distance(random: u64, interval: u32) -> u64 {
    const LOW_BITS: u32 = 20;
    let interval = interval as u64;
    let ln = minus_ln(random);
    // The product has up to 70 bits: 30 of the interval, 6 + 34 of the logarithm.
    let high = interval * (ln >> LOW_BITS);
    let low = interval * (ln & ((1 << LOW_BITS) - 1));
    let kept = LN_BITS - LOW_BITS;
    let whole = high >> kept;
    let rest = ((high & ((1 << kept) - 1)) << LOW_BITS) + low;
    whole + (rest >> LN_BITS) + 1
}

/// From so many intervals on an allocation is taken to be sampled for sure: one of 20 is missed
/// once in 500 million times.
const SURE: u64 = 20;

/// 1 with the fraction bits that follow it here.
const ONE: u64 = 1 << 32;

/// A quotient, of which the compiler need not be shown that the divisor is never 0.
#[inline(always)]
const fn quotient(dividend: u64, divisor: u64) -> u64 {
    match dividend.checked_div(divisor) {
        Some(quotient) => quotient,
        None => 0,
    }
}

/// `1 / p` for an allocation of so many bytes, with 32 bits of fraction; off by less than 2^-26 of
/// itself.
#[inline(always)]
const fn inverse_probability(room: u64, interval: u32) -> u64 {
    let interval = interval as u64;
    let intervals = quotient(room, interval);
    if intervals >= SURE {
        return ONE;
    }
    let x = (intervals << 32) + quotient((room - intervals * interval) << 32, interval);
    if intervals == 0 {
        // 1 / (1 - exp(-x)) = 1/x + 1/2 + x/12 - x³/720 + x⁵/30240 - x⁷/1209600 + …; what follows
        // is below 3e-8.
        let square = (x * x) >> 32;
        let inner = ONE / 30240 - square / 1_209_600;
        let inner = ONE / 720 - ((square * inner) >> 32);
        let inner = ONE / 12 - ((square * inner) >> 32);
        return quotient(interval << 32, room) + ONE / 2 + ((x * inner) >> 32);
    }
    // exp(-x) is the 32nd power of exp(-x/32), whose series is short.
    let y = x / 32;
    let mut power = ONE;
    let mut term = 11;
    while term > 0 {
        power = ONE - ((y * power) >> 32) / term;
        term -= 1;
    }
    let mut squared = 0;
    while squared < 5 {
        power = (power * power) >> 32;
        squared += 1;
    }
    quotient(1 << 63, ONE - power) << 1
}

/// Fraction bits of a weight before it is rounded.
const WEIGHT_BITS: u32 = 24;

/// What a sampled allocation of so many bytes stands for: at least 1, a little more than
/// [`WEIGHT_MAX`] at the most.
#[inline(always)]
#[must_use]
pub const fn weight(room: u64, rate: Rate, random: u64) -> u64 {
    let fraction = random & ((1 << WEIGHT_BITS) - 1);
    (exact_weight(room, rate) + fraction) >> WEIGHT_BITS
}

/// The mean of [`weight`] over all random numbers, with [`WEIGHT_BITS`] of fraction.
#[inline(always)]
const fn exact_weight(room: u64, rate: Rate) -> u64 {
    const MASK: u64 = (1 << WEIGHT_BITS) - 1;
    let inverse = if rate.interval <= 1 {
        ONE
    } else {
        inverse_probability(room, rate.interval)
    };
    let exact = inverse >> (32 - WEIGHT_BITS);
    let share = rate.inverse_share as u64;
    let whole = ((exact >> WEIGHT_BITS) * share) << (WEIGHT_BITS - SHARE_BITS);
    whole + (((exact & MASK) * share) >> SHARE_BITS)
}

/// The amount that a sampled allocation adds to the variance of a count.
///
/// A sum over `n` allocations of `s` bytes comes to some `n × interval / s`: 64 bits are enough for
/// 2^40 calls that ask for one byte each at an interval of 16 MiB, and for 2^34 at 1 GiB, which
/// take days and hours of nothing else.
#[inline(always)]
#[must_use]
pub const fn count_variance(weight: u64) -> u64 {
    weight.wrapping_mul(weight.wrapping_sub(1))
}

/// The amount that a sampled allocation adds to the variance of bytes, in units of
/// 4^`variance_shift` bytes², rounded. The same each time: what an allocation has added can be
/// taken away again.
#[inline(always)]
#[must_use]
pub const fn bytes_variance(bytes: u64, weight: u64, variance_shift: u32) -> u64 {
    if weight <= 1 {
        return 0;
    }
    let all = bytes.wrapping_mul(weight);
    let others = all.wrapping_sub(bytes);
    if all < 1 << 32 {
        let half = (1u64 << (2 * variance_shift)) >> 1;
        return (all * others).saturating_add(half) >> (2 * variance_shift);
    }
    (all >> variance_shift).wrapping_mul(others >> variance_shift)
}

/// The unit of [`bytes_variance`] where the interval stays as it is. A sampled allocation adds at
/// most about `interval²` bytes² (those that add more are large, and one in millions): at most 2^26
/// units here, for 2^38 of which 64 bits are enough.
#[must_use]
pub const fn variance_shift_of(interval: u32) -> u32 {
    let log = match interval {
        0 => 0,
        _ => interval.ilog2(),
    };
    log.saturating_sub(12)
}

/// The unit where the interval changes: small enough for intervals from 128 bytes on; and a sum
/// over all allocations that come to `b` bytes is some `b × interval` bytes², so that 64 bits are
/// enough for 4 PiB of one stack at 16 MiB.
pub const VARIANCE_SHIFT_OF_ANY: u32 = 6;
