//! How much is sampled: set while it runs.

use aya::maps::{Array, MapData, PerCpuArray, PerCpuValues};
use tracer_ebpf::Sampler;
use tracer_ebpf::sampling::{self, Rate};

use super::load::{BpfError, Object};

/// How much is sampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// The mean distance of sample points in bytes, up to 1 GiB; 1: every allocation is sampled.
    pub interval_bytes: u64,
    /// The share of the time in which probes are attached, above 0 and at most 1: what is counted then stands for the
    /// rest, too.
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
    fn rate(self) -> Option<Rate> {
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

impl Object {
    /// Changes how much is sampled, from the next call on. Does nothing where `BpfSettings.sampled` is 0. Fails where an
    /// allocation could stand for more than 2^31 others.
    pub fn set_sampling(&mut self, sampling: Sampling) -> Result<(), BpfError> {
        let rate = sampling.rate().ok_or(BpfError::Sampling {
            interval_bytes: sampling.interval_bytes,
            share: sampling.share,
        })?;
        let failed = |error| BpfError::map("RATE", error);
        let mut map = Array::<&mut MapData, u64>::try_from(self.map_mut("RATE")?).map_err(failed)?;
        map.set(0, rate.pack(), 0).map_err(failed)?;
        self.sampling = sampling;
        self.has_sampled |= sampling != Sampling::EVERY;
        Ok(())
    }

    /// How much is sampled now.
    #[must_use]
    pub fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// Whether allocations may have been left out at any time: figures are estimates then.
    #[must_use]
    pub fn has_sampled(&self) -> bool {
        self.has_sampled
    }

    /// Gives each CPU its random numbers: those of a seed, or unforeseeable ones.
    pub fn seed(&mut self, seed: Option<u64>) -> Result<(), BpfError> {
        let failed = |source: std::io::Error| BpfError::map("SAMPLERS", source);
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| failed(error))?;
        let samplers = (0..cpus as u64).map(|cpu| {
            let random = match seed {
                // Far apart: each is a place of its own in one sequence of 2^64 numbers.
                Some(seed) => sampling::random(sampling::random(seed).wrapping_add(cpu)),
                None => unforeseeable()?,
            };
            Ok(Sampler {
                random,
                ..Sampler::default()
            })
        });
        let samplers: Vec<Sampler> = samplers.collect::<std::io::Result<_>>().map_err(failed)?;
        let values = PerCpuValues::try_from(samplers).map_err(failed)?;
        let failed = |error| BpfError::map("SAMPLERS", error);
        let mut map =
            PerCpuArray::<&mut MapData, Sampler>::try_from(self.map_mut("SAMPLERS")?).map_err(failed)?;
        map.set(0, values, 0).map_err(failed)
    }
}

/// 64 bits from the kernel.
fn unforeseeable() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    // SAFETY: a valid buffer and its length.
    let written = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // So few bytes come whole or not at all (getrandom(2)).
    if written < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(u64::from_ne_bytes(bytes))
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
