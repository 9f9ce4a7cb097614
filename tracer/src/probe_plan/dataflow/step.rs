//! The effect of one instruction on the state.

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use super::obstacle::Obstacle;
use super::state::{AbstractState, Flags, Memory, RAX, RBP, RDX, RETURN_ADDRESS, RSP, Value, number};

/// Returns true if an access writes, or may.
pub(super) fn writes(access: OpAccess) -> bool {
    !matches!(
        access,
        OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
    )
}

/// Follows an instruction that is no jump, call or return.
pub(super) fn step(
    state: &mut AbstractState,
    instruction: &Instruction,
    info: &mut InstructionInfoFactory,
) -> Result<(), Obstacle> {
    keep_return_address(state, instruction, info)?;
    if matches!(instruction.mnemonic(), Mnemonic::Syscall) {
        state.called_kernel();
        return Ok(());
    }
    if !known(state, instruction) {
        other(state, instruction, info);
    }
    Ok(())
}

/// Fails for an instruction that overwrites the return address.
fn keep_return_address(
    state: &AbstractState,
    instruction: &Instruction,
    info: &mut InstructionInfoFactory,
) -> Result<(), Obstacle> {
    // Most instructions have no operand in memory; asking for what they use takes time.
    let is_in_memory = |operand| {
        !matches!(
            instruction.op_kind(operand),
            OpKind::Register | OpKind::Immediate8 | OpKind::Immediate32 | OpKind::Immediate8to64
        )
    };
    if !instruction.is_stack_instruction() && !(0..instruction.op_count()).any(is_in_memory) {
        return Ok(());
    }
    for used in info.info(instruction).used_memory() {
        if !writes(used.access()) {
            continue;
        }
        let memory = state.memory(used.segment(), used.base(), used.index(), used.displacement());
        if let Memory::Stack(start) = memory {
            let end = start.saturating_add_unsigned(used.memory_size().size() as u64);
            if start < RETURN_ADDRESS + 8 && RETURN_ADDRESS < end {
                return Err(Obstacle::ReturnAddress(instruction.ip()));
            }
        }
    }
    Ok(())
}

/// Follows an instruction whose outcome can be told. False for another one.
fn known(state: &mut AbstractState, instruction: &Instruction) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Mov => mov(state, instruction),
        Mnemonic::Movzx => movzx(state, instruction),
        Mnemonic::Seto => seto(state, instruction),
        Mnemonic::Lea => lea(state, instruction),
        Mnemonic::Xor | Mnemonic::Sub if is_same_register(instruction) => {
            let Some(target) = number(instruction.op0_register()) else {
                return false;
            };
            let clears = instruction.op0_register().size() >= 4;
            state.set(
                target,
                if clears {
                    Value::Constant(0)
                } else {
                    Value::Unknown
                },
            );
            state.flags = Flags::Decided(true);
            true
        }
        Mnemonic::Add | Mnemonic::Sub => add(state, instruction),
        Mnemonic::And => and(state, instruction),
        Mnemonic::Test | Mnemonic::Cmp => {
            state.flags = compared(state, instruction);
            true
        }
        Mnemonic::Push => push(state, instruction),
        Mnemonic::Pop => pop(state, instruction),
        Mnemonic::Leave => {
            leave(state);
            true
        }
        Mnemonic::Mul => multiply(state, instruction, true),
        Mnemonic::Imul => multiply(state, instruction, false),
        _ => false,
    }
}

/// Follows an instruction of which only what it writes is known.
fn other(state: &mut AbstractState, instruction: &Instruction, info: &mut InstructionInfoFactory) {
    // A pointer to the frame that is computed with is a pointer that is not followed any more.
    for operand in 0..instruction.op_count() {
        if instruction.op_kind(operand) == OpKind::Register
            && let Some(number) = number(instruction.op_register(operand))
            && matches!(state.register(number), Value::Stack(_))
        {
            state.escaped = true;
        }
    }
    if instruction.mnemonic() == Mnemonic::Lea && state.operand(instruction) != Memory::Elsewhere {
        state.escaped = true;
    }
    let info = info.info(instruction);
    for used in info.used_memory() {
        if writes(used.access()) {
            let memory = state.memory(used.segment(), used.base(), used.index(), used.displacement());
            let bytes = used.memory_size().size();
            let repeats = instruction.has_rep_prefix() || instruction.has_repne_prefix();
            let memory = if memory != Memory::Elsewhere && (bytes == 0 || repeats) {
                Memory::SomeStack
            } else {
                memory
            };
            state.store(memory, bytes, Value::Unknown);
        }
    }
    let changed: Vec<u8> = info
        .used_registers()
        .iter()
        .filter(|used| writes(used.access()))
        .filter_map(|used| number(used.register()))
        .collect();
    for number in changed {
        state.set(number, Value::Unknown);
    }
    if instruction.rflags_modified() != 0 {
        state.flags = Flags::Unknown;
    }
}

