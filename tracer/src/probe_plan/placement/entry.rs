//! The instruction of a function at which its probe goes: one that the kernel emulates. Another one
//! it runs out of line, with a trap before and one after, which costs many times as much; where the
//! machine is virtual, twenty times and more.
//!
//! Up to the probe nothing may have happened that it must know of: every argument is somewhere
//! still, or the product of two is; the frame pointer is the caller's, nothing was written to
//! memory, and the stack pointer is the caller's, but for registers that were pushed. And there is
//! one way to it, from the function's first instruction: no jump leads between the two, and none
//! leaves before.

use std::collections::HashSet;

use iced_x86::{
    Code as Opcode, FlowControl, Instruction, InstructionInfoFactory, OpAccess, OpKind, Register,
};
use tracer_ebpf::{Operand, Operands};

use super::operands::{Locations, Position};
use crate::probe_plan::dataflow::{AbstractState, Explorer, MachineCode, RBP, Value, is_emulated};
use crate::probe_plan::roles::Roles;

/// A place for a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::probe_plan) struct ProbePlace {
    /// Bytes after the function's first.
    pub(in crate::probe_plan) offset: u64,
    /// The locations of what a call asks for.
    pub(in crate::probe_plan) operands: Operands,
    /// The kernel must single-step the instruction there.
    pub(in crate::probe_plan) single_stepped: bool,
}

/// Bytes of code that are looked at of a function of unknown length.
const UNKNOWN_LEN: u64 = 64;

/// Returns the places for the probe of a function, the best first: those that the kernel emulates,
/// in their order, then those that it must step. `len`: 0 where it is not known.
pub(in crate::probe_plan) fn places(
    code: &MachineCode,
    entry: u64,
    len: u64,
    roles: &Roles,
) -> Vec<ProbePlace> {
    let len = if len == 0 { UNKNOWN_LEN } else { len };
    let nothing = HashSet::new();
    let line = Explorer::new(code, &nothing).straight_line(entry, len, roles.factor_registers());
    let mut places = Vec::new();
    for (index, (instruction, state)) in line.iter().enumerate() {
        if state.register(RBP) != Value::Entry(RBP) || !line[..index].iter().all(is_harmless) {
            break;
        }
        let offset = instruction.ip() - entry;
        if let Some(operands) = operands(state, roles)
            && !is_entered_before(code, entry, len, offset)
        {
            places.push(ProbePlace {
                offset,
                operands,
                single_stepped: !is_emulated(instruction, code.byte(instruction.ip())),
            });
        }
    }
    if places.is_empty() {
        // There is no code to look at, or none that is understood: the function is entered there
        // all the same.
        let operands = operands(&AbstractState::at_entry(None, &[]), roles).unwrap_or_default();
        places.push(ProbePlace {
            offset: 0,
            operands,
            single_stepped: true,
        });
    }
    places.sort_by_key(|place| place.single_stepped);
    places
}

/// The operands of a call where all that it asks for is known.
fn operands(state: &AbstractState, roles: &Roles) -> Option<Operands> {
    let locations = Locations::new(state, Position::Entry)?;
    let mut operands = locations.frame()?;
    if !locations.put_request(roles, &mut operands) {
        return None;
    }
    let alignment = locations.alignment(roles)?;
    Some(Operands {
        alignment,
        result: Operand::NONE,
        ..operands
    })
}

/// Returns true if a probe may come after an instruction: it pushes a register, makes room on the
/// stack, or changes neither memory nor the stack pointer.
fn is_harmless((instruction, _): &(Instruction, AbstractState)) -> bool {
    if instruction.flow_control() != FlowControl::Next {
        return false;
    }
    if instruction.code() == Opcode::Push_r64 || makes_room(instruction) {
        return true;
    }
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(instruction);
    let writes_memory = info.used_memory().iter().any(|used| is_write(used.access()));
    let mut registers = info.used_registers().iter();
    let moves_stack =
        registers.any(|used| is_write(used.access()) && used.register().full_register() == Register::RSP);
    !writes_memory && !moves_stack
}

/// Returns true if an instruction makes room on the stack, and nothing else: `sub $n,%rsp`.
fn makes_room(instruction: &Instruction) -> bool {
    matches!(instruction.code(), Opcode::Sub_rm64_imm8 | Opcode::Sub_rm64_imm32)
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register() == Register::RSP
        && u32::try_from(instruction.immediate(1)).is_ok()
}

fn is_write(access: OpAccess) -> bool {
    !matches!(
        access,
        OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
    )
}

/// Returns true if a jump in the function leads behind its first instruction, as far as the place
/// or before it.
fn is_entered_before(code: &MachineCode, entry: u64, len: u64, offset: u64) -> bool {
    code.sweep(entry, len).any(|instruction| {
        let target = instruction.near_branch_target().wrapping_sub(entry);
        matches!(
            instruction.flow_control(),
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
        ) && (1..=offset).contains(&target)
    })
}

#[cfg(test)]
mod distribution;
#[cfg(test)]
mod tests;
