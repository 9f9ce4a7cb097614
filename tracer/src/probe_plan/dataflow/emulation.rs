//! The instructions that the kernel emulates at a uprobe, and those that it is sure to single-step.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};

/// The prefix that makes `push` reach the registers `r8` to `r15`.
const REX_B: u8 = 0x41;

/// The prefix for operands of 16 bits.
const OPERAND_SIZE: u8 = 0x66;

/// Returns true if the kernel emulates an instruction instead of single-stepping it: `push` of a
/// register without a prefix or with `REX.B`, one-byte `nop`, near jumps and calls without the
/// prefix for 16 bits (`arch/x86/kernel/uprobes.c`, `branch_setup_xol_ops`, `push_setup_xol_ops`).
/// Recent kernels emulate longer `nop`s too. `first` is its first byte.
pub(in crate::probe_plan) fn is_emulated(instruction: &Instruction, first: Option<u8>) -> bool {
    match instruction.code() {
        Code::Push_r64 => instruction.len() == 1 || instruction.len() == 2 && first == Some(REX_B),
        Code::Nopd | Code::Nopq => instruction.len() == 1,
        _ => {
            instruction.op0_kind() == OpKind::NearBranch64
                && first != Some(OPERAND_SIZE)
                && (instruction.is_jcc_short_or_near()
                    || instruction.is_jmp_short_or_near()
                    || instruction.is_call_near())
        }
    }
}

/// Returns true if the kernel is sure to step through an instruction: some it refuses, by their
/// prefixes or their opcodes (`arch/x86/kernel/uprobes.c`, `is_prefix_bad`, `good_insns_64`).
pub(in crate::probe_plan) fn is_steppable(instruction: &Instruction) -> bool {
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
