//! The control-flow graph of a function, with the state before each instruction.
//!
//! Code is found by following jumps from the entry, so that data between functions is never taken
//! for code. A branch that is decided by what is known has one way out. A call of a function that
//! is proven never to return has none: that its code has a way to a return is looked for in the
//! same manner, with the arguments that are known, since glibc's assertions end in a function that
//! returns or not by its first argument.

use std::collections::{BTreeMap, HashMap, HashSet};

use iced_x86::{ConditionCode, FlowControl, Instruction, InstructionInfoFactory};

use super::code::{Destination, MachineCode, Transfer};
use super::obstacle::Obstacle;
use super::state::{ARGUMENTS, AbstractState, Flags, RETURN_ADDRESS, Value};
use super::step::step;

/// The most instructions that are followed for one function, those of the functions that it calls
/// included; each counts as often as it is visited.
const MAX_STEPS: usize = 200_000;

/// The same for each function that is called.
const MAX_STEPS_OF_CALL: usize = 5_000;

/// The depth to which calls of calls are followed to learn whether they return.
const MAX_DEPTH: usize = 12;

/// An end of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::probe_plan) enum End {
    /// It returns.
    Return,
    /// It goes on to a function that returns its first argument.
    FirstArgument,
}

/// A way from an instruction to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::probe_plan) struct Edge {
    /// The instruction that it leads to.
    pub(in crate::probe_plan) to: u64,
    /// A register that is 0 on this way.
    pub(in crate::probe_plan) zero: Option<u8>,
}

/// An instruction that can be reached.
#[derive(Clone, Debug)]
pub(in crate::probe_plan) struct Node {
    pub(in crate::probe_plan) instruction: Instruction,
    /// Its first byte.
    pub(in crate::probe_plan) first: Option<u8>,
    /// The state before it.
    pub(in crate::probe_plan) state: AbstractState,
    pub(in crate::probe_plan) next: Vec<Edge>,
    pub(in crate::probe_plan) end: Option<End>,
}

/// The instructions that can be reached, by address.
pub(in crate::probe_plan) type Graph = BTreeMap<u64, Node>;

/// The identity of a call: its target and the arguments that are known.
type Call = (u64, Vec<(u8, u64)>);

/// Follows the code of a file, with the state.
pub(in crate::probe_plan) struct Explorer<'a> {
    code: &'a MachineCode,
    /// The functions that are traced: a jump to one is not followed.
    traced: &'a HashSet<u64>,
    info: InstructionInfoFactory,
    returns: HashMap<Call, bool>,
    steps: usize,
}

/// An instruction's ways out, each with what is known there.
struct Successors {
    next: Vec<(Edge, AbstractState)>,
    end: Option<End>,
}

impl<'a> Explorer<'a> {
    pub(in crate::probe_plan) fn new(code: &'a MachineCode, traced: &'a HashSet<u64>) -> Self {
        Self {
            code,
            traced,
            info: InstructionInfoFactory::new(),
            returns: HashMap::new(),
            steps: 0,
        }
    }

    /// The graph of the function at `entry`. `factors`: see [`AbstractState::at_entry`].
    pub(in crate::probe_plan) fn graph(
        &mut self,
        entry: u64,
        factors: Option<(u8, u8)>,
    ) -> Result<Graph, Obstacle> {
        let states = self.states(entry, AbstractState::at_entry(factors, &[]), 0, |_| false)?;
        let mut graph = Graph::new();
        for (address, state) in &states {
            let instruction = self.decode(*address)?;
            let outcome = self.outcome(&instruction, state, 0)?;
            if outcome.end.is_some() && state.depth() != Some(RETURN_ADDRESS) {
                return Err(Obstacle::Depth(*address));
            }
            graph.insert(
                *address,
                Node {
                    instruction,
                    first: self.code.byte(*address),
                    state: state.clone(),
                    next: outcome.next.into_iter().map(|(edge, _)| edge).collect(),
                    end: outcome.end,
                },
            );
        }
        Ok(graph)
    }

