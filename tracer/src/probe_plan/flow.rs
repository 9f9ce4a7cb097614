//! What the code of an allocator's functions does with their calls: which functions hand every call on to another one,
//! which may end in a jump to another one, and which calls of a function are an allocator's own work.
//!
//! Code is followed from each function's first instruction, through jumps to code that has no name too. What cannot be
//! followed (a jump to where a register says) is said to be unknown.

use std::collections::{BTreeSet, HashMap, HashSet};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};

use super::elf::Symbols;

/// Instructions of one function that are followed at the most.
const MOST_INSTRUCTIONS: usize = 20_000;

/// How deep calls of helpers are followed.
const MOST_DEPTH: usize = 3;

/// Helpers that are looked at in one file at the most.
const MOST_HELPERS: usize = 4096;

/// The code of a file, with the functions that are traced.
pub(super) struct Code<'a> {
    symbols: &'a Symbols,
    /// The first address of each traced function.
    starts: HashSet<u64>,
    /// The addresses of each traced function.
    ranges: Vec<(u64, u64)>,
}

/// What happens from a function's first instruction on.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Traced functions that it jumps to.
    pub(super) jumps: BTreeSet<u64>,
    /// Traced functions that it calls, with where the calls return to.
    pub(super) calls: Vec<(u64, u64)>,
    /// It returns, or may, without having handed the call on.
    pub(super) returns: bool,
    /// It jumps somewhere through memory or a register.
    pub(super) is_unknown: bool,
    /// Other functions that it calls, and code outside of its own that it jumps to.
    helpers: BTreeSet<u64>,
    /// Its jumps and calls.
    branches: Vec<u64>,
}

/// Where an instruction goes to.
enum Destination {
    Traced(u64),
    Other(u64),
    Unknown,
}

impl<'a> Code<'a> {
    pub(super) fn new(symbols: &'a Symbols, traced: impl Iterator<Item = (u64, u64)>) -> Self {
        let ranges: Vec<(u64, u64)> = traced
            .map(|(address, len)| (address, address.saturating_add(len)))
            .collect();
        Self {
            symbols,
            starts: ranges.iter().map(|range| range.0).collect(),
            ranges,
        }
    }

    /// Follows a function. `hands_on`: a call of one of these ends a path, as a jump to it does.
    pub(super) fn follow(&self, start: u64, hands_on: Option<&HashSet<u64>>) -> Flow {
        let mut flow = Flow::default();
        let own = self.ranges.iter().find(|range| range.0 == start);
        let mut seen = HashSet::new();
        let mut ahead = vec![start];
        while let Some(from) = ahead.pop() {
            let Some(code) = self.code_at(from) else {
                flow.is_unknown = true;
                continue;
            };
            for instruction in Decoder::with_ip(64, code, from, DecoderOptions::NONE) {
                if seen.len() >= MOST_INSTRUCTIONS || instruction.is_invalid() {
                    flow.is_unknown = true;
                    break;
                }
                if !seen.insert(instruction.ip()) {
                    break;
                }
                match instruction.flow_control() {
                    FlowControl::Next => {}
                    FlowControl::ConditionalBranch
                    | FlowControl::UnconditionalBranch
                    | FlowControl::IndirectBranch => {
                        flow.branches.push(instruction.ip());
                        match self.destination(&instruction) {
                            Destination::Traced(target) if target == start => {}
                            Destination::Traced(target) => {
                                flow.jumps.insert(target);
                            }
                            Destination::Other(target) => {
                                if own.is_some_and(|own| target < own.0 || own.1 <= target) {
                                    flow.helpers.insert(target);
                                }
                                ahead.push(target);
                            }
                            Destination::Unknown => flow.is_unknown = true,
                        }
                        if instruction.flow_control() != FlowControl::ConditionalBranch {
                            break;
                        }
                    }
                    FlowControl::Call | FlowControl::IndirectCall => {
                        flow.branches.push(instruction.ip());
                        match self.destination(&instruction) {
                            Destination::Traced(target) => {
                                flow.calls.push((target, instruction.next_ip()));
                                if hands_on.is_some_and(|functions| functions.contains(&target)) {
                                    break;
                                }
                            }
                            Destination::Other(target) => {
                                flow.helpers.insert(target);
                            }
                            Destination::Unknown => {}
                        }
                    }
                    FlowControl::Return => {
                        flow.returns = true;
                        break;
                    }
                    FlowControl::Interrupt | FlowControl::Exception | FlowControl::XbeginXabortXend => break,
                }
                if instruction.mnemonic() == Mnemonic::Hlt {
                    break;
                }
            }
        }
        flow
    }

