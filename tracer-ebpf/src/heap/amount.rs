//! Blocks, as figures count them.

use tracer_ebpf::sampling;

use crate::settings;

/// What a block adds to figures, as often as it counts; several blocks together likewise.
#[derive(Clone, Copy)]
pub(super) struct Amount {
    /// Blocks.
    pub(super) blocks: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// The variance of `blocks`; 0 without sampling.
    pub(super) variance: u64,
    /// The variance of `bytes`, likewise.
    pub(super) bytes_variance: u64,
}

impl Amount {
    /// One block that stands for `weight` of its kind. The same each time, so that what is given back takes away just what
    /// it has added.
    #[inline(always)]
    pub(super) fn of(bytes: u64, weight: u32) -> Self {
        if !settings::sampled() {
            return Self {
                blocks: 1,
                bytes,
                variance: 0,
                bytes_variance: 0,
            };
        }
        let weight = weight as u64;
        Self {
            blocks: weight,
            bytes: bytes.wrapping_mul(weight),
            variance: sampling::count_variance(weight),
            bytes_variance: sampling::bytes_variance(bytes, weight, settings::halvings()),
        }
    }
}
