//! A process's use of its heap, as anyone reports it: memtap's summary, a fixture, the shim.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The blocks of a summary's totals that are about blocks of the heap.
const BLOCKS: [&str; 6] = ["functions", "alloc", "freed", "live", "peak", "temporary"];

/// Figures by their paths in a summary's totals: `functions/malloc/calls`, `live/bytes`. What is
/// not there is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeapFigures(BTreeMap<String, u64>);

impl HeapFigures {
    /// Reads totals; all of the blocks must be there. What is reported of `memalign` counts as
    /// `aligned_alloc`: whether they are one address is the C library's choice.
    pub fn parse(totals: &Value) -> Result<Self> {
        let mut figures = Self::default();
        for block in BLOCKS {
            let value = totals
                .get(block)
                .with_context(|| format!("the totals have no {block}: {totals}"))?;
            figures.flatten(block, value)?;
        }
        Ok(figures)
    }

    fn flatten(&mut self, path: &str, value: &Value) -> Result<()> {
        if let Some(fields) = value.as_object() {
            // How much of the peak is known by stack is no figure of the program, nor how sure an
            // estimate is.
            let is_figure = |name: &str| name != "by_stack_bytes" && !name.ends_with("_stderr");
            for (name, value) in fields.iter().filter(|(name, _)| is_figure(name)) {
                self.flatten(&format!("{path}/{name}"), value)?;
            }
            return Ok(());
        }
        let number = value
            .as_u64()
            .with_context(|| format!("{path} is {value}, not a whole number"))?;
        self.add(&path.replace("/memalign/", "/aligned_alloc/"), number);
        Ok(())
    }

    /// A figure.
    #[must_use]
    pub fn get(&self, path: &str) -> u64 {
        self.0.get(path).copied().unwrap_or_default()
    }

    /// Adds to a figure. A zero leaves no trace, so that equal figures compare as equal.
    pub fn add(&mut self, path: &str, number: u64) {
        if number > 0 {
            *self.0.entry(path.to_owned()).or_default() += number;
        }
    }

    /// Sets a figure.
    pub fn set(&mut self, path: &str, number: u64) {
        self.0.remove(path);
        self.add(path, number);
    }

    /// Returns what there is beyond other figures.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        for (path, number) in &self.0 {
            rest.add(path, number.saturating_sub(other.get(path)));
        }
        rest
    }

    /// The sums over several processes; of peaks there is none.
    #[must_use]
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for figures in all {
            for (path, number) in &figures.0 {
                if !path.starts_with("peak/") {
                    sum.add(path, *number);
                }
            }
        }
        sum
    }

    /// The same without the figures below these paths.
    #[must_use]
    pub fn without(mut self, prefixes: &[&str]) -> Self {
        self.0
            .retain(|path, _| !prefixes.iter().any(|prefix| path.starts_with(prefix)));
        self
    }

    /// Returns whether nothing was done at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns what differs, a line per figure; nothing if the two are equal.
    #[must_use]
    pub fn difference(expected: &Self, found: &Self) -> Option<String> {
        Self::difference_beyond(expected, found, 0)
    }

    /// Returns what differs by more than a share of what was expected, in thousandths.
    #[must_use]
    pub fn difference_beyond(expected: &Self, found: &Self, thousandths: u64) -> Option<String> {
        let paths: BTreeSet<_> = expected.0.keys().chain(found.0.keys()).collect();
        let mut text = String::new();
        for path in paths {
            let (expected, found) = (expected.get(path), found.get(path));
            if u128::from(expected.abs_diff(found)) * 1000 > u128::from(expected) * u128::from(thousandths) {
                let line = writeln!(text, "{path}: expected {expected}, found {found}");
                debug_assert!(line.is_ok(), "a String takes whatever is written to it");
            }
        }
        (!text.is_empty()).then_some(text)
    }
}
