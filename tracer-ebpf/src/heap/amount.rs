//! The figures of a block.

use tracer_ebpf::{LiveWord, sampling};

use crate::settings;

/// The figures of a block, multiplied by its sample weight; or of several blocks together.
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
    /// One block that stands for `weight` of its kind. The same each time, so that what is given
    /// back takes away just what it has added.
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
            bytes_variance: sampling::bytes_variance(bytes, weight, settings::variance_shift()),
        }
    }

    /// The part of it that counts in the machine's totals too, by what the words of the process's
    /// totals held before.
    #[inline(always)]
    pub(super) fn counted_in_all(&self, live: LiveWord, bytes: LiveWord) -> Option<Self> {
        // Between the two words, the state may just have changed: each tells for itself.
        let counted = (live.is_counted_in_all(), bytes.is_counted_in_all());
        if counted == (false, false) {
            return None;
        }
        let (blocks, bytes) = (
            if counted.0 { self.blocks } else { 0 },
            if counted.1 { self.bytes } else { 0 },
        );
        Some(Self {
            blocks,
            bytes,
            ..*self
        })
    }
}