pub(super) fn is_same_register(instruction: &Instruction) -> bool {
    instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register()
}

/// The register that is an operand, if it is a general one of 64 bits.
pub(super) fn whole(instruction: &Instruction, operand: u32) -> Option<u8> {
    let register = instruction.op_register(operand);
    (instruction.op_kind(operand) == OpKind::Register && register.is_gpr64())
        .then(|| number(register))
        .flatten()
}

/// The same for 32 bits.
pub(super) fn half(instruction: &Instruction, operand: u32) -> Option<u8> {
    let register = instruction.op_register(operand);
    (instruction.op_kind(operand) == OpKind::Register && register.is_gpr32())
        .then(|| number(register))
        .flatten()
}

/// The same for the lowest 8 bits.
fn byte(instruction: &Instruction, operand: u32) -> Option<u8> {
    let register = instruction.op_register(operand);
    let is_high = matches!(
        register,
        Register::AH | Register::BH | Register::CH | Register::DH
    );
    (instruction.op_kind(operand) == OpKind::Register && register.is_gpr8() && !is_high)
        .then(|| number(register))
        .flatten()
}

/// The number that is an operand, sign-extended.
pub(super) fn immediate(instruction: &Instruction, operand: u32) -> Option<u64> {
    instruction.try_immediate(operand).ok()
}

const LOW_HALF: u64 = 0xffff_ffff;

fn mov(state: &mut AbstractState, instruction: &Instruction) -> bool {
    if let Some(target) = whole(instruction, 0) {
        let value = if let Some(source) = whole(instruction, 1) {
            state.register(source)
        } else if instruction.op1_kind() == OpKind::Memory {
            match state.operand(instruction) {
                Memory::Stack(place) => state.slot(place),
                Memory::SomeStack | Memory::Elsewhere => Value::Unknown,
            }
        } else if let Some(constant) = immediate(instruction, 1) {
            Value::Constant(constant)
        } else {
            return false;
        };
        state.set(target, value);
        return true;
    }
    if let Some(target) = half(instruction, 0) {
        let value = if let Some(source) = half(instruction, 1) {
            match state.register(source) {
                Value::Constant(constant) => Value::Constant(constant & LOW_HALF),
                Value::Overflow => Value::Overflow,
                _ => return false,
            }
        } else if let Some(constant) = immediate(instruction, 1) {
            Value::Constant(constant & LOW_HALF)
        } else {
            return false;
        };
        state.set(target, value);
        return true;
    }
    if instruction.op0_kind() != OpKind::Memory || instruction.memory_size().size() != 8 {
        return false;
    }
    let value = if let Some(source) = whole(instruction, 1) {
        state.register(source)
    } else if let Some(constant) = immediate(instruction, 1) {
        Value::Constant(constant)
    } else {
        return false;
    };
    state.store(state.operand(instruction), 8, value);
    true
}

fn movzx(state: &mut AbstractState, instruction: &Instruction) -> bool {
    let Some(source) = byte(instruction, 1) else {
        return false;
    };
    let Some(target) = whole(instruction, 0).or_else(|| half(instruction, 0)) else {
        return false;
    };
    let value = match state.register(source) {
        Value::Overflow | Value::OverflowByte => Value::Overflow,
        Value::Constant(constant) => Value::Constant(constant & 0xff),
        _ => return false,
    };
    state.set(target, value);
    true
}

fn seto(state: &mut AbstractState, instruction: &Instruction) -> bool {
    let Some(target) = byte(instruction, 0) else {
        return false;
    };
    if state.flags != Flags::Product {
        return false;
    }
    state.set(target, Value::OverflowByte);
    true
}

fn lea(state: &mut AbstractState, instruction: &Instruction) -> bool {
    let (Some(target), Memory::Stack(place)) = (whole(instruction, 0), state.operand(instruction)) else {
        return false;
    };
    state.set(target, Value::Stack(place));
    true
}

/// `add` and `sub` of a number.
fn add(state: &mut AbstractState, instruction: &Instruction) -> bool {
    let (Some(target), Some(amount)) = (whole(instruction, 0), immediate(instruction, 1)) else {
        return false;
    };
    let amount = if instruction.mnemonic() == Mnemonic::Sub {
        amount.wrapping_neg()
    } else {
        amount
    };
    let value = match state.register(target) {
        Value::Stack(place) => Value::Stack(place.wrapping_add(amount.cast_signed())),
        Value::Constant(constant) => Value::Constant(constant.wrapping_add(amount)),
        _ => return false,
    };
    state.set(target, value);
    state.flags = Flags::Unknown;
    true
}

