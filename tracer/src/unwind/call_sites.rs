//! Pruning of rows that an allocation tracer can do without.
//!
//! All that is looked up on a stack is return addresses, less one: an address inside a `call`; and
//! where a system call was made, inside a `syscall`. A row in whose code neither can be is never
//! found, so it is dropped, and the row before it reaches over its code.

use crate::unwind::Code;
use crate::unwind::cfi::RuleStart;
use crate::unwind::layout::{Rule, cfa};

/// Drops the rows that no return address can find. Kept whatever their code is: the ends of stacks,
/// gaps (else a function's rule would reach over code that it says nothing of), linkage tables and
/// signal trampolines.
pub(crate) fn prune(rows: &[RuleStart], end: u32, rules: &[Rule], code: &Code<'_>) -> Vec<RuleStart> {
    let mut kept: Vec<RuleStart> = Vec::with_capacity(rows.len() / 4);
    let ends = rows.iter().skip(1).map(|row| row.pc).chain([end]);
    for (row, end) in rows.iter().zip(ends) {
        if kept.last().is_some_and(|last| last.rule == row.rule) {
            continue;
        }
        let kind = rules
            .get(row.rule as usize)
            .map_or(cfa::UNSUPPORTED, |rule| rule.cfa_kind);
        let is_mark = matches!(kind, cfa::NO_INFO | cfa::END | cfa::PLT | cfa::SIGNAL);
        if is_mark || has_call_site(code, row.pc, end) {
            kept.push(*row);
        }
    }
    kept
}

/// Returns true if code between two addresses can hold a call. Conservative: bytes are not decoded,
/// so what is an operand may count, but no `call` or `syscall` is overlooked (Intel SDM volume 2:
/// `E8 cd`, `FF /2`, `FF /3`, `0F 05`).
fn has_call_site(code: &Code<'_>, from: u32, to: u32) -> bool {
    code.pieces(from, to).any(|(start, bytes)| {
        bytes.iter().enumerate().any(|(at, byte)| match byte {
            0xe8 => is_near_call(code, start, bytes, at),
            0xff => bytes
                .get(at + 1)
                .is_some_and(|modrm| matches!((modrm >> 3) & 7, 2 | 3)),
            0x0f => bytes.get(at + 1) == Some(&0x05),
            _ => false,
        })
    })
}

/// A near call goes to code of the same file: nothing else is at a distance known to its linker.
fn is_near_call(code: &Code<'_>, start: u32, bytes: &[u8], at: usize) -> bool {
    let distance = bytes.get(at + 1..).and_then(|rest| rest.first_chunk());
    let Some(distance) = distance.map(|distance| i32::from_le_bytes(*distance)) else {
        return false;
    };
    // Pieces lie in 32 bits, so the end of an instruction does or the target is not code.
    let end = u32::try_from(at + 5)
        .ok()
        .and_then(|offset| start.checked_add(offset));
    end.and_then(|end| end.checked_add_signed(distance))
        .is_some_and(|target| code.contains(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(bytes: &[u8]) -> bool {
        let code = Code::new([(0x1000, bytes)]).unwrap();
        has_call_site(&code, 0, code.end())
    }

    #[test]
    fn calls_and_system_calls_count() {
        assert!(has(&[0x90, 0xe8, 0xfb, 0xff, 0xff, 0xff]), "call to itself");
        assert!(has(&[0xff, 0xd0]), "call *%rax");
        assert!(has(&[0x41, 0xff, 0x54, 0x24, 0x08]), "call *8(%r12)");
        assert!(has(&[0xff, 0x15, 0, 0, 0, 0]), "call *0(%rip)");
        assert!(has(&[0x0f, 0x05]), "syscall");
    }

    #[test]
    fn operands_mostly_do_not() {
        assert!(!has(&[0xe8, 0, 0, 0, 0x70]), "a call out of the file");
        assert!(!has(&[0x90, 0xe8, 0, 0]), "cut short");
        assert!(!has(&[0xff, 0xff, 0xff, 0xff]), "a negative displacement");
        assert!(!has(&[0xff, 0x25, 0, 0, 0, 0]), "jmp *0(%rip)");
        assert!(!has(&[0x0f, 0x1f, 0x40, 0]), "nop");
    }
}
