//! Reports: from a [`Profile`] to the formats that people and programs read.
//!
//! Every exporter is a pure function of its arguments: it writes to the [`io::Write`] that it is
//! given and does no other input or output. Equal profiles give equal bytes, in whatever order
//! their stacks, frames and processes are listed.
//!
//! | module | what it writes |
//! | --- | --- |
//! | [`folded`] | folded stacks, one line each |
//! | [`svg`] | a flame graph |
//! | [`speedscope`] | a file for speedscope |
//! | [`html`] | a page with a flame graph, tables and the facts of the recording |
//! | [`raw`] | stacks as addresses |
//! | [`table`] | totals and top stacks for a person |
//! | [`summary`] | totals, losses and top stacks for a program, as JSON |
//!
//! [`Session`] is what a report says of the tracing itself; [`units`]
//! writes numbers.
//!
//! Sums are kept in 128 bits. Programs do ask allocators for sizes near 2⁶⁴, by mistake or to test
//! them, and two such calls must not turn into a small sum.

pub(crate) mod early;
pub(crate) mod folded;
mod format;
#[cfg(test)]
mod golden;
mod growth;
pub(crate) mod html;
mod label;
pub(crate) mod losses;
mod merge;
#[allow(
    dead_code,
    reason = "for tables and the rule for own code, which are on their way"
)]
mod names;
mod objects;
pub(crate) mod own_code;
mod prune;
pub(crate) mod raw;
#[cfg(test)]
mod sample;
pub(crate) mod speedscope;
pub(crate) mod summary;
mod sums;
pub(crate) mod svg;
pub(crate) mod table;
mod title;
pub(crate) mod units;
mod weighed;

use std::io;

use crate::profile::{Metric, Profile, Session};

pub(crate) use format::Format;
pub(crate) use objects::hint;

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
    profile: &Profile,
    session: &Session,
    format: Format,
    options: ExportOptions,
    out: &mut dyn io::Write,
) -> io::Result<Written> {
    match format {
        Format::Folded => folded::write(profile, options, out),
        Format::Svg => svg::write(profile, options, out),
        Format::Speedscope => speedscope::write(profile, session, options, out),
        Format::Html => html::write(profile, session, options, out),
    }
}
