//! Tail calls between traced functions: `realloc(NULL, n)` ends in a jump to `malloc`, and is one
//! call.

use std::collections::{HashMap, HashSet};

use tracer_ebpf::{Function, ProbeSpec};

use crate::probe_plan::dataflow::ReachedCode;
use crate::probe_plan::detect::functions::{FunctionRow, Tail};
use crate::probe_plan::detect::symbols::Placed;

/// The jumps between the functions of a file that have a probe.
pub(in crate::probe_plan) struct TailCalls<'a> {
    rows: HashMap<u64, &'a FunctionRow>,
    reached: &'a HashMap<u64, ReachedCode>,
    /// Functions with a probe that one with a probe jumps to, the next ones on each way.
    passes: HashMap<u64, HashSet<u64>>,
    /// Those that are jumped to.
    taken: HashSet<u64>,
    /// Some function jumps to where its code does not tell.
    any_unknown: bool,
}

impl<'a> TailCalls<'a> {
    /// Of the functions that have a probe. `reached`: also of those that have none.
    pub(in crate::probe_plan) fn new(
        probed: &[(&'a FunctionRow, Placed)],
        reached: &'a HashMap<u64, ReachedCode>,
    ) -> Self {
        let mut calls = Self {
            rows: probed
                .iter()
                .map(|(row, placed)| (placed.address, *row))
                .collect(),
            reached,
            passes: HashMap::new(),
            taken: HashSet::new(),
            any_unknown: false,
        };
        calls.passes = calls
            .rows
            .keys()
            .map(|from| (*from, calls.targets(*from)))
            .collect();
        calls.taken = calls.passes.values().flatten().copied().collect();
        calls.any_unknown = probed
            .iter()
            .any(|(row, placed)| calls.has_unknown_jump(row, placed));
        calls
    }

    /// Through functions that have no probe, to those that have one.
    fn targets(&self, from: u64) -> HashSet<u64> {
        let mut reached = HashSet::new();
        let mut ahead = vec![from];
        while let Some(function) = ahead.pop() {
            for target in self
                .reached
                .get(&function)
                .map(|reach| &reach.jumps)
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
    pub(in crate::probe_plan) fn propagate(&self, calls: &mut Vec<(u64, u64)>) {
        let further: Vec<(u64, u64)> = calls
            .iter()
            .flat_map(|(target, next)| {
                let next = *next;
                self.targets(*target)
                    .into_iter()
                    .map(move |target| (target, next))
            })
            .collect();
        calls.extend(further);
    }

    fn has_unknown_jump(&self, row: &FunctionRow, placed: &Placed) -> bool {
        row.tail != Tail::Never
            && self
                .reached
                .get(&placed.address)
                .is_some_and(|reach| reach.is_unknown)
    }

    /// Returns the flags of [`ProbeSpec`] that say what tail calls a function has.
    pub(in crate::probe_plan) fn flags(&self, row: &FunctionRow, placed: &Placed, is_libc: bool) -> u32 {
        let mut flags = 0;
        let frees = |row: &FunctionRow| row.roles.frees();
        let has_unknown_jump = !frees(row) && self.has_unknown_jump(row, placed);
        let targets = self.passes.get(&placed.address).into_iter().flatten();
        let (alike, others): (Vec<&FunctionRow>, Vec<&FunctionRow>) = targets
            .filter_map(|target| self.rows.get(target).copied())
            .partition(|other| frees(other) == frees(row));
        if !frees(row) && (!others.is_empty() || has_unknown_jump) {
            flags |= ProbeSpec::MAY_TAIL_CALL_FREE;
        }
        if !alike.is_empty() || has_unknown_jump {
            flags |= ProbeSpec::MAY_TAIL_CALL;
            // What resizes or aligns is jumped to whatever is asked for; `malloc` by what asks for
            // no more than it gives.
            let is_plain = |row: &FunctionRow| {
                matches!(
                    row.function,
                    Function::Malloc | Function::Calloc | Function::Zalloc | Function::Mallocn
                )
            };
            if row.tail == Tail::Always || !alike.iter().all(|row| is_plain(row)) {
                flags |= ProbeSpec::ALWAYS_TAIL_CALLS;
            }
        }
        let may_be_taken = matches!(
            row.function,
            Function::Malloc | Function::Realloc | Function::Free
        );
        // glibc's `reallocarray` jumps to whatever `realloc` stands in front of its own.
        let is_foreign_realloc = row.symbol == "realloc" && !is_libc;
        if self.taken.contains(&placed.address) || self.any_unknown && may_be_taken || is_foreign_realloc {
            flags |= ProbeSpec::MAY_BE_TAIL_CALLED;
        }
        flags
    }
}