/// `and` of a number.
fn and(state: &mut AbstractState, instruction: &Instruction) -> bool {
    let Some(bits) = immediate(instruction, 1) else {
        return false;
    };
    let (target, bits) = match (whole(instruction, 0), half(instruction, 0)) {
        (Some(target), _) => (target, bits),
        (None, Some(target)) => (target, bits & LOW_HALF),
        (None, None) => return false,
    };
    let Value::Constant(constant) = state.register(target) else {
        return false;
    };
    state.set(target, Value::Constant(constant & bits));
    state.flags = Flags::Decided(constant & bits == 0);
    true
}

/// Returns the contents of the flags after `test` or `cmp`.
fn compared(state: &AbstractState, instruction: &Instruction) -> Flags {
    let is_test = instruction.mnemonic() == Mnemonic::Test;
    let with_itself = is_test && is_same_register(instruction);
    let constant = immediate(instruction, 1);
    let with_zero = with_itself || (!is_test && constant == Some(0));
    let (register, bits) = match (whole(instruction, 0), half(instruction, 0), byte(instruction, 0)) {
        (Some(register), ..) => (register, u64::MAX),
        (_, Some(register), _) => (register, LOW_HALF),
        (.., Some(register)) => (register, 0xff),
        _ => return Flags::Unknown,
    };
    match (state.register(register), constant) {
        (Value::Constant(value), _) if with_itself => Flags::Decided(value & bits == 0),
        (Value::Constant(value), Some(constant)) if is_test => Flags::Decided(value & constant & bits == 0),
        (Value::Constant(value), Some(constant)) => Flags::Decided((value ^ constant) & bits == 0),
        (Value::Overflow, _) if with_zero => Flags::NoOverflow,
        (Value::OverflowByte, _) if with_zero && bits == 0xff => Flags::NoOverflow,
        _ if with_zero && bits == u64::MAX => Flags::Zero(register),
        _ => Flags::Unknown,
    }
}

fn push(state: &mut AbstractState, instruction: &Instruction) -> bool {
    let Some(top) = state.depth() else {
        return false;
    };
    let value = if let Some(source) = whole(instruction, 0) {
        state.register(source)
    } else if instruction.stack_pointer_increment() != -8 {
        return false;
    } else {
        immediate(instruction, 0).map_or(Value::Unknown, Value::Constant)
    };
    state.set(RSP, Value::Stack(top - 8));
    state.store(Memory::Stack(top - 8), 8, value);
    true
}

fn pop(state: &mut AbstractState, instruction: &Instruction) -> bool {
    let (Some(top), Some(target)) = (state.depth(), whole(instruction, 0)) else {
        return false;
    };
    if target == RSP {
        return false;
    }
    state.set(target, state.slot(top));
    state.set(RSP, Value::Stack(top + 8));
    true
}

fn leave(state: &mut AbstractState) {
    if let Value::Stack(frame) = state.register(RBP) {
        let saved = state.slot(frame);
        state.set(RSP, Value::Stack(frame + 8));
        state.set(RBP, saved);
    } else {
        state.set(RSP, Value::Unknown);
        state.set(RBP, Value::Unknown);
    }
}

/// `mul` and `imul`: the low half is the same of both.
fn multiply(state: &mut AbstractState, instruction: &Instruction, unsigned: bool) -> bool {
    let (target, operand) = match instruction.op_count() {
        1 => (RAX, 0),
        2 => match whole(instruction, 0) {
            Some(target) => (target, 1),
            None => return false,
        },
        _ => return false,
    };
    let factor = if let Some(source) = whole(instruction, operand) {
        state.register(source)
    } else if instruction.op_kind(operand) == OpKind::Memory && instruction.memory_size().size() == 8 {
        match state.operand(instruction) {
            Memory::Stack(place) => state.slot(place),
            Memory::SomeStack | Memory::Elsewhere => return false,
        }
    } else {
        return false;
    };
    let (Value::Entry(one), Value::Entry(other)) = (state.register(target), factor) else {
        return false;
    };
    if state.factors.is_none() || ![Some((one, other)), Some((other, one))].contains(&state.factors) {
        return false;
    }
    state.set(target, Value::Product);
    if operand == 0 {
        state.set(RDX, if unsigned { Value::High } else { Value::Unknown });
    }
    state.flags = if unsigned { Flags::Product } else { Flags::Unknown };
    true
}
