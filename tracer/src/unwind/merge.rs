//! The functions of a file, in whatever order its unwind information has them → one list of rows by
//! address.

use crate::unwind::cfi::{CfiPart, FunctionRows, RuleStart};
use crate::unwind::layout::Rule;
use crate::unwind::rule_set::RuleSet;
use crate::unwind::signal::trampolines;
use crate::unwind::{Code, CompileStatistics};

/// A hole between functions up to this many bytes is padding that aligns the next one, where
/// nothing runs. Wider ones may hold code that has no unwind information.
const MAX_PADDING_BYTES: u32 = 15;

/// All rows of a file, sorted by address, no two neighbours with the same rule, the first at
/// address 0.
#[derive(Debug)]
pub(crate) struct MergedRows {
    pub(crate) rows: Vec<RuleStart>,
    pub(crate) rules: RuleSet,
}

/// Merges what was read of a file. The end of what a list describes is always marked: what follows
/// is a gap.
pub(crate) fn merge(
    mut parts: Vec<CfiPart>,
    code: &Code<'_>,
    statistics: &mut CompileStatistics,
) -> MergedRows {
    let mut order = Vec::new();
    for (part, of_part) in parts.iter().enumerate() {
        let functions = of_part
            .functions
            .iter()
            .enumerate()
            .filter(|(_, function)| function.rows > 0);
        order.extend(functions.map(|(index, function)| (function.start, part, index)));
    }
    order.sort_unstable();
    // Rule numbers of the parts → those of the whole. The first part's are taken over as they are.
    let rules = parts
        .first_mut()
        .map(|first| std::mem::take(&mut first.rules))
        .unwrap_or_default();
    let capacity = parts.iter().map(|part| part.rows.len()).sum();
    let mut merger = Merger {
        code,
        rows: Vec::with_capacity(capacity),
        rules,
        covered: 0,
    };
    merger.push(0, RuleSet::NO_INFO);
    let numbers: Vec<Option<Vec<u32>>> = (0..parts.len())
        .map(|part| {
            let rules = parts.get(part).filter(|_| part > 0)?.rules.rules();
            Some(rules.iter().map(|rule| merger.rules.number(*rule)).collect())
        })
        .collect();

    for (position, (start, part, index)) in order.iter().enumerate() {
        let previous = position.checked_sub(1).and_then(|position| order.get(position));
        if previous.is_some_and(|(previous, ..)| previous == start) {
            statistics.overlapping += 1;
            continue;
        }
        let next = order
            .get(position + 1..)
            .unwrap_or_default()
            .iter()
            .find(|(next, ..)| next > start);
        let Some(part_of) = parts.get(*part) else {
            continue;
        };
        let Some(function) = part_of.functions.get(*index) else {
            continue;
        };
        let end = next.map_or(function.end, |(next, ..)| function.end.min(*next));
        if end < function.end {
            statistics.overlapping += 1;
        }
        let rows = rows_of(part_of, function);
        merger.function(
            function.start,
            end,
            rows,
            numbers.get(*part).and_then(Option::as_deref),
        );
    }
    merger.gap(code.end());
    statistics.rows_merged = merger.rows.len() as u64;
    MergedRows {
        rows: merger.rows,
        rules: merger.rules,
    }
}

fn rows_of<'a>(part: &'a CfiPart, function: &FunctionRows) -> &'a [RuleStart] {
    let first = function.first_row as usize;
    part.rows
        .get(first..first + function.rows as usize)
        .unwrap_or_default()
}

struct Merger<'a> {
    code: &'a Code<'a>,
    rows: Vec<RuleStart>,
    rules: RuleSet,
    /// The end of the functions so far.
    covered: u32,
}

impl Merger<'_> {
    fn function(&mut self, start: u32, end: u32, rows: &[RuleStart], numbers: Option<&[u32]>) {
        self.gap(start);
        for row in rows.iter().take_while(|row| row.pc < end) {
            let number = numbers.map_or(Some(row.rule), |numbers| numbers.get(row.rule as usize).copied());
            self.push(row.pc, number.unwrap_or(RuleSet::UNSUPPORTED));
        }
        self.covered = end;
    }

    /// Fills the gap between the functions so far and `to`.
    fn gap(&mut self, to: u32) {
        let from = self.covered;
        if to <= from {
            return;
        }
        if to - from > MAX_PADDING_BYTES {
            self.push(from, RuleSet::NO_INFO);
        }
        let code = self.code;
        for (start, bytes) in code.pieces(from, to) {
            for (offset, len) in trampolines(bytes) {
                let Ok(offset) = u32::try_from(offset) else {
                    break;
                };
                let number = self.rules.number(Rule::SIGNAL);
                // One byte early: return addresses are looked up one byte before themselves.
                self.push((start + offset).saturating_sub(1), number);
                self.push(start + offset + len, RuleSet::NO_INFO);
            }
        }
    }

    fn push(&mut self, pc: u32, rule: u32) {
        // Only ever the one or two rows that a trampoline's early start takes the last byte of.
        while self.rows.pop_if(|last| last.pc >= pc).is_some() {}
        if self.rows.last().is_none_or(|last| last.rule != rule) {
            self.rows.push(RuleStart { pc, rule });
        }
    }
}
