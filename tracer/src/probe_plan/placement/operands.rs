//! The operands of a probe: the locations of a call's values at an instruction.

use std::collections::BTreeSet;

use tracer_ebpf::{Operand, Operands};

use crate::probe_plan::dataflow::{AbstractState, RBP, Value, ValueLocation};
use crate::probe_plan::roles::Roles;

/// The part of a function that an instruction is in.
#[derive(Clone, Copy)]
pub(super) enum Position<'a> {
    /// Its first instructions: arguments are mostly in their own registers, and pushed ones in
    /// slots that nobody has written to since.
    Entry,
    /// Its middle: these slots alone hold what they held.
    Middle(&'a BTreeSet<i64>),
}

/// The locations of values at an instruction.
pub(super) struct Locations<'a> {
    state: &'a AbstractState,
    part: Position<'a>,
    /// The distance of the stack pointer from the CFA.
    top: i64,
}

impl<'a> Locations<'a> {
    /// The locations at an instruction; `None` where the depth of the stack is not known.
    pub(super) fn new(state: &'a AbstractState, part: Position<'a>) -> Option<Self> {
        let top = state.depth().filter(|top| *top < 0)?;
        Some(Self { state, part, top })
    }

    /// The operands that say what the stack and the caller's frame pointer are; `None` where the
    /// latter is nowhere.
    pub(super) fn frame(&self) -> Option<Operands> {
        Some(Operands {
            cfa_bytes: u32::try_from(self.top.unsigned_abs()).ok()?,
            frame_pointer: self.entry(RBP)?,
            ..Operands::default()
        })
    }

    /// Puts what a call asks for into operands. False where a part of it is nowhere.
    pub(super) fn put_request(&self, roles: &Roles, operands: &mut Operands) -> bool {
        let entry = |register: Option<u8>| match register {
            Some(register) => self.entry(register),
            None => Some(Operand::NONE),
        };
        let (Some(block), Some(out), Some(size)) = (
            entry(roles.block_register()),
            entry(roles.out_register()),
            self.size(roles),
        ) else {
            return false;
        };
        *operands = Operands {
            block,
            out,
            size: size.0,
            factor: size.1,
            high: size.2,
            ..*operands
        };
        true
    }

    /// The operand of the alignment that a call asks for, if it asks for one; `None` where that is
    /// nowhere.
    pub(super) fn alignment(&self, roles: &Roles) -> Option<Operand> {
        match roles.alignment_register() {
            Some(register) => self.entry(register),
            None => Some(Operand::NONE),
        }
    }

    /// The operands of the size: the size or its last factor, the other factor, the high half.
    fn size(&self, roles: &Roles) -> Option<(Operand, Operand, Operand)> {
        let Some((factor, size)) = roles.factor_registers() else {
            let size = match roles.size_register() {
                Some(size) => self.entry(size)?,
                None => Operand::NONE,
            };
            return Some((size, Operand::NONE, Operand::NONE));
        };
        if let Some(product) = self.of(Value::Product, None) {
            if self.state.product_fits {
                return Some((product, Operand::NONE, Operand::NONE));
            }
            let high = self.of(Value::High, None);
            if let Some(high) = high.or_else(|| self.of(Value::Overflow, None)) {
                return Some((product, Operand::NONE, high));
            }
        }
        Some((self.entry(size)?, self.entry(factor)?, Operand::NONE))
    }

    /// The operand of what a register held at the function's entry; among the first instructions
    /// that one itself, if it still does.
    fn entry(&self, register: u8) -> Option<Operand> {
        let first = matches!(self.part, Position::Entry).then_some(register);
        self.of(Value::Entry(register), first)
    }

    /// The operand of a value, in the register `first` or another one if it is in any.
    fn of(&self, wanted: Value, first: Option<u8>) -> Option<Operand> {
        let is_first = |number: &u8| self.state.register(*number) == wanted;
        if let Some(number) = first.filter(is_first) {
            return Some(Operand::register(number));
        }
        let register = self.state.registers().find(|(_, value)| *value == wanted);
        register.map(|(number, _)| Operand::register(number)).or_else(|| {
            let may_be_read = |slot: &i64| match self.part {
                Position::Entry => true,
                Position::Middle(read_back) => read_back.contains(slot),
            };
            let is_one = |slot: &i64, value: Value| value == wanted && may_be_read(slot) && *slot >= self.top;
            let slot = self.state.slots().find(|(slot, value)| is_one(slot, *value))?;
            self.operand(ValueLocation::Slot(slot.0))
        })
    }

    /// The operand of a location; `None` for a slot that cannot be read.
    pub(super) fn operand(&self, location: ValueLocation) -> Option<Operand> {
        match location {
            ValueLocation::Zero => Some(Operand::ZERO),
            ValueLocation::Register(number) if self.state.register(number) == Value::Constant(0) => {
                Some(Operand::ZERO)
            }
            ValueLocation::Register(number) => Some(Operand::register(number)),
            ValueLocation::Slot(slot) if slot >= self.top => Operand::slot(u32::try_from(-slot).ok()?),
            ValueLocation::Slot(_) => None,
        }
    }
}
