//! The abstract state of a function before an instruction: the known contents of registers and
//! stack slots.
//!
//! An address of the stack is given as its distance from the CFA, the stack pointer before the call
//! (DWARF 5, 6.4): the return address is at -8. A slot is eight bytes of the function's own frame.
//! Stores through pointers that are not known leave slots alone as long as the function has made no
//! pointer to its frame but the stack pointer and the frame pointer: nobody else has one. After
//! that ([`AbstractState::escaped`]) every such store, and every call, may change any slot.

use std::collections::BTreeMap;

use iced_x86::{Instruction, Register};

/// Numbers of registers, as instructions encode them.
pub(in crate::probe_plan) const RAX: u8 = 0;
pub(super) const RDX: u8 = 2;
pub(super) const RSP: u8 = 4;
pub(in crate::probe_plan) const RBP: u8 = 5;
pub(super) const RDI: u8 = 7;

/// Argument registers (System V AMD64 ABI, 3.2.3).
pub(super) const ARGUMENTS: [u8; 6] = [RDI, 6, RDX, 1, 8, 9];

/// The register of an argument, by its position.
pub(in crate::probe_plan) const fn argument(position: u8) -> u8 {
    ARGUMENTS[position as usize % ARGUMENTS.len()]
}

/// The registers that a function leaves as they were (System V AMD64 ABI, figure 3.4); the stack
/// pointer is one.
const PRESERVED: [u8; 7] = [3, RSP, RBP, 12, 13, 14, 15];

/// The registers that a system call changes (System V AMD64 ABI, A.2.1).
const CHANGED_BY_SYSCALL: [u8; 3] = [RAX, 1, 11];

/// The distance of the return address from the CFA.
pub(super) const RETURN_ADDRESS: i64 = -8;

/// The known contents of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::probe_plan) enum Value {
    /// Nothing is known.
    Unknown,
    /// The contents that the register of this number had at the function's entry.
    Entry(u8),
    /// A number.
    Constant(u64),
    /// The address at this distance from the CFA.
    Stack(i64),
    /// The low half of the product of the state's factors.
    Product,
    /// Its high half: 0 if it does not overflow.
    High,
    /// 1 if that product overflows, or else 0.
    Overflow,
    /// The same in the lowest byte; nothing is known of the others.
    OverflowByte,
}

/// The known contents of the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flags {
    /// Nothing.
    Unknown,
    /// The zero flag is set if this register is 0.
    Zero(u8),
    /// The carry and the overflow flag are set if the product of the factors overflows.
    Product,
    /// The zero flag is set if that product does not overflow.
    NoOverflow,
    /// The zero flag is set, or is not.
    Decided(bool),
}

/// The memory that an operand refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::probe_plan) enum Memory {
    /// This distance from the CFA.
    Stack(i64),
    /// Somewhere in the frame.
    SomeStack,
    /// Through a pointer that is not known to be to the frame.
    Elsewhere,
}

/// The state before an instruction, whichever way led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::probe_plan) struct AbstractState {
    registers: [Value; 16],
    slots: BTreeMap<i64, Value>,
    pub(super) flags: Flags,
    /// The argument registers whose product is followed.
    pub(super) factors: Option<(u8, u8)>,
    /// That product does not overflow.
    pub(in crate::probe_plan) product_fits: bool,
    /// There may be pointers to the frame in other places than the stack and the frame pointer.
    pub(super) escaped: bool,
}

impl AbstractState {
    /// The state at a function's first instruction. `factors`: the registers of two arguments that
    /// are multiplied to the size; `constants`: arguments that are known, by register.
    pub(in crate::probe_plan) fn at_entry(factors: Option<(u8, u8)>, constants: &[(u8, u64)]) -> Self {
        let mut registers = std::array::from_fn(|number| Value::Entry(u8::try_from(number).unwrap_or(0)));
        registers[usize::from(RSP)] = Value::Stack(RETURN_ADDRESS);
        for (number, constant) in constants {
            registers[usize::from(*number)] = Value::Constant(*constant);
        }
        Self {
            registers,
            slots: BTreeMap::new(),
            flags: Flags::Unknown,
            factors,
            product_fits: false,
            escaped: false,
        }
    }

    pub(in crate::probe_plan) fn register(&self, number: u8) -> Value {
        self.registers[usize::from(number)]
    }

    pub(in crate::probe_plan) fn slot(&self, place: i64) -> Value {
        self.slots.get(&place).copied().unwrap_or(Value::Unknown)
    }

