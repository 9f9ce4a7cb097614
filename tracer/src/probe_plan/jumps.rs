//! Calls that go on by a jump to another traced function: `realloc(NULL, n)` ends in a jump to `malloc`, and is one call.

use std::collections::{HashMap, HashSet};

use tracer_ebpf::{Function, ProbeSpec};

use super::elf::Placed;
use super::flow::Flow;
use super::functions::{Row, Tail};
use super::shape::Shape;

/// The jumps between the functions of a file that have a probe.
pub(super) struct Jumps<'a> {
    rows: HashMap<u64, &'a Row>,
    flows: &'a HashMap<u64, Flow>,
    /// Functions with a probe that one with a probe jumps to, the next ones on each way.
    passes: HashMap<u64, HashSet<u64>>,
    /// Those that are jumped to.
    taken: HashSet<u64>,
    /// Some function jumps to where its code does not tell.
    any_astray: bool,
}

impl<'a> Jumps<'a> {
    /// Of the functions that have a probe. `flows`: also of those that have none.
    pub(super) fn new(probed: &[(&'a Row, Placed)], flows: &'a HashMap<u64, Flow>) -> Self {
        let mut jumps = Self {
            rows: probed
                .iter()
                .map(|(row, placed)| (placed.address, *row))
                .collect(),
            flows,
            passes: HashMap::new(),
            taken: HashSet::new(),
            any_astray: false,
        };
        jumps.passes = jumps
            .rows
            .keys()
            .map(|from| (*from, jumps.reached(*from)))
            .collect();
        jumps.taken = jumps.passes.values().flatten().copied().collect();
        jumps.any_astray = probed.iter().any(|(row, placed)| jumps.goes_astray(row, placed));
        jumps
    }

    /// Through functions that have no probe, to those that have one.
    fn reached(&self, from: u64) -> HashSet<u64> {
        let mut reached = HashSet::new();
        let mut ahead = vec![from];
        while let Some(function) = ahead.pop() {
            for target in self
                .flows
                .get(&function)
                .map(|flow| &flow.jumps)
                .into_iter()
                .flatten()
            {
                let is_new = *target != from && reached.insert(*target);
                if is_new && !self.rows.contains_key(target) {
                    ahead.push(*target);
                }
            }
        }
        reached.retain(|target| self.rows.contains_key(target));
        reached
    }

    /// Adds, to calls of functions, those that they become by jumps: each with where it returns to.
    pub(super) fn carry_on(&self, calls: &mut Vec<(u64, u64)>) {
        let further: Vec<(u64, u64)> = calls
            .iter()
            .flat_map(|(target, next)| {
                let next = *next;
                self.reached(*target)
                    .into_iter()
                    .map(move |target| (target, next))
            })
            .collect();
        calls.extend(further);
    }

    fn goes_astray(&self, row: &Row, placed: &Placed) -> bool {
        row.tail != Tail::Never
            && self
                .flows
                .get(&placed.address)
                .is_some_and(|flow| flow.is_unknown)
    }

    /// What the kernel side must know of a function's jumps: marks of [`ProbeSpec::flags`].
    pub(super) fn marks(&self, row: &Row, placed: &Placed, is_libc: bool) -> u32 {
        let mut marks = 0;
        let frees = |row: &Row| row.shape == Shape::Free;
        let goes_astray = !frees(row) && self.goes_astray(row, placed);
        let targets = self.passes.get(&placed.address).into_iter().flatten();
        let (alike, others): (Vec<&Row>, Vec<&Row>) = targets
            .filter_map(|target| self.rows.get(target).copied())
            .partition(|other| frees(other) == frees(row));
        if !frees(row) && (!others.is_empty() || goes_astray) {
            marks |= ProbeSpec::MAY_TAIL_CALL_FREE;
        }
        if !alike.is_empty() || goes_astray {
            marks |= ProbeSpec::MAY_TAIL_CALL;
            // What resizes or aligns is jumped to whatever is asked for; `malloc` by what asks for no more than it gives.
            let is_plain = |row: &Row| {
                matches!(
                    row.function,
                    Function::Malloc | Function::Calloc | Function::Zalloc | Function::Mallocn
                )
            };
            if row.tail == Tail::Always || !alike.iter().all(|row| is_plain(row)) {
                marks |= ProbeSpec::ALWAYS_TAIL_CALLS;
            }
        }
        let may_be_taken = matches!(
            row.function,
            Function::Malloc | Function::Realloc | Function::Free
        );
        // glibc's `reallocarray` jumps to whatever `realloc` stands in front of its own.
        let is_foreign_realloc = row.symbol == "realloc" && !is_libc;
        if self.taken.contains(&placed.address) || self.any_astray && may_be_taken || is_foreign_realloc {
            marks |= ProbeSpec::MAY_BE_TAIL_CALLED;
        }
        marks
    }
}
