//! Folded stacks with two weights a line, before and after: what tools take that draw differential
//! flame graphs.
//!
//! ```text
//! server;main;serve;malloc 1000 3000
//! ```
//!
//! Stacks that have not changed are there too, since they are the background of those that have;
//! where none has changed, there are no lines.

use std::cmp::Ordering;
use std::io::{self, BufWriter, Write};

use super::{DiffStack, ProfileDiff};
use crate::profile::Metric;
use crate::report::{Written, label};

/// Writes the difference as folded stacks, and flushes `out`.
pub(super) fn write(diff: &ProfileDiff, metric: Metric, out: &mut dyn Write) -> io::Result<Written> {
    let stacks = sorted(diff, metric);
    let mut out = BufWriter::new(out);
    for stack in &stacks {
        writeln!(out, "{}", line(diff, stack, metric, 0))?;
    }
    out.flush()?;
    Ok(Written {
        stacks: stacks.len(),
        total: diff.growth(metric).unsigned_abs(),
    })
}

/// The stacks with a weight in either profile, in the order of their lines' bytes; none where
/// nothing has changed.
pub(super) fn sorted(diff: &ProfileDiff, metric: Metric) -> Vec<&DiffStack> {
    if !diff.has_changed(metric) {
        return Vec::new();
    }
    let has_weight = |it: &&DiffStack| it.before.weight(metric) > 0 || it.after.weight(metric) > 0;
    let mut stacks: Vec<&DiffStack> = diff.stacks.iter().filter(has_weight).collect();
    stacks.sort_unstable_by(|a, b| compare(diff, a, b));
    stacks
}

/// A line, its weights divided by 2^`shift`.
pub(super) fn line(diff: &ProfileDiff, stack: &DiffStack, metric: Metric, shift: u32) -> String {
    let names: Vec<String> = diff.names(&stack.key).map(label::folded).collect();
    let (before, after) = (stack.before.weight(metric), stack.after.weight(metric));
    format!("{} {} {}", names.join(";"), before >> shift, after >> shift)
}

/// The order of the lines' bytes, without making the lines.
fn compare(diff: &ProfileDiff, a: &DiffStack, b: &DiffStack) -> Ordering {
    bytes(diff, a).cmp(bytes(diff, b))
}

/// The bytes of a line before its weights.
fn bytes<'a>(diff: &'a ProfileDiff, stack: &'a DiffStack) -> impl Iterator<Item = u8> + 'a {
    let last = diff.names(&stack.key).count() - 1;
    diff.names(&stack.key).enumerate().flat_map(move |(index, name)| {
        let separator = if index == last { b' ' } else { b';' };
        let name = name.bytes().map(|it| if it == b';' { b':' } else { it });
        name.chain(std::iter::once(separator))
    })
}
