//! A flame graph in differential colours: as wide as the second profile, red where it has more than
//! the first, blue where it has less. What is gone has no width.

use std::io::{self, BufWriter, Write};

use inferno::flamegraph::{self, Options as Graph};

use super::{ProfileDiff, folded};
use crate::profile::Metric;
use crate::report::{Written, svg, units};

/// Writes the difference as a flame graph, and flushes `out`. Where there is nothing to draw, the
/// picture says so.
pub(super) fn write(diff: &ProfileDiff, metric: Metric, out: &mut dyn Write) -> io::Result<Written> {
    let stacks = folded::sorted(diff, metric);
    let (before, after) = diff.totals(metric);
    let written = Written {
        stacks: stacks.len(),
        total: diff.growth(metric).unsigned_abs(),
    };
    let title = format!("memtap: change of {}", metric.name());
    let mut out = BufWriter::new(out);
    if stacks.is_empty() || after == 0 {
        let text = if stacks.is_empty() {
            "nothing changed"
        } else {
            "nothing is left of what there was"
        };
        write!(out, "{}", svg::message(&title, text))?;
        out.flush()?;
        return Ok(written);
    }
    let amount = |weight| {
        if metric.is_bytes() {
            units::bytes(weight)
        } else {
            units::counted(weight, metric.counts())
        }
    };
    let mut graph = Graph::default();
    graph.title = title;
    graph.subtitle = Some(format!(
        "{} before, {} after; red grew, blue shrank",
        amount(before),
        amount(after)
    ));
    graph.count_name = svg::unit(metric).into();
    graph.deterministic = true;
    // inferno counts in 63 bits with a sign: heavier profiles are drawn to scale.
    let shift = (u128::BITS - before.max(after).leading_zeros()).saturating_sub(u64::BITS - 1);
    graph.factor = (0..shift).fold(1.0, |factor, _| factor * 2.0);
    let lines: Vec<String> = stacks
        .iter()
        .map(|stack| svg::drawable(&folded::line(diff, stack, metric, shift)))
        .collect();
    flamegraph::from_lines(&mut graph, lines.iter().map(String::as_str), &mut out)?;
    out.flush()?;
    Ok(written)
}
