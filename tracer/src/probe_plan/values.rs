//! What registers hold, as far as can be told from straight code.

use iced_x86::{Code, Instruction, InstructionInfo, OpKind, Register};

use super::place::is_write;

/// What a register holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// What this register held when the function was entered.
    Entry(Register),
    /// The low half of the product of what two registers held then.
    Low(Register, Register),
    /// The high half.
    High(Register, Register),
    /// Something else.
    Other,
}

/// What the general registers hold.
#[derive(Debug, Clone)]
pub(super) struct Values([Value; REGISTERS.len()]);

const REGISTERS: [Register; 16] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

impl Default for Values {
    fn default() -> Self {
        Self(REGISTERS.map(Value::Entry))
    }
}

impl Values {
    pub(super) fn get(&self, register: Register) -> Value {
        index(register).map_or(Value::Other, |at| self.0[at])
    }

    /// The register that holds what another one held when the function was entered: that one itself, if it still does.
    pub(super) fn place_of(&self, register: Register) -> Option<Register> {
        let holds = |place: &Register| self.get(*place) == Value::Entry(register);
        let mut places = std::iter::once(register).chain(REGISTERS);
        places.find(holds)
    }

    /// Whether the whole product of what two registers held is where `mul` leaves it.
    pub(super) fn has_product(&self, one: Register, other: Register) -> bool {
        let is_of = |a, b| (a, b) == (one, other) || (a, b) == (other, one);
        matches!(self.get(Register::RAX), Value::Low(a, b) if is_of(a, b))
            && matches!(self.get(Register::RDX), Value::High(a, b) if is_of(a, b))
    }

    fn set(&mut self, register: Register, value: Value) {
        if let Some(at) = index(register) {
            self.0[at] = value;
        }
    }

    /// Takes an instruction that goes on to the next one.
    pub(super) fn step(&mut self, instruction: &Instruction, info: &InstructionInfo) {
        let copied = match instruction.code() {
            Code::Mov_r64_rm64 | Code::Mov_rm64_r64
                if instruction.op0_kind() == OpKind::Register
                    && instruction.op1_kind() == OpKind::Register =>
            {
                Some((instruction.op0_register(), self.get(instruction.op1_register())))
            }
            _ => None,
        };
        let product = match instruction.code() {
            Code::Mul_rm64 if instruction.op0_kind() == OpKind::Register => {
                match (self.get(Register::RAX), self.get(instruction.op0_register())) {
                    (Value::Entry(one), Value::Entry(other)) => Some((one, other)),
                    _ => None,
                }
            }
            _ => None,
        };
        for used in info.used_registers() {
            if is_write(used.access()) {
                self.set(used.register().full_register(), Value::Other);
            }
        }
        if let Some((register, value)) = copied {
            self.set(register, value);
        }
        if let Some((one, other)) = product {
            self.set(Register::RAX, Value::Low(one, other));
            self.set(Register::RDX, Value::High(one, other));
        }
    }
}

fn index(register: Register) -> Option<usize> {
    REGISTERS.iter().position(|known| *known == register)
}
