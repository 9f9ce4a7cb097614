//! The code of a file as it is loaded, instruction by instruction.

use std::sync::OnceLock;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};

use super::relative::{self, OperandKind, RelativeOperand};

/// Addresses in a file's code.
pub(in crate::probe_plan) type AddressSet = foldhash::HashSet<u64>;

/// Values by addresses in a file's code.
pub(in crate::probe_plan) type AddressMap<V> = foldhash::HashMap<u64, V>;

/// A loaded part of a file.
#[derive(Debug, Clone)]
pub(in crate::probe_plan) struct CodePart {
    pub(in crate::probe_plan) address: u64,
    pub(in crate::probe_plan) file_offset: u64,
    pub(in crate::probe_plan) bytes: Vec<u8>,
    pub(in crate::probe_plan) is_code: bool,
}

/// A file's code, and what its tables say of functions.
#[derive(Debug, Clone, Default)]
pub(in crate::probe_plan) struct MachineCode {
    pub(in crate::probe_plan) parts: Vec<CodePart>,
    /// The first addresses of the allocator's functions.
    pub(in crate::probe_plan) functions: AddressSet,
    /// Functions by the slots that the loader puts their addresses into (`.got`).
    pub(in crate::probe_plan) slots: AddressMap<u64>,
    /// Functions that return their first argument, and the slots that hold their addresses.
    pub(in crate::probe_plan) return_first: AddressSet,
    /// It can run with a shadow stack.
    pub(in crate::probe_plan) has_shadow_stack: bool,
    /// It is loaded at the addresses that the file says, so that it may contain addresses.
    pub(in crate::probe_plan) is_fixed: bool,
    /// Operands that [`relative::visit`] has found in it, once they were asked for.
    pub(in crate::probe_plan) relative_operands: OnceLock<Vec<RelativeOperand>>,
}

/// The ways out of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::probe_plan) enum Transfer {
    /// The next instruction.
    Next,
    /// A jump.
    Jump(Destination),
    /// A conditional jump, or the next instruction.
    Branch(Destination),
    /// A call; it returns to the next instruction.
    Call(Destination),
    /// A return to the caller.
    Return,
    /// None: the processor stops the program.
    Stop,
    /// One that is not followed.
    Unknown,
}

/// The target of a jump or a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::probe_plan) struct Destination {
    /// Its address, seen through the linkage table; `None` where a register, memory or another file
    /// decides.
    pub(in crate::probe_plan) address: Option<u64>,
    /// It is a function that returns its first argument.
    pub(in crate::probe_plan) returns_first: bool,
}

/// The most code of which the relative operands are kept: there are about 40,000 to a MiB.
const MAX_KEPT_CODE_BYTES: usize = 16 << 20;

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// The opcode of a jump through memory, and the most bytes before it that are looked at: prefixes
/// (`bnd jmp` has one), and the opcode itself.
const INDIRECT_JUMP: u8 = 0xff;
const MAX_PREFIXES: usize = 4;

impl MachineCode {
    /// The code of one part.
    #[cfg(test)]
    pub(in crate::probe_plan) fn of_bytes(address: u64, bytes: &[u8]) -> Self {
        Self {
            parts: vec![CodePart {
                address,
                file_offset: address,
                bytes: bytes.to_vec(),
                is_code: true,
            }],
            ..Self::default()
        }
    }

    /// The parts with code, each with the address of its first byte.
    pub(in crate::probe_plan) fn code_parts(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let parts = self.parts.iter().filter(|part| part.is_code);
        parts.map(|part| (part.address, part.bytes.as_slice()))
    }

    /// The code at an address, to the end of its part, and its offset in the file.
    fn at(&self, address: u64) -> Option<(&[u8], u64)> {
        let inside = |part: &&CodePart| {
            let at = address.checked_sub(part.address);
            part.is_code && at.is_some_and(|at| at < part.bytes.len() as u64)
        };
        let part = self.parts.iter().find(inside)?;
        let at = address - part.address;
        Some((&part.bytes[usize::try_from(at).ok()?..], part.file_offset + at))
    }

    /// The instruction at an address.
    pub(in crate::probe_plan) fn instruction(&self, address: u64) -> Option<Instruction> {
        let (code, _) = self.at(address)?;
        let instruction = Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode();
        (!instruction.is_invalid()).then_some(instruction)
    }

    /// The instructions one after another, whichever way leads to them, as far as `len` bytes go.
    pub(in crate::probe_plan) fn sweep(&self, address: u64, len: u64) -> impl Iterator<Item = Instruction> {
        let code = self.at(address).map_or(&[][..], |(code, _)| code);
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(code.len());
        let mut decoder = Decoder::with_ip(64, &code[..len], address, DecoderOptions::NONE);
        std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
    }

    /// The byte of code at an address.
    pub(in crate::probe_plan) fn byte(&self, address: u64) -> Option<u8> {
        self.at(address).map(|(code, _)| code[0])
    }

    /// The offset in the file of the code at an address.
    pub(in crate::probe_plan) fn file_offset(&self, address: u64) -> Option<u64> {
        self.at(address).map(|(_, offset)| offset)
    }