    /// Returns the state before each instruction that is reached. Ends early once `stop` says so of
    /// an end.
    fn states(
        &mut self,
        entry: u64,
        start: AbstractState,
        depth: usize,
        stop: impl Fn(End) -> bool,
    ) -> Result<BTreeMap<u64, AbstractState>, Obstacle> {
        let mut states = BTreeMap::from([(entry, start)]);
        let mut work = vec![entry];
        let most = if depth == 0 { MAX_STEPS } else { MAX_STEPS_OF_CALL };
        let mut steps = 0;
        while let Some(address) = work.pop() {
            self.steps += 1;
            steps += 1;
            if self.steps > MAX_STEPS || steps > most {
                return Err(Obstacle::TooLong);
            }
            let instruction = self.decode(address)?;
            let outcome = self.outcome(&instruction, &states[&address], depth)?;
            if outcome.end.is_some_and(&stop) {
                return Err(Obstacle::NoReturn);
            }
            for (edge, state) in outcome.next {
                let is_news = if let Some(known) = states.get_mut(&edge.to) {
                    known.meet(&state)
                } else {
                    states.insert(edge.to, state);
                    true
                };
                if is_news {
                    work.push(edge.to);
                }
            }
        }
        Ok(states)
    }

    fn decode(&self, address: u64) -> Result<Instruction, Obstacle> {
        self.code.instruction(address).ok_or(Obstacle::NoCode(address))
    }

    fn outcome(
        &mut self,
        instruction: &Instruction,
        state: &AbstractState,
        depth: usize,
    ) -> Result<Successors, Obstacle> {
        let address = instruction.ip();
        let mut outcome = Successors {
            next: Vec::new(),
            end: None,
        };
        let mut go = |to, state| outcome.next.push((Edge { to, zero: None }, state));
        match self.code.transfer(instruction) {
            Transfer::Next => {
                let mut after = state.clone();
                step(&mut after, instruction, &mut self.info)?;
                go(instruction.next_ip(), after);
            }
            Transfer::Jump(Destination {
                returns_first: true, ..
            }) => outcome.end = Some(End::FirstArgument),
            Transfer::Jump(destination) => {
                let target = destination.address.ok_or(Obstacle::IndirectJump(address))?;
                self.check_traced(address, target)?;
                go(target, state.clone());
            }
            Transfer::Branch(_) => self.branch(instruction, state, &mut outcome)?,
            Transfer::Call(destination) => {
                let may_return = |target| self.may_return(target, state, depth);
                if destination.address.is_none_or(may_return) {
                    let mut after = state.clone();
                    after.called();
                    go(instruction.next_ip(), after);
                }
            }
            Transfer::Return if instruction.op_count() == 0 => outcome.end = Some(End::Return),
            Transfer::Stop => {}
            Transfer::Return | Transfer::Unknown => return Err(Obstacle::UnknownInstruction(address)),
        }
        Ok(outcome)
    }

    /// Fails at a jump to another traced function: the call becomes that one's.
    fn check_traced(&self, from: u64, target: u64) -> Result<(), Obstacle> {
        if self.traced.contains(&target) {
            return Err(Obstacle::GoesOn(from, target));
        }
        Ok(())
    }

    /// The instructions from `entry` on to the first that does not just go on to the next one,
    /// within `len` bytes, each with the state before it.
    pub(in crate::probe_plan) fn straight_line(
        &mut self,
        entry: u64,
        len: u64,
        factors: Option<(u8, u8)>,
    ) -> Vec<(Instruction, AbstractState)> {
        let mut line = Vec::new();
        let mut state = AbstractState::at_entry(factors, &[]);
        for instruction in self.code.sweep(entry, len) {
            if instruction.is_invalid() {
                break;
            }
            line.push((instruction, state.clone()));
            let goes_on = self.code.transfer(&instruction) == Transfer::Next
                && instruction.flow_control() == FlowControl::Next;
            if !goes_on || step(&mut state, &instruction, &mut self.info).is_err() {
                break;
            }
        }
        line
    }

