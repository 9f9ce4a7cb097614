//! Translation of a row of call frame information to a [`Rule`].

use gimli::{
    CfaRule, EndianSlice, LittleEndian, Register, RegisterRule, UnwindContextStorage, UnwindExpression,
    UnwindSection, UnwindTableRow, X86_64,
};

use crate::unwind::expression::{Base, CfaValue, evaluate};
use crate::unwind::layout::{Rule, UCONTEXT_RIP, cfa, rbp};

type Slice<'a> = EndianSlice<'a, LittleEndian>;

const CFA: CfaValue = CfaValue::Address {
    base: Base::Cfa,
    offset: 0,
};

/// Storage of gimli's evaluator: remembered states nest deeper than its default of 4 in
/// hand-written code, and no function saves 64 registers.
#[derive(Debug)]
pub(crate) struct Storage;

impl UnwindContextStorage<usize> for Storage {
    type Rules = [(Register, RegisterRule<usize>); 64];
    type Stack = Box<[UnwindTableRow<usize, Self>; 8]>;
}

/// A row as gimli has it.
pub(crate) type Row = UnwindTableRow<usize, Storage>;

/// The reasons for which a row is [`Rule::UNSUPPORTED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Unsupported {
    /// The frame address counts from a register other than `rsp` and `rbp`.
    CfaRegister,
    /// The frame address is an expression of another kind than those known.
    CfaExpression,
    /// An offset does not fit 32 bits.
    Offset,
    /// The return address is in a register.
    ReturnRegister,
    /// The return address is elsewhere, or nothing is said of it.
    ReturnAddress,
    /// The caller's stack pointer is not the frame address.
    StackPointer,
    /// The instructions of the function's entry are malformed.
    Malformed,
}

impl Unsupported {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::CfaRegister,
        Self::CfaExpression,
        Self::Offset,
        Self::ReturnRegister,
        Self::ReturnAddress,
        Self::StackPointer,
        Self::Malformed,
    ];

    /// Returns the name in reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::CfaRegister => "frame address from another register",
            Self::CfaExpression => "frame address by an unknown expression",
            Self::Offset => "offset over 32 bits",
            Self::ReturnRegister => "return address in a register",
            Self::ReturnAddress => "return address elsewhere",
            Self::StackPointer => "stack pointer elsewhere",
            Self::Malformed => "malformed instructions",
        }
    }
}

/// The rule of a row. `return_column` is the CIE's return address register. What is unspecified
/// keeps its value from frame to frame (x86-64 psABI section 3.7, callee-saved registers); that is
/// another thing than undefined.
pub(crate) fn classify<'a, S: UnwindSection<Slice<'a>>>(
    row: &Row,
    return_column: gimli::Register,
    section: &S,
) -> Result<Rule, Unsupported> {
    let expression =
        |expression: &UnwindExpression<usize>, initial| evaluate(expression.get(section).ok()?, initial);
    match row.register(return_column) {
        Some(RegisterRule::Offset(-8)) => {}
        Some(RegisterRule::Undefined) => return Ok(Rule::END),
        Some(RegisterRule::Register(_)) => return Err(Unsupported::ReturnRegister),
        Some(RegisterRule::Expression(at))
            if expression(&at, Some(CFA))
                == Some(CfaValue::Address {
                    base: Base::Cfa,
                    offset: -8,
                }) => {}
        _ => return Err(Unsupported::ReturnAddress),
    }
    match row.register(X86_64::RSP) {
        None | Some(RegisterRule::ValOffset(0)) => {}
        Some(RegisterRule::ValExpression(value)) if expression(&value, Some(CFA)) == Some(CFA) => {}
        Some(_) => return Err(Unsupported::StackPointer),
    }
    let frame_address = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => CfaValue::Address {
            base: Base::Register(*register),
            offset: *offset,
        },
        CfaRule::Expression(address) => expression(address, None).ok_or(Unsupported::CfaExpression)?,
    };
    let rule = frame_rule(frame_address)?;
    let (rbp_kind, rbp_offset) = match row.register(X86_64::RBP) {
        None | Some(RegisterRule::SameValue) => (rbp::SAME, 0),
        Some(RegisterRule::Offset(offset)) => saved_rbp(
            Some(CfaValue::Address {
                base: Base::Cfa,
                offset,
            }),
            frame_address,
        ),
        Some(RegisterRule::Expression(at)) => saved_rbp(expression(&at, Some(CFA)), frame_address),
        Some(_) => (rbp::LOST, 0),
    };
    Ok(Rule {
        rbp_kind,
        rbp_offset,
        ..rule
    })
}

/// Returns true if a row says that the interrupted code's address is in the `ucontext_t` at `rsp`,
/// as a signal trampoline's does.
pub(crate) fn is_in_ucontext<'a, S: UnwindSection<Slice<'a>>>(
    row: &Row,
    return_column: gimli::Register,
    section: &S,
) -> bool {
    let Some(RegisterRule::Expression(at)) = row.register(return_column) else {
        return false;
    };
    let Some(CfaValue::Address {
        base: Base::Register(X86_64::RSP),
        offset,
    }) = at.get(section).ok().and_then(|at| evaluate(at, Some(CFA)))
    else {
        return false;
    };
    u64::try_from(offset) == Ok(UCONTEXT_RIP)
}