    /// Calls of traced functions in code that is not theirs, but that they alone use: `mi_heap_realloc` jumps to a function
    /// without a name, which calls `mi_free`. Each with where it returns to.
    pub(super) fn own_calls<'f>(&self, flows: impl Iterator<Item = &'f Flow>) -> Vec<(u64, u64)> {
        let helpers = self.helpers(flows);
        if helpers.values().all(|flow| flow.calls.is_empty()) {
            return Vec::new();
        }
        let used_by = self.users(&helpers);
        let mut branches: HashMap<u64, Vec<u64>> = HashMap::new();
        for (start, flow) in &helpers {
            for branch in &flow.branches {
                branches.entry(*branch).or_default().push(*start);
            }
        }
        // What somebody else uses is somebody else's too, and so is what that one uses.
        let mut own: HashSet<u64> = helpers.keys().copied().collect();
        loop {
            let foreign: Vec<u64> = own
                .iter()
                .copied()
                .filter(|helper| {
                    let users = used_by.get(helper).map_or(&[][..], Vec::as_slice);
                    users.iter().any(|user| {
                        !self.is_traced(*user)
                            && !branches
                                .get(user)
                                .is_some_and(|parts| parts.iter().any(|part| own.contains(part)))
                    })
                })
                .collect();
            if foreign.is_empty() {
                break;
            }
            for helper in foreign {
                own.remove(&helper);
            }
        }
        own.iter()
            .flat_map(|helper| helpers[helper].calls.iter().copied())
            .filter(|(_, next)| !self.is_traced(*next))
            .collect()
    }

    /// Code that the traced functions use, and what that uses.
    fn helpers<'f>(&self, flows: impl Iterator<Item = &'f Flow>) -> HashMap<u64, Flow> {
        let mut helpers: HashMap<u64, Flow> = HashMap::new();
        let mut ahead: BTreeSet<u64> = flows.flat_map(|flow| flow.helpers.iter().copied()).collect();
        for _ in 0..MOST_DEPTH {
            let mut next = BTreeSet::new();
            for helper in ahead {
                if helpers.len() >= MOST_HELPERS || helpers.contains_key(&helper) {
                    continue;
                }
                let flow = self.follow(helper, None);
                next.extend(flow.helpers.iter().copied());
                helpers.insert(helper, flow);
            }
            ahead = next;
        }
        helpers
    }

    /// The jumps and calls in the whole file that lead to helpers: byte by byte, since nothing tells where instructions
    /// begin. What only looks like one makes a helper somebody else's, no more.
    fn users(&self, helpers: &HashMap<u64, Flow>) -> HashMap<u64, Vec<u64>> {
        const CALL: u8 = 0xe8;
        const JUMP: u8 = 0xe9;
        const LEN: usize = 5;
        let mut users: HashMap<u64, Vec<u64>> = HashMap::new();
        for (address, code) in &self.symbols.text {
            for (at, window) in code.windows(LEN).enumerate() {
                let &[opcode, a, b, c, d] = window else { continue };
                // The second byte of a conditional jump; the instruction begins one byte before.
                let is_conditional = opcode & 0xf0 == 0x80 && at > 0 && code[at - 1] == 0x0f;
                if opcode != CALL && opcode != JUMP && !is_conditional {
                    continue;
                }
                let place = address.wrapping_add(at as u64);
                let target = place
                    .wrapping_add(LEN as u64)
                    .wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into());
                if helpers.contains_key(&target) {
                    let user = place - u64::from(is_conditional);
                    users.entry(target).or_default().push(user);
                }
            }
        }
        users
    }

    fn is_traced(&self, address: u64) -> bool {
        self.ranges
            .iter()
            .any(|range| range.0 <= address && address < range.1)
    }

    fn destination(&self, instruction: &Instruction) -> Destination {
        let target = if instruction.op0_kind() == OpKind::NearBranch64 {
            self.behind_stub(instruction.near_branch_target())
        } else if instruction.is_ip_rel_memory_operand() {
            self.symbols
                .slots
                .get(&instruction.ip_rel_memory_address())
                .copied()
        } else {
            None
        };
        match target {
            None => Destination::Unknown,
            Some(target) if self.starts.contains(&target) => Destination::Traced(target),
            Some(target) => Destination::Other(target),
        }
    }

    /// The function behind an entry of the linkage table; of one that leads to another file, nothing.
    fn behind_stub(&self, address: u64) -> Option<u64> {
        if self.starts.contains(&address) {
            return Some(address);
        }
        let Some(code) = self.code_at(address) else {
            return Some(address);
        };
        let mut instructions = Decoder::with_ip(64, code, address, DecoderOptions::NONE).into_iter();
        let mut first = instructions.next()?;
        if first.mnemonic() == Mnemonic::Endbr64 {
            first = instructions.next()?;
        }
        if first.flow_control() == FlowControl::IndirectBranch && first.is_ip_rel_memory_operand() {
            self.symbols.slots.get(&first.ip_rel_memory_address()).copied()
        } else {
            Some(address)
        }
    }

    fn code_at(&self, address: u64) -> Option<&'a [u8]> {
        self.symbols.text.iter().find_map(|(start, bytes)| {
            let at = usize::try_from(address.checked_sub(*start)?).ok()?;
            bytes.get(at..).filter(|rest| !rest.is_empty())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x1000;

    fn symbols(code: &[u8]) -> Symbols {
        Symbols {
            text: vec![(BASE, code.to_vec())],
            ..Symbols::default()
        }
    }

    /// `opcode` with a target.
    fn branch(opcode: u8, at: u64, target: u64) -> Vec<u8> {
        let mut bytes = vec![opcode];
        let distance = i32::try_from(target.wrapping_sub(BASE + at + 5).cast_signed()).unwrap();
        bytes.extend(distance.to_le_bytes());
        bytes
    }

    /// A function at each multiple of 16.
    fn functions(bodies: &[Vec<u8>]) -> Vec<u8> {
        let mut code = vec![0xcc; 16 * bodies.len()];
        for (index, body) in bodies.iter().enumerate() {
            code[16 * index..][..body.len()].copy_from_slice(body);
        }
        code
    }

    const RET: u8 = 0xc3;

    #[test]
    fn function_that_hands_every_call_on() {
        // 0: test rdi, rdi; ret. 1: jmp 0. 2: call 0; ret. 3: test rdi, rdi; je +5; jmp 0; ret.
        let mut calls = branch(0xe8, 32, BASE);
        calls.push(RET);
        let mut some = vec![0x48, 0x85, 0xff, 0x74, 0x05];
        some.extend(branch(0xe9, 53, BASE));
        some.push(RET);
        let code = functions(&[vec![0x48, 0x85, 0xff, RET], branch(0xe9, 16, BASE), calls, some]);
        let symbols = symbols(&code);
        let code = Code::new(&symbols, (0..4).map(|index| (BASE + 16 * index, 16)));
        let to = HashSet::from([BASE]);
        let follow = |index: u64| code.follow(BASE + 16 * index, Some(&to));
        assert!(follow(0).returns && follow(0).jumps.is_empty());
        assert!(!follow(1).returns && follow(1).jumps.contains(&BASE));
        assert!(!follow(2).returns && follow(2).calls == [(BASE, BASE + 37)]);
        assert!(follow(3).returns && follow(3).jumps.contains(&BASE));
    }

    #[test]
    fn calls_of_code_that_only_allocators_use_are_their_own() {
        // 0: ret (free). 1: jmp 2 (realloc). 2, without a name: call 0; ret. 3, somebody else's.
        let mut helper = branch(0xe8, 32, BASE);
        helper.push(RET);
        let program = |other: Vec<u8>| {
            let code = functions(&[vec![RET], branch(0xe9, 16, BASE + 32), helper.clone(), other]);
            let symbols = symbols(&code);
            let code = Code::new(&symbols, [(BASE, 16), (BASE + 16, 16)].into_iter());
            let flows = [code.follow(BASE, None), code.follow(BASE + 16, None)];
            code.own_calls(flows.iter())
        };
        assert_eq!(program(vec![RET]), [(BASE, BASE + 37)]);
        assert_eq!(program(branch(0xe8, 48, BASE + 32)), [], "called by others too");
    }

    #[test]
    fn linkage_tables_are_seen_through() {
        // 0: ret. 1: jmp [rip + 0] to the slot behind it. 2: jmp 1.
        let stub = vec![0xff, 0x25, 0, 0, 0, 0];
        let code = functions(&[vec![RET], stub, branch(0xe9, 32, BASE + 16)]);
        let mut symbols = symbols(&code);
        symbols.slots.insert(BASE + 22, BASE);
        let code = Code::new(&symbols, [(BASE, 16), (BASE + 32, 16)].into_iter());
        assert!(code.follow(BASE + 32, None).jumps.contains(&BASE));
    }
}
