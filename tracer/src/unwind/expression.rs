//! DWARF expressions of call frame information, as far as a [`Rule`](super::layout::Rule) can
//! express them.
//!
//! An expression (DWARF 5 section 2.5) is run over symbols instead of numbers: a base plus a
//! constant, what is in memory there plus a constant, and the steps on the way to a linkage table's
//! rule.

use gimli::{EndianSlice, Expression, LittleEndian, Operation, Register, X86_64};

/// The base of a symbolic address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    /// The canonical frame address, which is on the stack before the expression of a register's
    /// rule begins.
    Cfa,
    /// A register's value in the frame.
    Register(Register),
}

/// The value of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CfaValue {
    /// A number.
    Constant(i64),
    /// `base + offset`.
    Address { base: Base, offset: i64 },
    /// `*(base + offset) + add`.
    Memory { base: Base, offset: i64, add: i64 },
    /// `base + offset + (8 if (pc & 15) >= threshold)`: what linkers write for `.plt`
    /// (`elf_x86_64_eh_frame_plt` in binutils' `bfd/elf64-x86-64.c`, `plt_eh_frame_fde` in gold):
    /// 11 in the classic table, 10 and 5 in those with IBT and BND prefixes. Entries of `.plt.sec`
    /// and `.plt.got` push nothing and need no expression.
    Linkage { base: Base, offset: i64, threshold: i64 },
    /// `pc & 15`.
    EntryOffset,
    /// `(pc & 15) >= threshold`: 0 or 1.
    IsPushed { threshold: i64 },
    /// The same, times 8.
    Pushed { threshold: i64 },
}

/// No expression that can be expressed is longer: a linkage table's has 9 operations.
const MAX_OPERATIONS: usize = 16;

const ENCODING: gimli::Encoding = gimli::Encoding {
    format: gimli::Format::Dwarf32,
    version: 4,
    address_size: 8,
};

/// Runs an expression with `initial` on the stack; `None` where the result is not one of
/// [`CfaValue`].
pub(crate) fn evaluate(
    expression: Expression<EndianSlice<'_, LittleEndian>>,
    initial: Option<CfaValue>,
) -> Option<CfaValue> {
    let mut operations = expression.operations(ENCODING);
    let mut stack: Vec<CfaValue> = Vec::from_iter(initial);
    for _ in 0..MAX_OPERATIONS {
        let Some(operation) = operations.next().ok()? else {
            return stack.pop();
        };
        let value = match operation {
            Operation::RegisterOffset { register, offset, .. } => CfaValue::Address {
                base: Base::Register(register),
                offset,
            },
            Operation::CallFrameCFA => CfaValue::Address {
                base: Base::Cfa,
                offset: 0,
            },
            Operation::UnsignedConstant { value } => CfaValue::Constant(i64::try_from(value).ok()?),
            Operation::SignedConstant { value } => CfaValue::Constant(value),
            Operation::PlusConstant { value } => {
                add(stack.pop()?, CfaValue::Constant(i64::try_from(value).ok()?))?
            }
            Operation::Plus => add(stack.pop()?, stack.pop()?)?,
            Operation::Minus => {
                let CfaValue::Constant(value) = stack.pop()? else {
                    return None;
                };
                add(stack.pop()?, CfaValue::Constant(value.checked_neg()?))?
            }
            Operation::Deref {
                size: 8,
                space: false,
                ..
            } => match stack.pop()? {
                CfaValue::Address { base, offset } => CfaValue::Memory { base, offset, add: 0 },
                _ => return None,
            },
            Operation::And => match (stack.pop()?, stack.pop()?) {
                (
                    CfaValue::Constant(15),
                    CfaValue::Address {
                        base: Base::Register(X86_64::RA),
                        offset: 0,
                    },
                ) => CfaValue::EntryOffset,
                _ => return None,
            },
            Operation::Ge => match (stack.pop()?, stack.pop()?) {
                (CfaValue::Constant(threshold), CfaValue::EntryOffset) => CfaValue::IsPushed { threshold },
                _ => return None,
            },
            Operation::Shl => match (stack.pop()?, stack.pop()?) {
                (CfaValue::Constant(3), CfaValue::IsPushed { threshold }) => CfaValue::Pushed { threshold },
                _ => return None,
            },
            Operation::Nop => continue,
            _ => return None,
        };
        stack.push(value);
    }
    None
}

