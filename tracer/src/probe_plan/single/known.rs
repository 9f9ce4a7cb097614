//! What a site at an instruction could tell, and what it would cost.

use std::collections::BTreeSet;

use iced_x86::{Instruction, Mnemonic};
use tracer_ebpf::{Operand, Operands};

use super::back::Place;
use super::graph::Node;
use super::values::{RBP, RDI, RSI, State, Value};
use crate::probe_plan::place::is_emulated;
use crate::probe_plan::shape::Shape;

/// What a place costs that has size and result. Where the same ways can be cut in several places, few are better.
const COST_WHOLE: u64 = 10;

/// What one costs at which the kernel must step through an instruction: only for calls that fail.
const COST_STEPPED: u64 = 1_000;

/// What one costs that does not have the size: a second probe is needed before it.
const COST_WITHOUT_SIZE: u64 = 10_000;

/// What a site could tell.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// All but the result.
    pub(super) site: Operands,
    pub(super) has_size: bool,
    /// Where the result is, if it is anywhere.
    pub(super) result: Operand,
    /// The kernel must single-step the instruction.
    pub(super) stepped: bool,
}

impl Known {
    /// What the place before an instruction tells; nothing if that is no use. `read_back`: slots that hold what they held.
    pub(super) fn at(
        node: &Node,
        places: &BTreeSet<Place>,
        shape: Shape,
        read_back: &BTreeSet<i64>,
    ) -> Option<Self> {
        let state = &node.state;
        let top = state.depth()?;
        let holders = Holders {
            state,
            read_back,
            top,
        };
        let mut site = Operands {
            cfa_bytes: u32::try_from(top.unsigned_abs()).ok().filter(|_| top < 0)?,
            frame_pointer: holders.of(Value::Entry(RBP))?,
            ..Operands::default()
        };
        let has_size = put_size(&mut site, &holders, shape);
        let stepped = !is_emulated(&node.instruction, node.first);
        let result = places.iter().find_map(|place| match place {
            Place::Zero => Some(Operand::ZERO),
            Place::Register(number) if state.register(*number) == Value::Constant(0) => Some(Operand::ZERO),
            Place::Register(number) => Some(Operand::register(*number)),
            Place::Slot(slot) => in_slot(*slot).filter(|_| *slot >= top),
        });
        if result.is_none() && (!has_size || stepped) {
            return None;
        }
        if stepped && !is_plain(&node.instruction) {
            return None;
        }
        Some(Self {
            site,
            has_size,
            result: result.unwrap_or_default(),
            stepped,
        })
    }

    /// What it costs to take the result here; nothing where that cannot be.
    pub(super) fn cost(&self) -> Option<u64> {
        if self.result.is_none() || (self.stepped && self.result != Operand::ZERO) {
            return None;
        }
        let mut cost = if self.stepped { COST_STEPPED } else { COST_WHOLE };
        if !self.has_size {
            cost += COST_WITHOUT_SIZE;
        }
        Some(cost)
    }
}

/// Whether the kernel is sure to step through an instruction: some it refuses, by their prefixes or their opcodes
/// (`arch/x86/kernel/uprobes.c`, `is_prefix_bad`, `good_insns_64`).
fn is_plain(instruction: &Instruction) -> bool {
    let is_usual = matches!(
        instruction.mnemonic(),
        Mnemonic::Mov
            | Mnemonic::Lea
            | Mnemonic::Xor
            | Mnemonic::And
            | Mnemonic::Or
            | Mnemonic::Add
            | Mnemonic::Sub
            | Mnemonic::Test
            | Mnemonic::Cmp
            | Mnemonic::Pop
            | Mnemonic::Ret
    );
    is_usual && !instruction.has_lock_prefix() && !instruction.has_segment_prefix()
}

fn in_slot(slot: i64) -> Option<Operand> {
    Operand::slot(u32::try_from(-slot).ok()?)
}

/// Finds where the size is. False where it is nowhere.
fn put_size(site: &mut Operands, holders: &Holders<'_>, shape: Shape) -> bool {
    let found = match shape {
        Shape::Size => holders.of(Value::Entry(RDI)),
        Shape::AlignedSize => holders.of(Value::Entry(RSI)),
        Shape::CountSize => {
            let product = holders.of(Value::Product);
            let high = holders.of(Value::High).or_else(|| holders.of(Value::Overflow));
            match (product, high) {
                (Some(product), _) if holders.state.product_fits => Some(product),
                (Some(product), Some(high)) => {
                    site.high = high;
                    Some(product)
                }
                _ => {
                    let count = holders.of(Value::Entry(RDI));
                    site.factor = count.unwrap_or_default();
                    count.and_then(|_| holders.of(Value::Entry(RSI)))
                }
            }
        }
        _ => None,
    };
    site.size = found.unwrap_or_default();
    found.is_some()
}

/// Where values are that can be read at an instruction.
struct Holders<'a> {
    state: &'a State,
    read_back: &'a BTreeSet<i64>,
    top: i64,
}

impl Holders<'_> {
    /// Where a value is, in a register if it can be.
    fn of(&self, wanted: Value) -> Option<Operand> {
        let register = self.state.registers().find(|(_, value)| *value == wanted);
        register.map(|(number, _)| Operand::register(number)).or_else(|| {
            let is_one = |slot: &i64, value: Value| {
                value == wanted && self.read_back.contains(slot) && *slot >= self.top
            };
            let slot = self.state.slots().find(|(slot, value)| is_one(slot, *value))?;
            in_slot(slot.0)
        })
    }
}
