//! Calls and bytes, and how two accounts of them differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::AddAssign;

/// Calls and the bytes that they asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Calls.
    pub calls: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Counts by the name of the function.
pub type Counts = BTreeMap<String, Count>;

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        // Failed calls can ask for more than there are addresses.
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

impl std::iter::Sum for Count {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        let mut sum = Self::default();
        counts.for_each(|count| sum += count);
        sum
    }
}

/// Returns what differs between two accounts, a line per name; nothing if they are equal. A name
/// that is missing is a zero.
#[must_use]
pub fn difference(expected: &Counts, found: &Counts) -> Option<String> {
    let names: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let mut text = String::new();
    for name in names {
        let expected = expected.get(name).copied().unwrap_or_default();
        let found = found.get(name).copied().unwrap_or_default();
        if expected != found {
            let line = writeln!(
                text,
                "{name}: expected {} calls, {} bytes, found {} calls, {} bytes",
                expected.calls, expected.bytes, found.calls, found.bytes
            );
            debug_assert!(line.is_ok(), "a String takes whatever is written to it");
        }
    }
    (!text.is_empty()).then_some(text)
}
