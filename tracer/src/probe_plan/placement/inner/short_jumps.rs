//! Short jumps into a function from the code beside it.
//!
//! The function's code is that to which its jumps lead. The code between and around it is another
//! function's, or its own to which no jump leads: landing pads of exceptions, to which the unwinder
//! goes by a table. Long jumps are found at any byte ([`MachineCode::references`]). Of short ones
//! there would be too many that are none, so that code is decoded here, as far as they reach.

use iced_x86::OpKind;

use crate::probe_plan::dataflow::{Graph, MachineCode};

/// The reach of a short jump, with the instruction itself.
const REACH: u64 = 128 + 2;

/// The bytes that are decoded before the code that matters, since nothing tells where its
/// instructions begin: wrong beginnings soon meet the right ones.
const APPROACH: u64 = 64;

/// The number of beginnings that are tried there; the longest instruction has 15 bytes.
const BEGINNINGS: u64 = 16;

/// A jump from beside the code to an instruction of it but its entry: (that instruction, the jump).
pub(super) fn find(code: &MachineCode, graph: &Graph, entry: u64) -> Option<(u64, u64)> {
    let is_inside = |address: u64| {
        let before = graph.range(..=address).next_back();
        before.is_some_and(|(_, node)| address < node.instruction.next_ip())
    };
    let search = |begin: u64, end: u64| {
        let mut address = begin;
        while address < end && !graph.contains_key(&address) {
            let Some(instruction) = code.instruction(address) else {
                // What is no instruction is no jump.
                address += 1;
                continue;
            };
            let target = instruction.near_branch_target();
            let is_jump = instruction.op0_kind() == OpKind::NearBranch64 && !instruction.is_call_near();
            if is_jump && target != entry && graph.contains_key(&target) {
                return Some((target, address));
            }
            address = instruction.next_ip();
        }
        None
    };
    graph.iter().find_map(|(start, node)| {
        let end = node.instruction.next_ip();
        let behind = (!is_inside(end)).then(|| search(end, end + REACH)).flatten();
        let last = graph.range(..start).next_back();
        let last_end = last.map_or(0, |(_, node)| node.instruction.next_ip());
        let far = start.saturating_sub(REACH + APPROACH).max(last_end);
        let before = || (far..far + BEGINNINGS).find_map(|begin| search(begin, *start));
        behind.or_else(|| (last_end < *start).then(before).flatten())
    })
}
