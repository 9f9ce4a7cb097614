//! Where in a function its probe goes: at an instruction that the kernel emulates. Another one it runs out of line, with a
//! trap before and one after, which costs many times as much; where the machine is virtual, twenty times and more.
//!
//! Up to the probe nothing may have happened that it must know of: every argument is in some register still, or the product
//! of the last two is; the frame pointer is the caller's, nothing was written to memory, and the stack pointer is the
//! caller's, but for registers that were pushed. And there is one way to it, from the function's first instruction: no
//! jump leads between the two, and none leaves before.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess, OpKind,
    Register,
};

use super::shape::Shape;
use super::values::{Value, Values};

/// A place for a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Bytes after the function's first.
    pub(super) offset: u64,
    /// Bytes that the instructions before it have pushed, or made room for. A return probe needs a place with none: it takes what the stack
    /// pointer points to for the return address.
    pub(super) pushed_bytes: u32,
    /// Where the arguments are.
    pub(super) arguments: Arguments,
    /// Whether the kernel must single-step the instruction there.
    pub(super) single_stepped: bool,
}

/// Where a function's arguments are when a probe is hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Arguments {
    /// In these registers, in the arguments' order.
    Apart(Vec<Register>),
    /// All but the last two are in these registers; the product of those is in `rax` (low half) and `rdx` (high half).
    Multiplied(Vec<Register>),
}

/// The arguments that a shape's program reads (System V AMD64, 3.2.3).
pub(super) const fn arguments(shape: Shape) -> &'static [Register] {
    match shape {
        Shape::Size | Shape::Free => &[Register::RDI],
        Shape::AlignedSize | Shape::CountSize | Shape::Resize | Shape::ResizeInPlace => {
            &[Register::RDI, Register::RSI]
        }
        Shape::HeapSize => &[Register::RSI],
        Shape::HeapCountSize | Shape::HeapResize => &[Register::RSI, Register::RDX],
        Shape::HeapResizeArray => &[Register::RSI, Register::RDX, Register::RCX],
        Shape::Factors => &[Register::RAX, Register::RSI],
        Shape::HeapFactors => &[Register::RAX, Register::RDX],
        Shape::OutPointer => &[Register::RDI, Register::RDX],
        Shape::ResizeArray | Shape::ResizeProduct => &[Register::RDI, Register::RSI, Register::RDX],
    }
}

/// The places for a function's probe, the best first: those that the kernel emulates, in their order, then those that it
/// must step. `arguments` are the registers in which the function is given what the program reads; `array` says that the
/// last two are factors of a size.
pub(super) fn places(code: &[u8], arguments: &[Register], array: bool) -> Vec<Place> {
    let mut places = Vec::new();
    let mut values = Values::default();
    let mut pushed_bytes = 0;
    let mut info = InstructionInfoFactory::new();
    for instruction in decoder(code) {
        if instruction.is_invalid() || values.get(Register::RBP) != Value::Entry(Register::RBP) {
            break;
        }
        if let Some(arguments) = found(&values, arguments, array)
            && !is_entered_before(code, instruction.ip())
        {
            places.push(Place {
                offset: instruction.ip(),
                pushed_bytes,
                arguments,
                single_stepped: !is_emulated(&instruction, first_byte(&instruction, code)),
            });
        }
        if instruction.flow_control() != FlowControl::Next {
            break;
        }
        if instruction.code() == Code::Push_r64 {
            pushed_bytes += 8;
            continue;
        }
        if let Some(bytes) = made_room(&instruction) {
            pushed_bytes += bytes;
            continue;
        }
        let info = info.info(&instruction);
        let writes_memory = info.used_memory().iter().any(|used| is_write(used.access()));
        values.step(&instruction, info);
        if writes_memory || values.get(Register::RSP) != Value::Entry(Register::RSP) {
            break;
        }
    }
    if places.is_empty() {
        // There is no code to look at, or none that can be told: the function is entered there all the same.
        places.push(Place {
            offset: 0,
            pushed_bytes: 0,
            arguments: Arguments::Apart(arguments.to_vec()),
            single_stepped: true,
        });
    }
    places.sort_by_key(|place| place.single_stepped);
    places
}

