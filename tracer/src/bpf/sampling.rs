//! The rate of sampling, which is set while a recording runs.

use tracer_ebpf::sampling::{self, Rate};

/// How much is sampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// The mean distance of sample points in bytes, up to 1 GiB; 1: every allocation is sampled.
    pub interval_bytes: u64,
    /// The share of the time in which probes are attached, above 0 and at most 1: what is counted
    /// then stands for the rest, too.
    pub share: f64,
}

impl Sampling {
    /// Every allocation, all the time.
    pub const EVERY: Self = Self {
        interval_bytes: 1,
        share: 1.0,
    };

    /// As the kernel side takes it; nothing where that cannot be.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the number is checked to be in bounds"
    )]
    pub(super) fn rate(self) -> Option<Rate> {
        let interval = u32::try_from(self.interval_bytes).ok()?;
        let inverse = (f64::from(1 << sampling::SHARE_BITS) / self.share).round();
        let is_share = self.share > 0.0 && self.share <= 1.0 && inverse <= f64::from(u32::MAX);
        if !is_share || !(1..=sampling::INTERVAL_MAX).contains(&interval) {
            return None;
        }
        let inverse_share = inverse as u32;
        let weight_most = (self.interval_bytes * u64::from(inverse_share)) >> sampling::SHARE_BITS;
        (weight_most <= sampling::WEIGHT_MAX).then_some(Rate {
            interval,
            inverse_share,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(interval_bytes: u64, share: f64) -> Option<(u32, u32)> {
        let sampling = Sampling {
            interval_bytes,
            share,
        };
        sampling.rate().map(|rate| (rate.interval, rate.inverse_share))
    }

    #[test]
    fn rates_are_in_bounds() {
        assert_eq!(rate(1, 1.0), Some((1, 1 << 16)));
        assert_eq!(rate(512 << 10, 0.25), Some((512 << 10, 4 << 16)));
        assert_eq!(rate(1 << 30, 0.5), Some((1 << 30, 2 << 16)));
        assert_eq!(rate(16 << 20, 0.01), Some((16 << 20, 100 << 16)));
        for (interval, share) in [
            (0, 1.0),
            ((1 << 30) + 1, 1.0),
            (1 << 40, 1.0),
            (1, 0.0),
            (1, -1.0),
            (1, 1.1),
            (1, f64::NAN),
            (1, 1e-9),
            (1 << 30, 0.4),
        ] {
            assert_eq!(rate(interval, share), None, "{interval} {share}");
        }
    }
}