fn add(left: CfaValue, right: CfaValue) -> Option<CfaValue> {
    Some(match (left, right) {
        (CfaValue::Constant(a), CfaValue::Constant(b)) => CfaValue::Constant(a.checked_add(b)?),
        (CfaValue::Constant(more), CfaValue::Address { base, offset })
        | (CfaValue::Address { base, offset }, CfaValue::Constant(more)) => CfaValue::Address {
            base,
            offset: offset.checked_add(more)?,
        },
        (CfaValue::Constant(more), CfaValue::Memory { base, offset, add })
        | (CfaValue::Memory { base, offset, add }, CfaValue::Constant(more)) => CfaValue::Memory {
            base,
            offset,
            add: add.checked_add(more)?,
        },
        (CfaValue::Pushed { threshold }, CfaValue::Address { base, offset })
        | (CfaValue::Address { base, offset }, CfaValue::Pushed { threshold }) => CfaValue::Linkage {
            base,
            offset,
            threshold,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSP: Base = Base::Register(X86_64::RSP);
    const RBP: Base = Base::Register(X86_64::RBP);

    fn run(bytes: &[u8], initial: Option<CfaValue>) -> Option<CfaValue> {
        evaluate(Expression(EndianSlice::new(bytes, LittleEndian)), initial)
    }

    #[test]
    fn linkage_tables() {
        // breg7 8; breg16 0; lit15; and; lit11; ge; lit3; shl; plus
        let mut bytes = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
        assert_eq!(
            run(&bytes, None),
            Some(CfaValue::Linkage {
                base: RSP,
                offset: 8,
                threshold: 11
            })
        );
        bytes[6] = 0x3a;
        assert_eq!(
            run(&bytes, None),
            Some(CfaValue::Linkage {
                base: RSP,
                offset: 8,
                threshold: 10
            })
        );
        bytes[8] = 0x32;
        assert_eq!(run(&bytes, None), None, "times 4 is no push");
    }

    #[test]
    fn realigned_stacks() {
        // breg6 -8; deref, and with plus_uconst 8, lit8 minus
        assert_eq!(
            run(&[0x76, 0x78, 0x06], None),
            Some(CfaValue::Memory {
                base: RBP,
                offset: -8,
                add: 0
            })
        );
        let plus = [0x77, 0x90, 0x02, 0x06, 0x23, 8];
        assert_eq!(
            run(&plus, None),
            Some(CfaValue::Memory {
                base: RSP,
                offset: 272,
                add: 8
            })
        );
        let minus = [0x77, 16, 0x06, 0x38, 0x1c];
        assert_eq!(
            run(&minus, None),
            Some(CfaValue::Memory {
                base: RSP,
                offset: 16,
                add: -8
            })
        );
    }

    #[test]
    fn register_rules_begin_with_the_frame_address() {
        let cfa = CfaValue::Address {
            base: Base::Cfa,
            offset: 0,
        };
        assert_eq!(
            run(&[0x38, 0x1c], Some(cfa)),
            Some(CfaValue::Address {
                base: Base::Cfa,
                offset: -8
            })
        );
        assert_eq!(
            run(&[0x76, 0], Some(cfa)),
            Some(CfaValue::Address { base: RBP, offset: 0 })
        );
    }

    #[test]
    fn what_cannot_be_expressed_is_refused() {
        assert_eq!(run(&[], None), None);
        assert_eq!(run(&[0x06], None), None, "nothing to dereference");
        assert_eq!(run(&[0x77, 0, 0x06, 0x06], None), None, "two dereferences");
        assert_eq!(run(&[0x96; 40], None), None, "too long");
        assert_eq!(run(&[0x77], None), None, "cut short");
    }
}