    /// The registers and what they hold.
    pub(in crate::probe_plan) fn registers(&self) -> impl Iterator<Item = (u8, Value)> + '_ {
        (0u8..).zip(self.registers)
    }

    /// The slots of which something is known.
    pub(in crate::probe_plan) fn slots(&self) -> impl Iterator<Item = (i64, Value)> + '_ {
        self.slots.iter().map(|(place, value)| (*place, *value))
    }

    /// The distance of the stack pointer from the CFA, if it is known.
    pub(in crate::probe_plan) fn depth(&self) -> Option<i64> {
        match self.register(RSP) {
            Value::Stack(place) => Some(place),
            _ => None,
        }
    }

    /// Reduces the state to what it has in common with another one. True if less is known than
    /// before.
    pub(super) fn meet(&mut self, other: &Self) -> bool {
        let known = (self.slots.len(), self.flags, self.product_fits, self.escaped);
        let mut has_changed = false;
        for (mine, other) in self.registers.iter_mut().zip(other.registers) {
            if *mine != other {
                // What may be a pointer to the frame is not followed as one any more.
                self.escaped |= [*mine, other]
                    .iter()
                    .any(|value| matches!(value, Value::Stack(_)));
                has_changed |= *mine != Value::Unknown;
                *mine = Value::Unknown;
            }
        }
        self.slots
            .retain(|place, value| other.slots.get(place) == Some(value));
        if self.flags != other.flags {
            self.flags = Flags::Unknown;
        }
        self.product_fits &= other.product_fits;
        self.escaped |= other.escaped;
        has_changed || known != (self.slots.len(), self.flags, self.product_fits, self.escaped)
    }

    /// Puts a value into a whole register.
    pub(super) fn set(&mut self, number: u8, value: Value) {
        if self.flags == Flags::Zero(number) {
            self.flags = Flags::Unknown;
        }
        self.registers[usize::from(number)] = value;
        if number == RSP {
            match value {
                // What lies below may be overwritten by a signal's frame.
                Value::Stack(top) => self.slots.retain(|place, _| *place >= top),
                _ => self.slots.clear(),
            }
        } else if matches!(value, Value::Stack(_)) && number != RBP {
            self.escaped = true;
        }
    }

    /// Puts a value of this many bytes into memory.
    pub(super) fn store(&mut self, memory: Memory, bytes: usize, value: Value) {
        self.escaped |= matches!(value, Value::Stack(_));
        match memory {
            Memory::Stack(start) => {
                let end = start.saturating_add_unsigned(bytes as u64);
                self.slots.retain(|place, _| *place >= end || *place + 8 <= start);
                let is_in_frame = self.depth().is_some_and(|top| start >= top);
                if bytes == 8 && value != Value::Unknown && is_in_frame {
                    self.slots.insert(start, value);
                }
            }
            Memory::SomeStack => self.slots.clear(),
            Memory::Elsewhere => {
                if self.escaped {
                    self.slots.clear();
                }
            }
        }
    }

    /// The memory that an operand refers to, by its parts.
    pub(in crate::probe_plan) fn memory(
        &self,
        segment: Register,
        base: Register,
        index: Register,
        displacement: u64,
    ) -> Memory {
        if matches!(segment, Register::FS | Register::GS) {
            return Memory::Elsewhere;
        }
        let place = |register: Register| match number(register).map(|number| self.register(number)) {
            Some(Value::Stack(place)) => Some(place),
            _ => None,
        };
        match (place(base), place(index)) {
            (Some(place), None) if index == Register::None => {
                Memory::Stack(place.wrapping_add(displacement.cast_signed()))
            }
            (None, None) => Memory::Elsewhere,
            _ => Memory::SomeStack,
        }
    }

    /// The memory that an instruction's operand refers to.
    pub(super) fn operand(&self, instruction: &Instruction) -> Memory {
        self.memory(
            instruction.memory_segment(),
            instruction.memory_base(),
            instruction.memory_index(),
            instruction.memory_displacement64(),
        )
    }

    /// Forgets what a called function may change.
    pub(super) fn called(&mut self) {
        for number in 0..16 {
            if !survives_call(number) {
                self.set(number, Value::Unknown);
            }
        }
        self.flags = Flags::Unknown;
        if self.escaped {
            self.slots.clear();
        }
    }

    /// Forgets what a system call may change.
    pub(super) fn called_kernel(&mut self) {
        for number in CHANGED_BY_SYSCALL {
            self.set(number, Value::Unknown);
        }
        self.flags = Flags::Unknown;
        if self.escaped {
            self.slots.clear();
        }
    }
}

/// The place of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::probe_plan) enum ValueLocation {
    /// Nowhere: it is 0.
    Zero,
    /// The register of this number.
    Register(u8),
    /// The slot at this distance from the CFA.
    Slot(i64),
}

/// Returns true if a register is after a call what it was before.
pub(super) fn survives_call(number: u8) -> bool {
    PRESERVED.contains(&number)
}

/// Returns true if a register is after a system call what it was before.
pub(super) fn survives_syscall(number: u8) -> bool {
    !CHANGED_BY_SYSCALL.contains(&number)
}

/// The number of a general register, whole or a part; nothing for other registers.
pub(super) fn number(register: Register) -> Option<u8> {
    let whole = register.full_register();
    whole
        .is_gpr64()
        .then(|| u8::try_from(whole.number()).ok())
        .flatten()
}