    /// The ways out of an instruction.
    pub(in crate::probe_plan) fn transfer(&self, instruction: &Instruction) -> Transfer {
        match instruction.flow_control() {
            FlowControl::Next if instruction.mnemonic() == Mnemonic::Hlt => Transfer::Stop,
            FlowControl::Next => Transfer::Next,
            FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => {
                Transfer::Jump(self.destination(instruction))
            }
            FlowControl::ConditionalBranch => Transfer::Branch(self.destination(instruction)),
            FlowControl::Call if instruction.mnemonic() == Mnemonic::Syscall => Transfer::Next,
            FlowControl::Call | FlowControl::IndirectCall => Transfer::Call(self.destination(instruction)),
            FlowControl::Return if instruction.mnemonic() == Mnemonic::Ret => Transfer::Return,
            // `ud2`: it is there for the processor to stop at.
            FlowControl::Exception => Transfer::Stop,
            FlowControl::Return | FlowControl::Interrupt | FlowControl::XbeginXabortXend => Transfer::Unknown,
        }
    }

    fn destination(&self, instruction: &Instruction) -> Destination {
        if instruction.op0_kind() == OpKind::NearBranch64 {
            let target = instruction.near_branch_target();
            let returns_first = self.return_first.contains(&target);
            let is_function = returns_first || self.functions.contains(&target);
            return match self.stub_slot(target).filter(|_| !is_function) {
                Some(slot) => self.in_slot(slot),
                None => Destination {
                    address: Some(target),
                    returns_first,
                },
            };
        }
        if instruction.is_ip_rel_memory_operand() {
            return self.in_slot(instruction.ip_rel_memory_address());
        }
        Destination {
            address: None,
            returns_first: false,
        }
    }

    fn in_slot(&self, slot: u64) -> Destination {
        Destination {
            address: self.slots.get(&slot).copied(),
            returns_first: self.return_first.contains(&slot),
        }
    }

    /// The slot that an entry of the linkage table jumps through.
    fn stub_slot(&self, address: u64) -> Option<u64> {
        let (code, _) = self.at(address)?;
        let (code, address) = match code.strip_prefix(&ENDBR64) {
            Some(behind) => (behind, address + ENDBR64.len() as u64),
            None => (code, address),
        };
        // Most targets are plain code, which need not be decoded for this.
        if !code.iter().take(MAX_PREFIXES).any(|byte| *byte == INDIRECT_JUMP) {
            return None;
        }
        let jump = self.instruction(address)?;
        (jump.is_jmp_near_indirect() && jump.is_ip_rel_memory_operand()).then(|| jump.ip_rel_memory_address())
    }

    /// The places in the code that refer to an address that `is_wanted`, as jumps, calls and
    /// instructions that take it: (the address, the place). They are looked for at every byte,
    /// since nothing tells where instructions begin, so that some only look like one.
    pub(in crate::probe_plan) fn references(&self, is_wanted: impl Fn(u64) -> bool) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        self.visit_relative_operands(|operand| {
            if is_wanted(operand.target) {
                found.push((operand.target, operand.address));
            }
        });
        if self.is_fixed {
            for (start, code) in self.code_parts() {
                let words = code
                    .array_windows()
                    .map(|word| u64::from(u32::from_le_bytes(*word)));
                let wanted = (start..).zip(words).filter(|(_, target)| is_wanted(*target));
                found.extend(wanted.map(|(address, target)| (target, address)));
            }
        }
        found
    }

    /// The jumps and calls in the whole code with a target that `is_wanted`: (the target, the
    /// instruction). They are looked for at every byte, as [`MachineCode::references`] are.
    pub(in crate::probe_plan) fn branches_to(&self, is_wanted: impl Fn(u64) -> bool) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        self.visit_relative_operands(|operand| {
            if let Some(branch) = operand.branch()
                && is_wanted(operand.target)
            {
                found.push((operand.target, branch));
            }
        });
        found
    }

    /// The calls in the code of a function that `is_wanted`: (the function, the address that the
    /// call returns to).
    pub(in crate::probe_plan) fn calls_to(&self, is_wanted: impl Fn(u64) -> bool) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        self.visit_relative_operands(|operand| {
            if operand.kind == OperandKind::Call && is_wanted(operand.target) {
                found.push((operand.target, operand.next()));
            }
        });
        found
    }

    /// Calls `visit` with what [`relative::visit`] finds in the code. It is kept where that takes
    /// little memory.
    fn visit_relative_operands(&self, mut visit: impl FnMut(RelativeOperand)) {
        if self.code_parts().map(|(_, code)| code.len()).sum::<usize>() > MAX_KEPT_CODE_BYTES {
            for (start, code) in self.code_parts() {
                relative::visit(start, code, &mut visit);
            }
            return;
        }
        let kept = self.relative_operands.get_or_init(|| {
            let mut found = Vec::new();
            for (start, code) in self.code_parts() {
                relative::visit(start, code, |operand| found.push(operand));
            }
            found
        });
        kept.iter().copied().for_each(visit);
    }

    /// The words in the file, whether in its data or in its tables of relocations and symbols, that
    /// are such an address.
    pub(in crate::probe_plan) fn words(&self, is_wanted: impl Fn(u64) -> bool) -> Vec<u64> {
        let mut found = Vec::new();
        for part in &self.parts {
            let skipped = part.address.next_multiple_of(8) - part.address;
            let bytes = part
                .bytes
                .get(usize::try_from(skipped).unwrap_or(0)..)
                .unwrap_or(&[]);
            let words = bytes.as_chunks::<8>().0.iter();
            found.extend(
                words
                    .map(|word| u64::from_le_bytes(*word))
                    .filter(|word| is_wanted(*word)),
            );
        }
        found
    }
}