    /// Both ways of a branch, or the one that is left.
    fn branch(
        &mut self,
        instruction: &Instruction,
        state: &AbstractState,
        outcome: &mut Successors,
    ) -> Result<(), Obstacle> {
        let (taken, not_taken) = (instruction.near_branch_target(), instruction.next_ip());
        self.check_traced(instruction.ip(), taken)?;
        let mut after = state.clone();
        if !instruction.is_jcc_short_or_near() {
            // `loop` counts.
            step(&mut after, instruction, &mut self.info)?;
        }
        // The way that is taken where the condition is `flag` itself, and the other one.
        let (met, unmet) = match instruction.condition_code() {
            ConditionCode::e | ConditionCode::o | ConditionCode::b => (taken, not_taken),
            ConditionCode::ne | ConditionCode::no | ConditionCode::ae => (not_taken, taken),
            _ => {
                for to in [taken, not_taken] {
                    outcome.next.push((Edge { to, zero: None }, after.clone()));
                }
                return Ok(());
            }
        };
        let is_of_zero = matches!(instruction.condition_code(), ConditionCode::e | ConditionCode::ne)
            && instruction.is_jcc_short_or_near();
        let mut fits = after.clone();
        fits.product_fits = true;
        let mut edge =
            |to, zero, state: &AbstractState| outcome.next.push((Edge { to, zero }, state.clone()));
        match state.flags {
            Flags::Decided(set) if is_of_zero => edge(if set { met } else { unmet }, None, &after),
            Flags::Zero(register) if is_of_zero => {
                // A product with 0 does not overflow.
                let is_factor = match (state.register(register), state.factors) {
                    (Value::Entry(register), Some((one, other))) => [one, other].contains(&register),
                    _ => false,
                };
                edge(met, Some(register), if is_factor { &fits } else { &after });
                edge(unmet, None, &after);
            }
            Flags::NoOverflow if is_of_zero => {
                edge(met, None, &fits);
                edge(unmet, None, &after);
            }
            Flags::Product if !is_of_zero && instruction.is_jcc_short_or_near() => {
                edge(met, None, &after);
                edge(unmet, None, &fits);
            }
            _ => {
                edge(met, None, &after);
                edge(unmet, None, &after);
            }
        }
        Ok(())
    }

    /// Returns true if a call may return. Only where no way to a return is found, and all of the
    /// code is understood, it does not.
    fn may_return(&mut self, target: u64, state: &AbstractState, depth: usize) -> bool {
        let constants: Vec<(u8, u64)> = ARGUMENTS
            .iter()
            .filter_map(|number| match state.register(*number) {
                Value::Constant(constant) => Some((*number, constant)),
                _ => None,
            })
            .collect();
        self.returns((target, Vec::new()), depth)
            && (constants.is_empty() || self.returns((target, constants), depth))
    }

    fn returns(&mut self, call: Call, depth: usize) -> bool {
        if let Some(known) = self.returns.get(&call) {
            return *known;
        }
        // A function that calls itself may return as far as that call is concerned.
        self.returns.insert(call.clone(), true);
        if depth >= MAX_DEPTH {
            return true;
        }
        let start = AbstractState::at_entry(None, &call.1);
        // Whichever functions are traced, what they do is done on behalf of the caller.
        let traced = std::mem::replace(&mut self.traced, empty());
        let never = self.states(call.0, start, depth + 1, |_| true).is_ok();
        self.traced = traced;
        self.returns.insert(call, !never);
        !never
    }
}

fn empty() -> &'static HashSet<u64> {
    static EMPTY: std::sync::LazyLock<HashSet<u64>> = std::sync::LazyLock::new(HashSet::new);
    &EMPTY
}
