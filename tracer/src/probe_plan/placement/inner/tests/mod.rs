//! Small functions, put together by hand, and what the planner says of them; then the libraries of
//! this machine.

#[expect(clippy::print_stdout, reason = "what was found is for the reader of the test")]
mod libraries;
mod proofs;
mod refusals;

use std::collections::HashSet;

use tracer_ebpf::Operand;

use super::{InnerSite, Kind, plan};
use crate::probe_plan::dataflow::{MachineCode as Image, Obstacle};
use crate::probe_plan::roles::Roles;

/// The address of the code. Calls go to `CALLEE`, which returns.
const CODE: u64 = 0x1000;
const CALLEE: u64 = 0x2000;

// push %rbx; mov %rdi,%rbx
const KEEP_SIZE: &[u8] = &[0x53, 0x48, 0x89, 0xfb];
const POP_RBX: &[u8] = &[0x5b];
const RET: &[u8] = &[0xc3];
// xor %eax,%eax
const FAIL: &[u8] = &[0x31, 0xc0];
const TEST_RAX: &[u8] = &[0x48, 0x85, 0xc0];
const TEST_RDI: &[u8] = &[0x48, 0x85, 0xff];
// jne +0: emulated, and both ways are the same.
const PLACE: &[u8] = &[0x75, 0x00];
const UD2: &[u8] = &[0x0f, 0x0b];

/// A piece of code, or a call of another function.
enum Piece {
    MachineCode(&'static [u8]),
    Call(u64),
    Jump(u64),
}

use Piece::{Call, Jump, MachineCode};

/// Puts code together, and with it a function at `CALLEE` that returns.
fn image(parts: &[Piece]) -> Image {
    let mut code = Vec::new();
    for part in parts {
        let (opcode, target) = match part {
            MachineCode(bytes) => {
                code.extend_from_slice(bytes);
                continue;
            }
            Call(target) => (0xe8, target),
            Jump(target) => (0xe9, target),
        };
        let next = CODE + code.len() as u64 + 5;
        let distance = i32::try_from(target.wrapping_sub(next).cast_signed()).expect("near");
        code.push(opcode);
        code.extend_from_slice(&distance.to_le_bytes());
    }
    code.resize(usize::try_from(CALLEE - CODE).expect("small"), 0xcc);
    code.extend_from_slice(RET);
    Image::of_bytes(CODE, &code)
}

fn planned(parts: &[Piece]) -> Result<Vec<InnerSite>, Obstacle> {
    plan(&image(parts), CODE, &Roles::SIZE, &HashSet::new())
}

/// The sites: (offset, kind, where the size is, where the result is).
fn sites(parts: &[Piece]) -> Vec<(u64, Kind, Operand, Operand)> {
    let found = planned(parts).expect("a plan");
    found
        .iter()
        .map(|found| {
            (
                found.address - CODE,
                found.kind,
                found.operands.size,
                found.operands.result,
            )
        })
        .collect()
}

const RAX: Operand = Operand::register(0);
const RBX: Operand = Operand::register(3);
const RDX: Operand = Operand::register(2);
const RSI: Operand = Operand::register(6);
const RDI: Operand = Operand::register(7);
