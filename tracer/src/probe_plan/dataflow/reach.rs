//! The code that a function reaches, and its ways out of the function.
//!
//! Code is followed from the function's first instruction through all its jumps, to code that has
//! no name too. A jump that cannot be followed (through a register) is said to be unknown.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::rc::Rc;

use super::code::{AddressMap, AddressSet, MachineCode, Transfer};

/// The most instructions of one function that are followed.
const MAX_INSTRUCTIONS: usize = 20_000;

/// The depth to which calls of helpers are followed.
const MAX_DEPTH: usize = 3;

/// The most helpers of one file that are followed.
const MAX_HELPERS: usize = 4096;

/// Code that runs from its first instruction to its last, apart from the functions that it calls.
#[derive(Debug)]
struct CodeBlock {
    instructions: usize,
    /// The address of the last instruction.
    last: u64,
    exit: Exit,
    calls: Vec<CallInBlock>,
}

/// A call in a block.
#[derive(Debug)]
struct CallInBlock {
    address: u64,
    /// The address that the call returns to.
    next: u64,
    target: Option<u64>,
}

/// The way out of a block. Of a target nothing is known where a register or memory holds it.
#[derive(Debug, Clone, Copy)]
enum Exit {
    Jump(Option<u64>),
    /// A conditional jump, or the address of the next instruction.
    Branch(Option<u64>, u64),
    Return,
    /// The program ends here, or goes on in a way that is not followed.
    Stop,
    /// No code is there.
    Invalid,
}

impl CodeBlock {
    fn read(code: &MachineCode, start: u64) -> Self {
        let mut block = Self {
            instructions: 0,
            last: start,
            exit: Exit::Invalid,
            calls: Vec::new(),
        };
        for instruction in code.sweep(start, u64::MAX) {
            if instruction.is_invalid() || block.instructions > MAX_INSTRUCTIONS {
                break;
            }
            block.instructions += 1;
            block.last = instruction.ip();
            block.exit = match code.transfer(&instruction) {
                Transfer::Next => continue,
                Transfer::Call(destination) => {
                    block.calls.push(CallInBlock {
                        address: instruction.ip(),
                        next: instruction.next_ip(),
                        target: destination.address,
                    });
                    continue;
                }
                Transfer::Jump(destination) => Exit::Jump(destination.address),
                Transfer::Branch(destination) => Exit::Branch(destination.address, instruction.next_ip()),
                Transfer::Return => Exit::Return,
                Transfer::Stop | Transfer::Unknown => Exit::Stop,
            };
            break;
        }
        block
    }
}

/// The traced functions of a file's code.
pub(in crate::probe_plan) struct TracedFunctions<'a> {
    code: &'a MachineCode,
    /// The addresses of each: the first one, and the one behind the last.
    ranges: Vec<(u64, u64)>,
    /// The addresses of functions that other files may call, and that are not traced, in order.
    others: Vec<(u64, u64)>,
    starts: AddressSet,
    /// Blocks that were read, by the address of their first instruction: functions share much of
    /// what they reach.
    blocks: RefCell<AddressMap<Rc<CodeBlock>>>,
}

/// The code that is reached from a function's first instruction.
#[derive(Debug, Default)]
pub(in crate::probe_plan) struct ReachedCode {
    /// Traced functions that it jumps to.
    pub(in crate::probe_plan) jumps: BTreeSet<u64>,
    /// Traced functions that it calls, with the addresses that the calls return to.
    pub(in crate::probe_plan) calls: Vec<(u64, u64)>,
    /// It returns, or may, without having passed the call on.
    pub(in crate::probe_plan) returns: bool,
    /// It has a jump through memory or a register.
    pub(in crate::probe_plan) is_unknown: bool,
    /// Other functions that it calls, and code outside of its own that it jumps to.
    helpers: BTreeSet<u64>,
    /// Its jumps and calls.
    branches: Vec<u64>,
}

