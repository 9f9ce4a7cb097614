//! Reports: from a [`Profile`](crate::profile::Profile) to the formats that people and programs
//! read.
//!
//! Every exporter is a pure function of its arguments: it writes to the [`io::Write`] that it is
//! given and does no other input or output. Equal profiles give equal bytes, in whatever order
//! their stacks, frames and processes are listed.
//!
//! | module | what it writes |
//! | --- | --- |
//! | [`folded`] | folded stacks, one line each |
//! | [`svg`] | a flame graph |
//! | [`pprof`] | the whole profile, as other tools read it and as it is kept |
//! | [`diff`] | the difference of two profiles, as a table and in these formats |
//! | [`speedscope`] | a file for speedscope |
//! | [`html`] | a page with a flame graph, tables and the facts of the recording |
//! | [`raw`] | stacks as addresses |
//! | [`table`] | totals and top stacks for a person |
//! | [`foreign_table`] | the same of a profile that another program wrote |
//! | [`summary`] | totals, losses and top stacks for a program, as JSON |
//!
//! [`Session`](crate::profile::Session) is what a report says of the tracing itself; [`units`]
//! writes numbers.
//!
//! Sums are kept in 128 bits. Programs do ask allocators for sizes near 2⁶⁴, by mistake or to test
//! them, and two such calls must not turn into a small sum.

pub(crate) mod diff;
pub(crate) mod early;
mod filter;
pub(crate) mod folded;
pub(crate) mod foreign_table;
mod format;
#[cfg(test)]
mod golden;
mod growth;
pub(crate) mod html;
mod label;
pub(crate) mod losses;
mod merge;
mod names;
mod objects;
pub(crate) mod own_code;
pub(crate) mod pprof;
mod prune;
pub(crate) mod raw;
mod rows;
#[cfg(test)]
mod sample;
pub(crate) mod source;
pub(crate) mod speedscope;
pub(crate) mod summary;
mod sums;
pub(crate) mod svg;
pub(crate) mod table;
mod title;
pub(crate) mod units;
mod weighed;

use std::io;

use crate::profile::Metric;

pub(crate) use diff::ProfileDiff;
pub(crate) use filter::{StackFilter, totals_of_stacks};
pub(crate) use format::Format;
pub(crate) use objects::hint;
pub(crate) use source::ReportSource;

/// The weight and the grouping of stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExportOptions {
    /// The weight of a stack. Stacks that the metric does not apply to are left out.
    pub metric: Metric,
    /// Name processes `comm-PID`, so that each has stacks of its own; else those with the same
    /// `comm` are one.
    pub per_pid: bool,
}

/// The size of what an exporter wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Stacks that differ in what the format shows.
    pub stacks: usize,
    /// The sum of their weights, in the metric's unit.
    pub total: u128,
}

/// Writes the profile to `out` as a `format` file, and flushes it.
///
/// Fails only as `out` fails.
pub(crate) fn write(
    source: &ReportSource<'_>,
    format: Format,
    options: ExportOptions,
    out: &mut dyn io::Write,
) -> io::Result<Written> {
    match format {
        Format::Folded => folded::write(source.profile, options, out),
        Format::Pprof => pprof::write(source, options, out),
        Format::Svg => svg::write(source.profile, options, out),
        Format::Speedscope => speedscope::write(source, options, out),
        Format::Html => html::write(source, options, out),
    }
}

/// Writes the difference of two profiles to `out` as a `format` file, and flushes it.
///
/// Fails as `out` fails, and for formats that have no differences.
pub(crate) fn write_difference(
    diff: &ProfileDiff,
    format: Format,
    metric: Metric,
    out: &mut dyn io::Write,
) -> io::Result<Written> {
    match format {
        Format::Folded => diff.write_folded(metric, out),
        Format::Svg => diff.write_svg(metric, out),
        Format::Pprof => pprof::write_difference(diff, metric, out),
        Format::Speedscope | Format::Html => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the format has no differences; .folded, .svg and .pb.gz have",
        )),
    }
}
