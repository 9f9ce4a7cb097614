//! Where in a function its probe goes: at the first instruction that the kernel emulates. Another one it runs out of line,
//! with a trap before and one after, which costs many times as much; where the machine is virtual, twenty times and more.
//!
//! Up to the probe nothing may have happened that it must know of: the registers that hold arguments, the stack pointer and
//! the frame pointer are the caller's still, and nothing was written to memory. And there is one way to it, from the
//! function's first instruction: no jump leads between the two, and none leaves before.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess, Register,
};

/// A place for a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Bytes after the function's first.
    pub(super) offset: u64,
    /// Whether the kernel must single-step the instruction there.
    pub(super) single_stepped: bool,
}

/// What a probe must find as the caller left it: the arguments of all shapes, and where the stack is.
const NEEDED: [Register; 5] = [
    Register::RDI,
    Register::RSI,
    Register::RDX,
    Register::RSP,
    Register::RBP,
];

/// The place for a function's probe; its first instruction where there is no better.
pub(super) fn place(code: &[u8]) -> Place {
    let entry = Place {
        offset: 0,
        single_stepped: true,
    };
    let mut info = InstructionInfoFactory::new();
    for instruction in decoder(code) {
        if is_emulated(&instruction) {
            let offset = instruction.ip();
            return if is_entered_before(code, offset) {
                entry
            } else {
                Place {
                    offset,
                    single_stepped: false,
                }
            };
        }
        if instruction.is_invalid() || instruction.flow_control() != FlowControl::Next {
            return entry;
        }
        let info = info.info(&instruction);
        let writes = |access| {
            !matches!(
                access,
                OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
            )
        };
        let changes_needed = info
            .used_registers()
            .iter()
            .any(|used| writes(used.access()) && NEEDED.contains(&used.register().full_register()));
        if changes_needed || info.used_memory().iter().any(|used| writes(used.access())) {
            return entry;
        }
    }
    entry
}

fn decoder(code: &[u8]) -> Decoder<'_> {
    Decoder::with_ip(64, code, 0, DecoderOptions::NONE)
}

/// Whether a jump in the function leads behind its first instruction, as far as the place or before it.
fn is_entered_before(code: &[u8], offset: u64) -> bool {
    decoder(code).into_iter().any(|instruction| {
        matches!(
            instruction.flow_control(),
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
        ) && (1..=offset).contains(&instruction.near_branch_target())
    })
}

/// Whether the kernel emulates an instruction instead of single-stepping it: `push` of a register, one-byte `nop`, near
/// jumps and calls (`arch/x86/kernel/uprobes.c`, `branch_setup_xol_ops`, `push_setup_xol_ops`).
pub(super) fn is_emulated(instruction: &Instruction) -> bool {
    matches!(instruction.code(), Code::Push_r64 | Code::Nopd | Code::Nopq)
        || instruction.is_jmp_short_or_near()
        || instruction.is_jcc_short_or_near()
        || instruction.is_call_near()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(offset: u64) -> Place {
        Place {
            offset,
            single_stepped: false,
        }
    }

    const ENTRY: Place = Place {
        offset: 0,
        single_stepped: true,
    };

    #[test]
    fn first_instruction_if_it_is_emulated() {
        // push %r12
        assert_eq!(place(&[0x41, 0x54, 0xc3]), at(0));
    }

    #[test]
    fn jump_behind_a_test_of_the_argument() {
        // test %rdi,%rdi; je +1; push %rbp; ret
        assert_eq!(place(&[0x48, 0x85, 0xff, 0x74, 0x01, 0x55, 0xc3]), at(3));
        // cmpb $0,0(%rip); push %r12; ret
        assert_eq!(place(&[0x80, 0x3d, 0, 0, 0, 0, 0, 0x41, 0x54, 0xc3]), at(7));
    }

    #[test]
    fn no_further_than_to_what_changes_an_argument_or_memory() {
        // mov %rsi,%rax; mul %rdx; jo +0: the product takes rdx.
        assert_eq!(place(&[0x48, 0x89, 0xf0, 0x48, 0xf7, 0xe2, 0x70, 0x00]), ENTRY);
        // mov %edi,%edi; push %rbp: half of a register is the register.
        assert_eq!(place(&[0x89, 0xff, 0x55]), ENTRY);
        // mov %rax,(%rsi); push %rbp
        assert_eq!(place(&[0x48, 0x89, 0x06, 0x55]), ENTRY);
        // sub $8,%rsp; push %rbp
        assert_eq!(place(&[0x48, 0x83, 0xec, 0x08, 0x55]), ENTRY);
        // ret
        assert_eq!(place(&[0xc3]), ENTRY);
        assert_eq!(place(&[]), ENTRY);
    }

    #[test]
    fn not_where_a_jump_leads() {
        // test %rdi,%rdi; push %rbp; jmp -3: back to the push.
        assert_eq!(place(&[0x48, 0x85, 0xff, 0x55, 0xeb, 0xfd]), ENTRY);
    }
}
