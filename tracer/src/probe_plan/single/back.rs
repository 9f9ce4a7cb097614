//! An instruction, backwards: where the value at a place was before it.

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpKind};

use super::step::{half, immediate, is_same_register, whole, writes};
use super::values::{Memory, State, number, survives_call, survives_syscall};

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// It is 0.
    Zero,
    /// In the register of this number.
    Register(u8),
    /// In the slot at this distance from the CFA.
    Slot(i64),
}

/// Where what is at `place` after an instruction is before it; nothing if the instruction makes it, or may. `state` is what
/// is known before the instruction.
pub(super) fn before(
    place: Place,
    state: &State,
    instruction: &Instruction,
    info: &mut InstructionInfoFactory,
) -> Option<Place> {
    if place == Place::Zero {
        return Some(place);
    }
    if instruction.is_call_near() || instruction.is_call_near_indirect() {
        return match place {
            Place::Register(number) => survives_call(number).then_some(place),
            _ => (!state.escaped).then_some(place),
        };
    }
    if instruction.mnemonic() == Mnemonic::Syscall {
        return match place {
            Place::Register(number) => survives_syscall(number).then_some(place),
            _ => (!state.escaped).then_some(place),
        };
    }
    if let Some(source) = moved(place, state, instruction) {
        return Some(source);
    }
    let info = info.info(instruction);
    let is_changed = match place {
        Place::Zero => false,
        Place::Register(wanted) => info
            .used_registers()
            .iter()
            .any(|used| writes(used.access()) && number(used.register()) == Some(wanted)),
        Place::Slot(slot) => info.used_memory().iter().any(|used| {
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
    (!is_changed).then_some(place)
}

/// Where an instruction that only moves values has the one at `place` from.
fn moved(place: Place, state: &State, instruction: &Instruction) -> Option<Place> {
    match (instruction.mnemonic(), place) {
        (Mnemonic::Mov, Place::Register(wanted)) => {
            if whole(instruction, 0) == Some(wanted) {
                if let Some(source) = whole(instruction, 1) {
                    return Some(Place::Register(source));
                }
                if instruction.op1_kind() == OpKind::Memory
                    && let Memory::Stack(slot) = state.operand(instruction)
                {
                    return Some(Place::Slot(slot));
                }
            }
            let is_target = whole(instruction, 0).or_else(|| half(instruction, 0)) == Some(wanted);
            (is_target && immediate(instruction, 1) == Some(0)).then_some(Place::Zero)
        }
        (Mnemonic::Xor | Mnemonic::Sub, Place::Register(wanted)) => (is_same_register(instruction)
            && instruction.op0_register().size() >= 4
            && number(instruction.op0_register()) == Some(wanted))
        .then_some(Place::Zero),
        (Mnemonic::Mov, Place::Slot(wanted)) => {
            let is_target = instruction.op0_kind() == OpKind::Memory
                && state.operand(instruction) == Memory::Stack(wanted);
            let source = whole(instruction, 1)?;
            is_target.then_some(Place::Register(source))
        }
        (Mnemonic::Push, Place::Slot(wanted)) => {
            let source = whole(instruction, 0)?;
            (state.depth()? - 8 == wanted).then_some(Place::Register(source))
        }
        (Mnemonic::Pop, Place::Register(wanted)) => {
            (whole(instruction, 0) == Some(wanted)).then_some(Place::Slot(state.depth()?))
        }
        _ => None,
    }
}
