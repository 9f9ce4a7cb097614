//! All figures of all stacks as columns of exact numbers: pprof's own are signed 64 bits wide, and
//! know no variances, ages and histograms.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tracer_ebpf::BUCKETS;

use crate::profile::Values;

/// The figures of a profile's stacks, in the order of its samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FigureColumns {
    /// The number of stacks.
    stacks: usize,
    /// Columns of numbers by name; one that is all zero is left out.
    columns: BTreeMap<String, Vec<u128>>,
    /// Blocks by size, of each stack that has some.
    sizes: BTreeMap<usize, [u32; BUCKETS]>,
    /// Freed blocks by lifetime, of each stack that has some.
    lifetimes: BTreeMap<usize, [u32; BUCKETS]>,
}

/// A figure's column.
struct FigureColumn {
    name: &'static str,
    get: fn(&Values) -> u128,
    /// Sets the figure; returns nothing where it does not fit.
    set: fn(&mut Values, u128) -> Option<()>,
}

macro_rules! figures {
    ($($name:literal = $($field:ident).+ $([$index:literal])?;)*) => {
        &[$(FigureColumn {
            name: $name,
            get: |values| u128::from(values.$($field).+$([$index])?),
            set: |values, figure| {
                values.$($field).+$([$index])? = figure.try_into().ok()?;
                Some(())
            },
        }),*]
    };
}

/// Every figure but the histograms.
const FIGURES: &[FigureColumn] = figures! {
    "calls" = calls;
    "bytes" = bytes;
    "bytes_out" = bytes_out;
    "failed" = failed;
    "blocks" = heap.blocks;
    "freed" = heap.freed;
    "freed_bytes" = heap.freed_bytes;
    "temporary" = heap.temporary;
    "usable_bytes" = heap.usable_bytes;
    "untracked" = heap.untracked;
    "untracked_bytes" = heap.untracked_bytes;
    "peak_bytes" = heap.peak_bytes;
    "aged_live" = heap.aged.live;
    "aged_live_bytes" = heap.aged.live_bytes;
    "old" = heap.aged.old;
    "old_bytes" = heap.aged.old_bytes;
    "kept" = heap.aged.kept;
    "kept_bytes" = heap.aged.kept_bytes;
    "oldest_ns" = heap.aged.oldest_ns;
    "half_live" = heap.aged.half_live;
    "mark_1_bytes" = heap.aged.marks_bytes[0];
    "mark_2_bytes" = heap.aged.marks_bytes[1];
    "mark_3_bytes" = heap.aged.marks_bytes[2];
    "aged_live_variance" = heap.aged.live_variance;
    "aged_live_bytes_variance" = heap.aged.live_bytes_variance;
    "old_bytes_variance" = heap.aged.old_bytes_variance;
    "calls_variance" = variances.calls;
    "bytes_variance" = variances.bytes;
    "blocks_variance" = variances.blocks;
    "freed_variance" = variances.freed;
    "freed_bytes_variance" = variances.freed_bytes;
    "temporary_variance" = variances.temporary;
    "untracked_variance" = variances.untracked;
    "untracked_bytes_variance" = variances.untracked_bytes;
};

impl FigureColumns {
    /// Makes columns of rows.
    pub(super) fn of(rows: &[&Values]) -> Self {
        let mut columns = BTreeMap::new();
        for figure in FIGURES {
            let column: Vec<u128> = rows.iter().map(|it| (figure.get)(it)).collect();
            if column.iter().any(|it| *it > 0) {
                columns.insert(figure.name.to_owned(), column);
            }
        }
        let histograms = |of: fn(&Values) -> [u32; BUCKETS]| {
            let all = rows.iter().map(|it| of(it)).enumerate();
            all.filter(|(_, counts)| counts.iter().any(|it| *it > 0))
                .collect()
        };
        Self {
            stacks: rows.len(),
            columns,
            sizes: histograms(|values| values.heap.sizes),
            lifetimes: histograms(|values| values.heap.lifetimes),
        }
    }

    /// Returns the rows; what is wrong with the columns where they do not fit each other.
    pub(super) fn rows(&self, stacks: usize) -> Result<Vec<Values>, String> {
        if self.stacks != stacks {
            return Err(format!("figures of {} stacks, {stacks} samples", self.stacks));
        }
        let mut rows = vec![Values::default(); stacks];
        for (name, column) in &self.columns {
            let figure = FIGURES
                .iter()
                .find(|it| it.name == name)
                .ok_or("a figure is not known")?;
            if column.len() != stacks {
                return Err(format!(
                    "{} figures {}, {stacks} samples",
                    column.len(),
                    figure.name
                ));
            }
            for (row, value) in rows.iter_mut().zip(column) {
                (figure.set)(row, *value).ok_or_else(|| format!("a figure {} is too large", figure.name))?;
            }
        }
        let outside = "a histogram of no sample";
        for (index, counts) in &self.sizes {
            rows.get_mut(*index).ok_or(outside)?.heap.sizes = *counts;
        }
        for (index, counts) in &self.lifetimes {
            rows.get_mut(*index).ok_or(outside)?.heap.lifetimes = *counts;
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::full_values;

    #[test]
    fn every_figure_comes_back() {
        let rows = [Values::default(), full_values(1), full_values(u64::MAX / 100)];
        let columns = FigureColumns::of(&rows.each_ref());
        let json = serde_json::to_string(&columns).expect("plain data");
        let read: FigureColumns = serde_json::from_str(&json).expect("as it was written");
        assert_eq!(read, columns);
        assert_eq!(read.rows(3).expect("they fit"), rows);
    }

    #[test]
    fn columns_that_do_not_fit_are_refused() {
        let rows = [full_values(1), full_values(2)];
        let columns = FigureColumns::of(&rows.each_ref());
        assert!(columns.rows(3).is_err());
        let change = |change: fn(&mut FigureColumns)| {
            let mut changed = columns.clone();
            change(&mut changed);
            changed.rows(2).expect_err("it does not fit")
        };
        change(|it| {
            it.columns.entry("calls".to_owned()).or_default().push(1);
        });
        change(|it| {
            it.columns.insert("calls".to_owned(), vec![0, 1 << 64]);
        });
        change(|it| {
            it.columns.insert("cells".to_owned(), vec![0, 1]);
        });
        change(|it| {
            it.sizes.insert(2, [0; BUCKETS]);
        });
    }
}