impl ReachedCode {
    /// Adds the calls of a block, up to one of `ends`, which breaks it.
    fn add_calls(&mut self, block: &CodeBlock, starts: &AddressSet, ends: &AddressSet) -> ControlFlow<()> {
        for call in &block.calls {
            self.branches.push(call.address);
            let Some(target) = call.target else { continue };
            if !starts.contains(&target) {
                self.helpers.insert(target);
                continue;
            }
            self.calls.push((target, call.next));
            if ends.contains(&target) {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

impl<'a> TracedFunctions<'a> {
    /// `traced`: the first address and the length of each function; `exported`: of those that
    /// other files may call, traced or not.
    pub(in crate::probe_plan) fn new(
        code: &'a MachineCode,
        traced: impl Iterator<Item = (u64, u64)>,
        exported: impl Iterator<Item = (u64, u64)>,
    ) -> Self {
        let range = |(address, len): (u64, u64)| (address, address.saturating_add(len));
        let ranges: Vec<(u64, u64)> = traced.map(range).collect();
        let is_traced = |other: &(u64, u64)| {
            ranges
                .iter()
                .any(|own| own.0 == other.0 || (own.0 < other.1 && other.0 < own.1))
        };
        let mut others: Vec<(u64, u64)> = exported.map(range).collect();
        others.sort_unstable();
        others.dedup();
        others.retain(|other| !is_traced(other));
        Self {
            code,
            starts: ranges.iter().map(|range| range.0).collect(),
            ranges,
            others,
            blocks: RefCell::default(),
        }
    }

    /// Follows a function. A call of one of `ends` ends a path, as a jump to it does.
    pub(in crate::probe_plan) fn reach(&self, start: u64, ends: &AddressSet) -> ReachedCode {
        let mut reach = ReachedCode::default();
        let own = self.ranges.iter().find(|range| range.0 == start);
        let is_outside = |target: u64| own.is_some_and(|own| target < own.0 || own.1 <= target);
        let mut instructions = 0;
        let mut seen = AddressSet::from_iter([start]);
        let mut ahead = vec![start];
        while let Some(from) = ahead.pop() {
            let block = self.block(from);
            instructions += block.instructions;
            if instructions > MAX_INSTRUCTIONS {
                reach.is_unknown = true;
                break;
            }
            if reach.add_calls(&block, &self.starts, ends).is_break() {
                continue;
            }
            let target = match block.exit {
                Exit::Jump(target) | Exit::Branch(target, _) => target,
                Exit::Return => {
                    reach.returns = true;
                    continue;
                }
                Exit::Stop => continue,
                Exit::Invalid => {
                    reach.is_unknown = true;
                    continue;
                }
            };
            reach.branches.push(block.last);
            match target {
                Some(target) if target == start => {}
                Some(target) if self.starts.contains(&target) => {
                    reach.jumps.insert(target);
                }
                Some(target) => {
                    if is_outside(target) {
                        reach.helpers.insert(target);
                    }
                    if seen.insert(target) {
                        ahead.push(target);
                    }
                }
                None => reach.is_unknown = true,
            }
            if let Exit::Branch(_, next) = block.exit
                && seen.insert(next)
            {
                ahead.push(next);
            }
        }
        // A jump into the middle of a block leads to its last part again.
        reach.calls.sort_unstable();
        reach.calls.dedup();
        reach.branches.sort_unstable();
        reach.branches.dedup();
        reach
    }

    /// The block that begins at an address.
    fn block(&self, start: u64) -> Rc<CodeBlock> {
        let mut blocks = self.blocks.borrow_mut();
        let block = blocks
            .entry(start)
            .or_insert_with(|| Rc::new(CodeBlock::read(self.code, start)));
        Rc::clone(block)
    }

    /// Calls of traced functions in code that is not theirs, but that they alone use:
    /// `mi_heap_realloc` jumps to a function without a name, which calls `mi_free`. Each with the
    /// address that it returns to.
    pub(in crate::probe_plan) fn own_calls<'f>(
        &self,
        reached: impl Iterator<Item = &'f ReachedCode>,
    ) -> Vec<(u64, u64)> {
        let helpers = self.helpers(reached);
        if helpers.values().all(|reach| reach.calls.is_empty()) {
            return Vec::new();
        }
        let mut used_by: AddressMap<Vec<u64>> = AddressMap::default();
        for (target, user) in self.code.branches_to(|target| helpers.contains_key(&target)) {
            // One that only looks like a jump makes a helper somebody else's, no more.
            used_by.entry(target).or_default().push(user);
        }
        let mut branches: AddressMap<Vec<u64>> = AddressMap::default();
        for (start, reach) in &helpers {
            for branch in &reach.branches {
                branches.entry(*branch).or_default().push(*start);
            }
        }
        // A helper that somebody else uses is somebody else's too, and so is what that one uses.
        let mut own: AddressSet = helpers.keys().copied().collect();
        loop {
            let is_used_here = |user: &u64| {
                let parts = branches.get(user);
                self.is_traced(*user)
                    || parts.is_some_and(|parts| parts.iter().any(|part| own.contains(part)))
            };
            let foreign: Vec<u64> = own
                .iter()
                .copied()
                .filter(|helper| !used_by.get(helper).into_iter().flatten().all(is_used_here))
                .collect();
            if foreign.is_empty() {
                break;
            }
            for helper in foreign {
                own.remove(&helper);
            }
        }
        let calls = own
            .iter()
            .flat_map(|helper| helpers[helper].calls.iter().copied());
        let mut calls: Vec<(u64, u64)> = calls.filter(|(_, next)| !self.is_traced(*next)).collect();
        // Helpers share what they jump to.
        calls.sort_unstable();
        calls.dedup();
        calls
    }

    /// The code that the traced functions use, and what that uses, but for what is plainly
    /// somebody else's too.
    fn helpers<'f>(&self, reached: impl Iterator<Item = &'f ReachedCode>) -> AddressMap<ReachedCode> {
        let mut helpers: AddressMap<ReachedCode> = AddressMap::default();
        let mut ahead: BTreeSet<u64> = reached.flat_map(|reach| reach.helpers.iter().copied()).collect();
        for _ in 0..MAX_DEPTH {
            ahead.retain(|helper| !helpers.contains_key(helper));
            self.drop_shared(&mut ahead);
            let mut next = BTreeSet::new();
            for helper in ahead {
                if helpers.len() >= MAX_HELPERS {
                    break;
                }
                let reach = self.reach(helper, &AddressSet::default());
                next.extend(reach.helpers.iter().copied());
                helpers.insert(helper, reach);
            }
            ahead = next;
        }
        helpers
    }

    /// Leaves out code that functions use which are called from other files: most of what a
    /// library's allocator calls is of that kind, and following it would be most of the work.
    fn drop_shared(&self, helpers: &mut BTreeSet<u64>) {
        helpers.retain(|helper| !self.is_of_others(*helper));
        if self.others.is_empty() || helpers.is_empty() {
            return;
        }
        for (target, user) in self.code.branches_to(|target| helpers.contains(&target)) {
            if self.is_of_others(user) {
                helpers.remove(&target);
            }
        }
    }

    /// Returns whether an address is in a function that other files may call, and that is not
    /// traced.
    fn is_of_others(&self, address: u64) -> bool {
        let behind = self.others.partition_point(|range| range.0 <= address);
        behind > 0 && address < self.others[behind - 1].1
    }

    fn is_traced(&self, address: u64) -> bool {
        self.ranges
            .iter()
            .any(|range| range.0 <= address && address < range.1)
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    const BASE: u64 = 0x1000;

    /// `opcode` with a target.
    fn branch(opcode: u8, at: u64, target: u64) -> Vec<u8> {
        let mut bytes = vec![opcode];
        let distance = i32::try_from(target.wrapping_sub(BASE + at + 5).cast_signed()).unwrap();
        bytes.extend(distance.to_le_bytes());
        bytes
    }

    /// A function at each multiple of 16.
    fn functions(bodies: &[Vec<u8>]) -> MachineCode {
        let mut code = vec![0xcc; 16 * bodies.len()];
        for (index, body) in bodies.iter().enumerate() {
            code[16 * index..][..body.len()].copy_from_slice(body);
        }
        MachineCode::of_bytes(BASE, &code)
    }

    const RET: u8 = 0xc3;

    #[test]
    fn function_that_forwards_every_call() {
        // 0: test rdi, rdi; ret. 1: jmp 0. 2: call 0; ret. 3: test rdi, rdi; je +5; jmp 0; ret.
        let mut calls = branch(0xe8, 32, BASE);
        calls.push(RET);
        let mut some = vec![0x48, 0x85, 0xff, 0x74, 0x05];
        some.extend(branch(0xe9, 53, BASE));
        some.push(RET);
        let code = functions(&[vec![0x48, 0x85, 0xff, RET], branch(0xe9, 16, BASE), calls, some]);
        let traced = TracedFunctions::new(&code, (0..4).map(|index| (BASE + 16 * index, 16)), iter::empty());
        let ends = AddressSet::from_iter([BASE]);
        let reach = |index: u64| traced.reach(BASE + 16 * index, &ends);
        assert!(reach(0).returns && reach(0).jumps.is_empty());
        assert!(!reach(1).returns && reach(1).jumps.contains(&BASE));
        assert!(!reach(2).returns && reach(2).calls == [(BASE, BASE + 37)]);
        assert!(reach(3).returns && reach(3).jumps.contains(&BASE));
    }

    #[test]
    fn calls_of_code_that_only_allocators_use_are_their_own() {
        // 0: ret (free). 1: jmp 2 (realloc). 2, without a name: call 0; ret. 3, somebody else's.
        let mut helper = branch(0xe8, 32, BASE);
        helper.push(RET);
        let program = |other: Vec<u8>, exported: &[(u64, u64)]| {
            let code = functions(&[vec![RET], branch(0xe9, 16, BASE + 32), helper.clone(), other]);
            let traced = [(BASE, 16), (BASE + 16, 16)].into_iter();
            let traced = TracedFunctions::new(&code, traced, exported.iter().copied());
            let none = AddressSet::default();
            let reached = [traced.reach(BASE, &none), traced.reach(BASE + 16, &none)];
            traced.own_calls(reached.iter())
        };
        assert_eq!(program(vec![RET], &[]), [(BASE, BASE + 37)]);
        let by_others = || branch(0xe8, 48, BASE + 32);
        assert_eq!(program(by_others(), &[]), [], "called by others too");
        // Exported functions: free and realloc themselves, and the last one.
        let exported = [(BASE, 16), (BASE + 16, 16), (BASE + 48, 16)];
        assert_eq!(program(vec![RET], &exported), [(BASE, BASE + 37)]);
        assert_eq!(program(by_others(), &exported), [], "called by an exported one");
        let helper = [(BASE + 32, 16)];
        assert_eq!(program(vec![RET], &helper), [], "exported itself");
    }

    #[test]
    fn linkage_tables_are_seen_through() {
        // 0: ret. 1: jmp [rip + 0] to the slot behind it. 2: jmp 1.
        let stub = vec![0xff, 0x25, 0, 0, 0, 0];
        let mut code = functions(&[vec![RET], stub, branch(0xe9, 32, BASE + 16)]);
        code.slots.insert(BASE + 22, BASE);
        let traced = TracedFunctions::new(&code, [(BASE, 16), (BASE + 32, 16)].into_iter(), iter::empty());
        assert!(
            traced
                .reach(BASE + 32, &AddressSet::default())
                .jumps
                .contains(&BASE)
        );
    }
}
