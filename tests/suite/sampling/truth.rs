//! The fixture's calls, their totals, and the permitted error of estimates.

use anyhow::{Result, ensure};

/// Equal calls of one stack of `fixtures/sampled.c`, in one child.
#[expect(clippy::struct_field_names, reason = "how many calls they are")]
pub(super) struct Calls {
    pub(super) stack: &'static str,
    pub(super) function: &'static str,
    pub(super) bytes: u64,
    pub(super) calls: u64,
    /// Those whose block is kept, with `keep`.
    pub(super) kept: u64,
    /// Those whose block is given back by the next call of the allocator, with `keep`.
    pub(super) temporary: u64,
}

pub(super) const fn calls(
    stack: &'static str,
    function: &'static str,
    bytes: u64,
    calls: u64,
    kept: u64,
    temporary: u64,
) -> Calls {
    Calls {
        stack,
        function,
        bytes,
        calls,
        kept,
        temporary,
    }
}

pub(super) const CALLS: [Calls; 13] = [
    calls("tiny", "malloc", 8, 15_000, 7500, 7500),
    calls("rows", "calloc", 64, 2000, 1000, 1000),
    calls("begun", "realloc", 200, 600, 300, 300),
    calls("aligned", "posix_memalign", 1000, 400, 200, 200),
    calls("mixed", "aligned_alloc", 16, 500, 0, 0),
    calls("mixed", "aligned_alloc", 100, 500, 500, 0),
    calls("mixed", "aligned_alloc", 700, 500, 0, 0),
    calls("mixed", "aligned_alloc", 4096, 500, 500, 0),
    calls("grown", "malloc", 100, 500, 0, 500),
    calls("grown", "realloc", 200, 500, 0, 500),
    calls("grown", "realloc", 400, 500, 250, 250),
    calls("arrays", "reallocarray", 300, 500, 250, 250),
    calls("mapped", "malloc", 16 << 20, 20, 10, 10),
];

/// A figure of one process: what it is, and the variance of an estimate of it.
#[derive(Clone, Copy, Default)]
pub(super) struct Truth {
    pub(super) value: f64,
    pub(super) variance: f64,
}

/// The variance that one allocation adds to that of a count, `E[w² I] - 1`: `w` is one of the two
/// whole numbers next to `1/p`.
pub(super) fn variance(bytes: u64, interval: u64) -> f64 {
    let p = -(-(bytes.max(1) as f64) / interval as f64).exp_m1();
    let (low, fraction) = ((1.0 / p).floor(), (1.0 / p).fract());
    p * ((1.0 - fraction) * low.powi(2) + fraction * (low + 1.0).powi(2)) - 1.0
}

impl Truth {
    /// The sum over calls: of `weigh`'s count of each kind, or of its bytes.
    pub(super) fn of<'a>(
        all: impl Iterator<Item = &'a Calls>,
        interval: u64,
        is_bytes: bool,
        weigh: impl Fn(&Calls) -> u64,
    ) -> Self {
        all.fold(Self::default(), |sum, calls| {
            let unit = if is_bytes { calls.bytes as f64 } else { 1.0 };
            let count = weigh(calls) as f64;
            Self {
                value: sum.value + count * unit,
                variance: sum.variance + count * unit * unit * variance(calls.bytes, interval),
            }
        })
    }

    /// Returns how far the mean of estimates is off, as a part of the truth. Fails if that is too
    /// much, or could not show a bias of 2 %.
    pub(super) fn assert_mean(self, what: &str, found: &[f64]) -> Result<f64> {
        let runs = found.len() as f64;
        let mean = found.iter().sum::<f64>() / runs;
        // And what floating point is off by, where nothing varies.
        let allowed = 5.0 * (self.variance / runs).sqrt() + 1e-9 * self.value;
        ensure!(
            allowed < 0.02 * self.value,
            "{what}: {allowed} of {} is too little to show a bias of 2 %",
            self.value
        );
        ensure!(
            (mean - self.value).abs() <= allowed,
            "{what}: the mean of {runs} estimates is {mean}, the truth {}, {allowed} allowed",
            self.value
        );
        Ok((mean - self.value).abs() / self.value)
    }
}

/// The number of estimates, and of those that have the truth within 1.96 of their own standard
/// errors.
#[derive(Default)]
pub(super) struct Coverage {
    pub(super) all: u32,
    pub(super) covered: u32,
}

impl Coverage {
    pub(super) fn add(&mut self, estimate: f64, stderr: f64, truth: f64) {
        self.all += 1;
        self.covered += u32::from((estimate - truth).abs() <= 1.96 * stderr);
    }

    /// 95 of 100 are expected. Of `n`, the share has a standard deviation of `sqrt(0.95 × 0.05 /
    /// n)`, 0.77 % of 800: five of those, and 1 % more since sums of some hundred terms are not
    /// quite normal.
    pub(super) fn assert(&self) -> Result<f64> {
        let share = f64::from(self.covered) / f64::from(self.all);
        let allowed = 5.0 * (0.95 * 0.05 / f64::from(self.all)).sqrt() + 0.01;
        ensure!(
            (share - 0.95).abs() <= allowed,
            "{} of {} estimates are within 1.96 standard errors",
            self.covered,
            self.all
        );
        Ok(share)
    }
}
