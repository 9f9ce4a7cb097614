//! The operands in a file's code that are distances of 32 bits: those of calls, jumps, and
//! instructions that take an address.

/// The bytes of a distance.
const DISTANCE_BYTES: u64 = 4;

/// The instruction that has a distance as its operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::probe_plan) enum OperandKind {
    /// `call rel32`.
    Call,
    /// `jmp rel32`.
    Jump,
    /// `jcc rel32`.
    ConditionalJump,
    /// `lea disp32(%rip)`.
    Address,
}

/// A distance from the end of its instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::probe_plan) struct RelativeOperand {
    /// The address of the distance itself, behind the opcode.
    pub(in crate::probe_plan) address: u64,
    /// The address that it leads to.
    pub(in crate::probe_plan) target: u64,
    pub(in crate::probe_plan) kind: OperandKind,
}

impl RelativeOperand {
    /// The address of the instruction if it is a call or a jump. A prefix is left out.
    pub(in crate::probe_plan) const fn branch(&self) -> Option<u64> {
        match self.kind {
            OperandKind::Call | OperandKind::Jump => Some(self.address - 1),
            OperandKind::ConditionalJump => Some(self.address - 2),
            OperandKind::Address => None,
        }
    }

    /// The address of the next instruction.
    pub(in crate::probe_plan) const fn next(&self) -> u64 {
        self.address.wrapping_add(DISTANCE_BYTES)
    }
}

/// Calls `visit` with each operand in code that begins at `start`. They are looked for at every
/// byte, since nothing tells where instructions begin, so that some only look like one.
pub(in crate::probe_plan) fn visit(start: u64, code: &[u8], mut visit: impl FnMut(RelativeOperand)) {
    let mut take = |at: usize, kind| {
        let Some(distance) = code.get(at..).and_then(<[u8]>::first_chunk) else {
            return;
        };
        let address = start.wrapping_add(at as u64);
        let next = address.wrapping_add(DISTANCE_BYTES);
        let target = next.wrapping_add_signed(i32::from_le_bytes(*distance).into());
        visit(RelativeOperand {
            address,
            target,
            kind,
        });
    };
    // The opcodes, and what an address is relative to (Intel SDM, volume 2).
    for at in memchr::memchr3_iter(0xe8, 0xe9, 0x0f, code) {
        match (code[at], code.get(at + 1)) {
            (0xe8, _) => take(at + 1, OperandKind::Call),
            (0xe9, _) => take(at + 1, OperandKind::Jump),
            (_, Some(0x80..=0x8f)) => take(at + 2, OperandKind::ConditionalJump),
            _ => {}
        }
    }
    for at in memchr::memchr_iter(0x8d, code) {
        // `mod` 0, `rm` 5: relative to the next instruction, into any register.
        if code.get(at + 1).is_some_and(|register| register & 0o307 == 0o005) {
            take(at + 2, OperandKind::Address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_of_every_kind() {
        let code = [
            [0x90, 0x90, 0xe8, 1, 0, 0, 0].as_slice(),
            &[0xe9, 0xf9, 0xff, 0xff, 0xff],
            &[0x0f, 0x84, 2, 0, 0, 0],
            &[0x48, 0x8d, 0x3d, 3, 0, 0, 0],
            &[0x84, 0, 0, 0, 0, 0x3d, 0, 0],
            &[0xe8, 0, 0, 0],
        ];
        let mut found = Vec::new();
        visit(0x1000, &code.concat(), |operand| found.push(operand));
        let expected = [
            (0x1003, 0x1008, OperandKind::Call, Some(0x1002)),
            (0x1008, 0x1005, OperandKind::Jump, Some(0x1007)),
            (0x100e, 0x1014, OperandKind::ConditionalJump, Some(0x100c)),
            (0x1015, 0x101c, OperandKind::Address, None),
        ];
        let seen = found
            .iter()
            .map(|operand| (operand.address, operand.target, operand.kind, operand.branch()));
        assert!(seen.eq(expected), "{found:x?}");
        assert_eq!(found[0].next(), 0x1007);
    }
}