fn frame_rule(frame_address: CfaValue) -> Result<Rule, Unsupported> {
    let narrow = |offset: i64| i32::try_from(offset).ok().ok_or(Unsupported::Offset);
    let kind = |base, of_sp, of_bp| match base {
        Base::Register(X86_64::RSP) => Ok(of_sp),
        Base::Register(X86_64::RBP) => Ok(of_bp),
        _ => Err(Unsupported::CfaRegister),
    };
    let (cfa_kind, offset, add) = match frame_address {
        CfaValue::Address { base, offset } => (kind(base, cfa::SP, cfa::BP)?, offset, 0),
        CfaValue::Memory { base, offset, add } => (kind(base, cfa::DEREF_SP, cfa::DEREF_BP)?, offset, add),
        CfaValue::Linkage {
            base: Base::Register(X86_64::RSP),
            offset,
            threshold: threshold @ 0..=15,
        } => (cfa::PLT, offset, threshold),
        _ => return Err(Unsupported::CfaExpression),
    };
    Ok(Rule {
        cfa_offset: narrow(offset)?,
        cfa_add: narrow(add)?,
        ..Rule::of_kind(cfa_kind)
    })
}

/// Returns the place that `rbp` was saved at, counted from the frame address if the two have the
/// same base.
fn saved_rbp(at: Option<CfaValue>, frame_address: CfaValue) -> (u8, i32) {
    let place = match (at, frame_address) {
        (
            Some(CfaValue::Address {
                base: Base::Cfa,
                offset,
            }),
            _,
        ) => Some((rbp::AT_CFA, offset)),
        (
            Some(CfaValue::Address { base, offset }),
            CfaValue::Address {
                base: cfa_base,
                offset: cfa_offset,
            },
        ) if base == cfa_base => offset.checked_sub(cfa_offset).map(|offset| (rbp::AT_CFA, offset)),
        (
            Some(CfaValue::Address {
                base: Base::Register(X86_64::RBP),
                offset,
            }),
            _,
        ) => Some((rbp::AT_RBP, offset)),
        _ => None,
    };
    let narrow = place.and_then(|(kind, offset)| Some((kind, i32::try_from(offset).ok()?)));
    narrow.unwrap_or((rbp::LOST, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSP: Base = Base::Register(X86_64::RSP);
    const RBP: Base = Base::Register(X86_64::RBP);

    #[test]
    fn frame_addresses() {
        let rule = |value| frame_rule(value);
        let far = CfaValue::Address {
            base: RSP,
            offset: 70_000,
        };
        assert_eq!(
            rule(far),
            Ok(Rule {
                cfa_offset: 70_000,
                ..Rule::of_kind(cfa::SP)
            })
        );
        let drap = CfaValue::Memory {
            base: RBP,
            offset: -8,
            add: 0,
        };
        assert_eq!(
            rule(drap),
            Ok(Rule {
                cfa_offset: -8,
                ..Rule::of_kind(cfa::DEREF_BP)
            })
        );
        let plt = CfaValue::Linkage {
            base: RSP,
            offset: 8,
            threshold: 10,
        };
        assert_eq!(
            rule(plt),
            Ok(Rule {
                cfa_offset: 8,
                cfa_add: 10,
                ..Rule::of_kind(cfa::PLT)
            })
        );
        let too_far = CfaValue::Address {
            base: RSP,
            offset: 1 << 31,
        };
        assert_eq!(rule(too_far), Err(Unsupported::Offset));
        let r10 = CfaValue::Address {
            base: Base::Register(X86_64::R10),
            offset: 0,
        };
        assert_eq!(rule(r10), Err(Unsupported::CfaRegister));
        assert_eq!(rule(CfaValue::Constant(0)), Err(Unsupported::CfaExpression));
    }

    #[test]
    fn saved_frame_pointers() {
        let at = |base, offset| Some(CfaValue::Address { base, offset });
        let frame = CfaValue::Address {
            base: RBP,
            offset: 16,
        };
        assert_eq!(saved_rbp(at(Base::Cfa, -16), frame), (rbp::AT_CFA, -16));
        assert_eq!(
            saved_rbp(at(RBP, 0), frame),
            (rbp::AT_CFA, -16),
            "the same place, counted otherwise"
        );
        let realigned = CfaValue::Memory {
            base: RBP,
            offset: -8,
            add: 0,
        };
        assert_eq!(saved_rbp(at(RBP, 0), realigned), (rbp::AT_RBP, 0));
        assert_eq!(saved_rbp(at(RSP, 0), realigned), (rbp::LOST, 0));
        assert_eq!(saved_rbp(at(Base::Cfa, 1 << 40), frame), (rbp::LOST, 0));
        assert_eq!(saved_rbp(None, frame), (rbp::LOST, 0));
    }
}
