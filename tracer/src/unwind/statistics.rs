//! The compiler's statistics of a file.

use crate::unwind::Unsupported;

/// The compiler's statistics of a file. A function is counted in one of the first four.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompileStatistics {
    /// Functions (FDEs) whose rows were read.
    pub functions: u32,
    /// Entries that could not be read, wholly or from some instruction on.
    pub malformed: u32,
    /// Entries for no bytes, or for addresses without code: what linkers leave of discarded
    /// functions.
    pub outside: u32,
    /// Functions that begin inside another or where another begins. The later start wins from there
    /// on, as in the search tables of `.eh_frame_hdr`; of equal ones the first entry.
    pub overlapping: u32,
    /// Bytes of unwind information that were read.
    pub section_bytes: u64,
    /// Rows as the entries have them.
    pub rows_raw: u64,
    /// Rows after equal neighbours were merged and gaps were marked.
    pub rows_merged: u64,
    /// Rows after those without call sites were dropped; equal to [`Self::rows_merged`] where none
    /// were to be.
    pub rows_kept: u64,
    /// Bytes of code that the functions cover.
    pub code_bytes: u64,
    /// Bytes of code in which the caller's `rbp` is not found again.
    pub rbp_lost_bytes: u64,
    /// Bytes of code by the reason why they have no rule, in the order of [`Unsupported::ALL`].
    pub unsupported_bytes: [u64; Unsupported::ALL.len()],
}

impl CompileStatistics {
    /// Bytes of code that have no rule for this reason.
    #[must_use]
    pub fn unsupported(&self, reason: Unsupported) -> u64 {
        self.unsupported_bytes
            .get(reason as usize)
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn count_unsupported(&mut self, reason: Unsupported, bytes: u64) {
        if let Some(count) = self.unsupported_bytes.get_mut(reason as usize) {
            *count += bytes;
        }
    }

    /// Adds what another thread counted of the same file.
    pub(crate) fn add(&mut self, other: &Self) {
        self.functions += other.functions;
        self.malformed += other.malformed;
        self.outside += other.outside;
        self.overlapping += other.overlapping;
        self.section_bytes += other.section_bytes;
        self.rows_raw += other.rows_raw;
        self.rows_merged += other.rows_merged;
        self.rows_kept += other.rows_kept;
        self.code_bytes += other.code_bytes;
        self.rbp_lost_bytes += other.rbp_lost_bytes;
        for (sum, more) in self.unsupported_bytes.iter_mut().zip(other.unsupported_bytes) {
            *sum += more;
        }
    }
}
