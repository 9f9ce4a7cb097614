//! The effect of one instruction, backwards: the location that a value had before it.

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpKind};

use super::state::{AbstractState, Memory, ValueLocation, number, survives_call, survives_syscall};
use super::step::{half, immediate, is_same_register, whole, writes};

/// Returns the location before an instruction of what is at `location` after it; `None` if the
/// instruction makes it, or may. `state` is the one before the instruction.
pub(super) fn before(
    location: ValueLocation,
    state: &AbstractState,
    instruction: &Instruction,
    info: &mut InstructionInfoFactory,
) -> Option<ValueLocation> {
    if location == ValueLocation::Zero {
        return Some(location);
    }
    if instruction.is_call_near() || instruction.is_call_near_indirect() {
        return match location {
            ValueLocation::Register(number) => survives_call(number).then_some(location),
            _ => (!state.escaped).then_some(location),
        };
    }
    if instruction.mnemonic() == Mnemonic::Syscall {
        return match location {
            ValueLocation::Register(number) => survives_syscall(number).then_some(location),
            _ => (!state.escaped).then_some(location),
        };
    }
    if let Some(source) = moved(location, state, instruction) {
        return Some(source);
    }
    let info = info.info(instruction);
    let is_changed = match location {
        ValueLocation::Zero => false,
        ValueLocation::Register(wanted) => info
            .used_registers()
            .iter()
            .any(|used| writes(used.access()) && number(used.register()) == Some(wanted)),
        ValueLocation::Slot(slot) => info.used_memory().iter().any(|used| {
            let bytes = used.memory_size().size();
            writes(used.access())
                && match state.memory(used.segment(), used.base(), used.index(), used.displacement()) {
                    Memory::Stack(start) => {
                        bytes == 0
                            || (start < slot + 8 && slot < start.saturating_add_unsigned(bytes as u64))
                            || instruction.has_rep_prefix()
                            || instruction.has_repne_prefix()
                    }
                    Memory::SomeStack => true,
                    Memory::Elsewhere => state.escaped,
                }
        }),
    };
    (!is_changed).then_some(location)
}

/// Returns the location from which an instruction that only moves values has the one at `location`.
fn moved(location: ValueLocation, state: &AbstractState, instruction: &Instruction) -> Option<ValueLocation> {
    match (instruction.mnemonic(), location) {
        (Mnemonic::Mov, ValueLocation::Register(wanted)) => {
            if whole(instruction, 0) == Some(wanted) {
                if let Some(source) = whole(instruction, 1) {
                    return Some(ValueLocation::Register(source));
                }
                if instruction.op1_kind() == OpKind::Memory
                    && let Memory::Stack(slot) = state.operand(instruction)
                {
                    return Some(ValueLocation::Slot(slot));
                }
            }
            let is_target = whole(instruction, 0).or_else(|| half(instruction, 0)) == Some(wanted);
            (is_target && immediate(instruction, 1) == Some(0)).then_some(ValueLocation::Zero)
        }
        (Mnemonic::Xor | Mnemonic::Sub, ValueLocation::Register(wanted)) => (is_same_register(instruction)
            && instruction.op0_register().size() >= 4
            && number(instruction.op0_register()) == Some(wanted))
        .then_some(ValueLocation::Zero),
        (Mnemonic::Mov, ValueLocation::Slot(wanted)) => {
            let is_target = instruction.op0_kind() == OpKind::Memory
                && state.operand(instruction) == Memory::Stack(wanted);
            let source = whole(instruction, 1)?;
            is_target.then_some(ValueLocation::Register(source))
        }
        (Mnemonic::Push, ValueLocation::Slot(wanted)) => {
            let source = whole(instruction, 0)?;
            (state.depth()? - 8 == wanted).then_some(ValueLocation::Register(source))
        }
        (Mnemonic::Pop, ValueLocation::Register(wanted)) => {
            (whole(instruction, 0) == Some(wanted)).then_some(ValueLocation::Slot(state.depth()?))
        }
        _ => None,
    }
}
