//! Values that each CPU has a shard of, so that no hit writes memory that another CPU writes: sums,
//! by the CPU's number in their keys; counters of process images, in words of each CPU's own.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::values::map_types;
use crate::{ProcessTotals, SumKey};

impl SumKey {
    /// Where the CPU's number stands in `function`, above the numbers of functions.
    const CPU_SHIFT: u32 = 16;

    /// The key of one CPU's shard of this sum.
    #[must_use]
    #[inline]
    pub const fn on_cpu(self, cpu: u32) -> Self {
        Self {
            function: self.function | (cpu + 1) << Self::CPU_SHIFT,
            ..self
        }
    }

    /// The key of the sum that a shard belongs to; of a whole sum its own.
    #[must_use]
    pub const fn whole(self) -> Self {
        Self {
            function: self.function & ((1 << Self::CPU_SHIFT) - 1),
            ..self
        }
    }
}

/// Words of [`ProcessCounts`] of each kind. A power of two.
pub const PROCESS_WORDS: usize = 512;

/// The counters that one CPU has of process images. A word belongs to the image whose number it
/// has, and moves to another one that needs it: see [`CountsRecord`]. The word of an image is found
/// by its number, modulo [`PROCESS_WORDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ProcessCounts {
    /// Hits of probes in allocators, as [`CountWord`]s.
    pub hits: [u64; PROCESS_WORDS],
    /// Calls of `free`, where blocks are followed, likewise.
    pub frees: [u64; PROCESS_WORDS],
}

map_types! {
    ProcessCounts: 16 * PROCESS_WORDS;
}

/// A count together with the number of the process image that it is of, which change as one. Zero:
/// nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountWord {
    /// The number of the process image.
    pub process: u32,
    /// The count.
    pub count: u32,
}

impl CountWord {
    /// One word of both.
    #[must_use]
    #[inline]
    pub const fn pack(self) -> u64 {
        (self.process as u64) << 32 | self.count as u64
    }

    /// The reverse of [`pack`](Self::pack).
    #[must_use]
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "each half fits its type")]
    pub const fn unpack(word: u64) -> Self {
        Self {
            process: (word >> 32) as u32,
            count: word as u32,
        }
    }
}

/// The counts of a process image whose word of [`ProcessCounts`] was given to another one, or was
/// full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CountsRecord {
    /// [`RecordKind::Counts`](crate::RecordKind::Counts).
    pub kind: u32,
    /// The number of the process image.
    pub process: u32,
    /// Hits of probes in allocators.
    pub hits: u32,
    /// Calls of `free`.
    pub frees: u32,
}

const _: () = assert!(size_of::<CountsRecord>() == 16);

/// The form of `live` and `live_bytes` in [`ProcessTotals`]: a number from -2^61 on, below 2^61,
/// and in the bits above it the state of the process. Who changes the number learns the state at
/// that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveWord(pub u64);

impl LiveWord {
    /// Added once to a process's words when what it holds is counted in the totals of the machine
    /// too.
    pub const COUNTED_IN_ALL: u64 = 1 << 62;
    /// Added once to a process's words when it has ended.
    pub const ENDED: u64 = 1 << 63;

    const BIAS: u64 = 1 << 61;

    /// The number.
    #[must_use]
    #[inline]
    pub const fn value(self) -> u64 {
        (self.0.wrapping_add(Self::BIAS) & (Self::COUNTED_IN_ALL - 1)).wrapping_sub(Self::BIAS)
    }

    /// Whether what the process holds is counted in the totals of the machine.
    #[must_use]
    #[inline]
    pub const fn is_counted_in_all(self) -> bool {
        self.0.wrapping_add(Self::BIAS) & Self::COUNTED_IN_ALL != 0
    }

    /// Whether the process has ended.
    #[must_use]
    #[inline]
    pub const fn has_ended(self) -> bool {
        self.0.wrapping_add(Self::BIAS) & Self::ENDED != 0
    }
}

impl ProcessTotals {
    /// The totals with plain numbers in `live` and `live_bytes`.
    #[must_use]
    pub const fn with_plain_numbers(self) -> Self {
        Self {
            live: LiveWord(self.live).value(),
            live_bytes: LiveWord(self.live_bytes).value(),
            ..self
        }
    }
}

/// The value of `ONLY_PROCESS` once several processes have held blocks.
pub const SEVERAL_PROCESSES: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_belong_to_their_sum() {
        let key = SumKey {
            stack: 5,
            process: 6,
            function: 7,
        };
        for cpu in [0, 1, 65_534] {
            assert_ne!(key.on_cpu(cpu), key);
            assert_eq!(key.on_cpu(cpu).whole(), key);
        }
        assert_ne!(key.on_cpu(0), key.on_cpu(1));
        assert_eq!(key.whole(), key);
    }

    #[test]
    fn counts_keep_their_process() {
        let word = CountWord {
            process: u32::MAX,
            count: 3,
        };
        assert_eq!(CountWord::unpack(word.pack()), word);
        assert_eq!(CountWord::unpack(0).process, 0);
    }

    #[test]
    fn live_words_keep_their_state_whatever_is_added() {
        for value in [0u64, 1, 1 << 60, 1u64.wrapping_neg(), (1u64 << 60).wrapping_neg()] {
            for (state, counted, ended) in [
                (0, false, false),
                (LiveWord::COUNTED_IN_ALL, true, false),
                (LiveWord::ENDED, false, true),
                (LiveWord::ENDED.wrapping_add(LiveWord::COUNTED_IN_ALL), true, true),
            ] {
                let word = LiveWord(value.wrapping_add(state));
                assert_eq!(
                    (word.value(), word.is_counted_in_all(), word.has_ended()),
                    (value, counted, ended)
                );
            }
        }
    }
}
