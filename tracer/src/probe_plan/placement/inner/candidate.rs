//! An instruction at which an inner site could be: its operands, and its cost.

use std::collections::BTreeSet;

use tracer_ebpf::{Operand, Operands};

use crate::probe_plan::dataflow::{Node, ValueLocation, is_emulated, is_steppable};
use crate::probe_plan::placement::operands::{Locations, Position};
use crate::probe_plan::roles::Roles;

/// The cost of an instruction that has size and result. Where the same ways can be cut in several
/// places, few are better.
const COST_COMPLETE: u64 = 10;

/// The cost of one that the kernel must step through: only for calls that fail.
const COST_STEPPED: u64 = 1_000;

/// The cost of one that does not have the size: a second probe is needed before it.
const COST_WITHOUT_SIZE: u64 = 10_000;

/// An instruction at which a site could be.
#[derive(Debug, Clone)]
pub(super) struct InnerCandidate {
    /// All operands but the result.
    pub(super) operands: Operands,
    pub(super) has_size: bool,
    /// The result, where it is known.
    pub(super) result: Operand,
    /// The kernel must single-step the instruction.
    pub(super) stepped: bool,
}

impl InnerCandidate {
    /// The candidate at an instruction; `None` if it is of no use. `results`: the locations of the
    /// result; `read_back`: slots that hold what they held.
    pub(super) fn at(
        node: &Node,
        results: &BTreeSet<ValueLocation>,
        roles: &Roles,
        read_back: &BTreeSet<i64>,
    ) -> Option<Self> {
        let locations = Locations::new(&node.state, Position::Middle(read_back))?;
        let mut operands = locations.frame()?;
        let has_size = locations.put_request(roles, &mut operands);
        let stepped = !is_emulated(&node.instruction, node.first);
        let mut results = results.iter();
        let result = results.find_map(|location| locations.operand(*location));
        if result.is_none() && (!has_size || stepped) {
            return None;
        }
        if stepped && !is_steppable(&node.instruction) {
            return None;
        }
        Some(Self {
            operands,
            has_size,
            result: result.unwrap_or_default(),
            stepped,
        })
    }

    /// The cost of taking the result here; `None` where that cannot be.
    pub(super) fn cost(&self) -> Option<u64> {
        if self.result.is_none() || (self.stepped && self.result != Operand::ZERO) {
            return None;
        }
        let mut cost = if self.stepped { COST_STEPPED } else { COST_COMPLETE };
        if !self.has_size {
            cost += COST_WITHOUT_SIZE;
        }
        Some(cost)
    }
}
