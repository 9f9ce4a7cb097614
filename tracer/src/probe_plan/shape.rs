//! The programs of today's kernel side, by the operands that they read.

use tracer_ebpf::{Operand, Operands, ProbeSite, ProbeSpec, Shape, SingleSite};

use super::roles::{CallResult, Roles};

const RAX: Operand = Operand::register(0);
const RCX: Operand = Operand::register(1);
const RDX: Operand = Operand::register(2);
const RSI: Operand = Operand::register(6);
const RDI: Operand = Operand::register(7);
const NO: Operand = Operand::NONE;

/// Size, factor, high half, block, out-pointer.
type Read = (Operand, Operand, Operand, Operand, Operand);

const PROGRAMS: [(Shape, Read); 14] = [
    (Shape::Size, (RDI, NO, NO, NO, NO)),
    (Shape::AlignedSize, (RSI, NO, NO, NO, NO)),
    (Shape::CountSize, (RSI, RDI, NO, NO, NO)),
    (Shape::OutPointer, (RDX, NO, NO, NO, RDI)),
    (Shape::Resize, (RSI, NO, NO, RDI, NO)),
    (Shape::ResizeArray, (RDX, RSI, NO, RDI, NO)),
    (Shape::HeapSize, (RSI, NO, NO, NO, NO)),
    (Shape::HeapCountSize, (RDX, RSI, NO, NO, NO)),
    (Shape::HeapResize, (RDX, NO, NO, RSI, NO)),
    (Shape::HeapResizeArray, (RCX, RDX, NO, RSI, NO)),
    (Shape::Factors, (RSI, RAX, NO, NO, NO)),
    (Shape::HeapFactors, (RDX, RAX, NO, NO, NO)),
    (Shape::ResizeProduct, (RAX, NO, RDX, RDI, NO)),
    (Shape::Free, (NO, NO, NO, RDI, NO)),
];

/// The program that reads these operands.
pub(super) fn shape(roles: &Roles, at: &Operands) -> Option<Shape> {
    let wanted = (at.size, at.factor, at.high, at.block, at.out);
    let is_aligned = |shape: &Shape| *shape != Shape::AlignedSize || at.alignment == RDI;
    let (shape, _) = PROGRAMS
        .iter()
        .find(|(shape, read)| *read == wanted && is_aligned(shape))?;
    Some(match (shape, roles.result()) {
        (Shape::Resize, CallResult::Size) => Shape::ResizeInPlace,
        (shape, _) => *shape,
    })
}

/// The description of a probe at a function's entry.
pub(super) fn site(spec: &ProbeSpec) -> ProbeSite {
    ProbeSite {
        function: spec.function,
        callers_len: spec.callers_len,
        tail: spec.flags & 127,
        pushed_bytes: spec.operands.cfa_bytes.saturating_sub(8),
        callers: spec.callers,
    }
}

/// The description of an inner site.
pub(super) fn single(spec: &ProbeSpec) -> SingleSite {
    SingleSite {
        distance: spec.caller_distance,
        depth_bytes: spec.operands.cfa_bytes,
        size: spec.operands.size.bits(),
        count: spec.operands.factor.bits(),
        high: spec.operands.high.bits(),
        result: spec.operands.result.bits(),
        frame_pointer: spec.operands.frame_pointer.bits(),
    }
}