/// Bytes that an instruction makes room for on the stack, and nothing else: `sub $n,%rsp`.
fn made_room(instruction: &Instruction) -> Option<u32> {
    let is_sub = matches!(instruction.code(), Code::Sub_rm64_imm8 | Code::Sub_rm64_imm32);
    (is_sub && instruction.op0_kind() == OpKind::Register && instruction.op0_register() == Register::RSP)
        .then(|| u32::try_from(instruction.immediate(1)).ok())
        .flatten()
}

/// Where the arguments are by now, if they are anywhere.
fn found(values: &Values, arguments: &[Register], array: bool) -> Option<Arguments> {
    let where_are = |arguments: &[Register]| -> Option<Vec<Register>> {
        arguments
            .iter()
            .map(|argument| values.place_of(*argument))
            .collect()
    };
    if let Some(apart) = where_are(arguments) {
        return Some(Arguments::Apart(apart));
    }
    let (rest, factors) = arguments.split_last_chunk::<2>().filter(|_| array)?;
    let multiplied = values.has_product(factors[0], factors[1]);
    multiplied
        .then(|| where_are(rest))
        .flatten()
        .map(Arguments::Multiplied)
}

/// The shape whose program reads the arguments of a function where they are at a place. None has one for arguments that
/// were moved elsewhere.
pub(super) fn shape_at(shape: Shape, place: &Place) -> Option<Shape> {
    match &place.arguments {
        Arguments::Apart(registers) => {
            let reads = |shape: &&Shape| arguments(**shape) == registers.as_slice();
            let moved: &[Shape] = match shape {
                // musl's `valloc`, on its way to `memalign`; what calls the same function for its thread's heap.
                Shape::Size => &[Shape::HeapSize],
                Shape::CountSize => &[Shape::HeapCountSize, Shape::Factors],
                Shape::HeapCountSize => &[Shape::HeapFactors],
                Shape::Resize => &[Shape::HeapResize],
                Shape::ResizeArray => &[Shape::HeapResizeArray],
                _ => &[],
            };
            // Of an alignment nothing more need be known by then: the call goes on to what aligns.
            let is_aligned =
                shape == Shape::AlignedSize && registers.get(1..) == Some(arguments(Shape::Size));
            let here = std::iter::once(&shape).chain(moved).find(reads).copied();
            here.or(is_aligned.then_some(Shape::Size))
        }
        // glibc's and musl's `reallocarray`, on their way to `realloc`.
        Arguments::Multiplied(registers) => {
            (shape == Shape::ResizeArray && registers[..] == [Register::RDI]).then_some(Shape::ResizeProduct)
        }
    }
}

/// Whether something is written, or may be.
pub(super) fn is_write(access: OpAccess) -> bool {
    !matches!(
        access,
        OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
    )
}

/// The first byte of an instruction of a function's code.
fn first_byte(instruction: &Instruction, code: &[u8]) -> Option<u8> {
    code.get(usize::try_from(instruction.ip()).ok()?).copied()
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

/// Whether the kernel emulates an instruction instead of single-stepping it: `push` of a register without a prefix or
/// with `REX.B`, one-byte `nop`, near jumps and calls without the prefix for 16 bits (`arch/x86/kernel/uprobes.c`,
/// `branch_setup_xol_ops`, `push_setup_xol_ops`). Recent kernels emulate longer `nop`s too.
/// `first` is its first byte.
pub(super) fn is_emulated(instruction: &Instruction, first: Option<u8>) -> bool {
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

/// The prefix that makes `push` reach the registers `r8` to `r15`.
const REX_B: u8 = 0x41;

/// The prefix for operands of 16 bits.
const OPERAND_SIZE: u8 = 0x66;

#[cfg(test)]
mod distribution;
#[cfg(test)]
mod tests;
