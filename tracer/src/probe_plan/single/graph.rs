//! The control-flow graph of a function, with what is known before each instruction.
//!
//! Code is found by following jumps from the entry, so that data between functions is never taken for code. A branch that
//! is decided by what is known has one way out. A call of a function that is proven never to return has none: that its
//! code has a way to a return is looked for in the same manner, with the arguments that are known, since glibc's assertions
//! end in a function that returns or not by its first argument.

use std::collections::{BTreeMap, HashMap, HashSet};

use iced_x86::{ConditionCode, FlowControl, Instruction, InstructionInfoFactory, Mnemonic};

use super::image::Image;
use super::reason::Reason;
use super::step::step;
use super::values::{Flags, RDI, RETURN_ADDRESS, RSI, State, Value};

/// Instructions that are followed for one function, those of the functions that it calls included; each counts as often as
/// it is visited.
const MOST_STEPS: usize = 200_000;

/// The same for each function that is called.
const MOST_STEPS_OF_CALL: usize = 5_000;

/// Calls of calls that are followed to learn whether they return.
const DEEPEST: usize = 12;

/// Argument registers (System V AMD64 ABI, 3.2.3).
const ARGUMENTS: [u8; 6] = [7, 6, 2, 1, 8, 9];

/// How a function ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It returns.
    Return,
    /// It goes on to a function that returns its first argument.
    FirstArgument,
}

/// A way from an instruction to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    /// The instruction that it leads to.
    pub(super) to: u64,
    /// A register that is 0 on this way.
    pub(super) zero: Option<u8>,
}

/// An instruction.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) instruction: Instruction,
    /// Its first byte.
    pub(super) first: Option<u8>,
    /// What is known before it.
    pub(super) state: State,
    pub(super) next: Vec<Edge>,
    pub(super) end: Option<End>,
}

/// The instructions that can be reached, by address.
pub(super) type Graph = BTreeMap<u64, Node>;

/// What a call is told apart by: its target and the arguments that are known.
type Call = (u64, Vec<(u8, u64)>);

/// Follows the code of an image.
pub(super) struct Explorer<'a> {
    image: &'a Image,
    /// The functions that are traced: a jump to one is not followed.
    traced: &'a HashSet<u64>,
    info: InstructionInfoFactory,
    returns: HashMap<Call, bool>,
    steps: usize,
}

/// An instruction's ways out, each with what is known there.
struct Outcome {
    next: Vec<(Edge, State)>,
    end: Option<End>,
}

impl<'a> Explorer<'a> {
    pub(super) fn new(image: &'a Image, traced: &'a HashSet<u64>) -> Self {
        Self {
            image,
            traced,
            info: InstructionInfoFactory::new(),
            returns: HashMap::new(),
            steps: 0,
        }
    }

    /// The graph of the function at `entry`.
    pub(super) fn graph(&mut self, entry: u64) -> Result<Graph, Reason> {
        let states = self.states(entry, State::at_entry(&[]), 0, |_| false)?;
        let mut graph = Graph::new();
        for (address, state) in &states {
            let instruction = self.decode(*address)?;
            let outcome = self.outcome(&instruction, state, 0)?;
            if outcome.end.is_some() && state.depth() != Some(RETURN_ADDRESS) {
                return Err(Reason::Depth(*address));
            }
            graph.insert(
                *address,
                Node {
                    instruction,
                    first: self.image.byte(*address),
                    state: state.clone(),
                    next: outcome.next.into_iter().map(|(edge, _)| edge).collect(),
                    end: outcome.end,
                },
            );
        }
        Ok(graph)
    }

    /// What is known before each instruction that is reached. Ends early once `stop` says so of an end.
    fn states(
        &mut self,
        entry: u64,
        start: State,
        depth: usize,
        stop: impl Fn(End) -> bool,
    ) -> Result<BTreeMap<u64, State>, Reason> {
        let mut states = BTreeMap::from([(entry, start)]);
        let mut work = vec![entry];
        let most = if depth == 0 {
            MOST_STEPS
        } else {
            MOST_STEPS_OF_CALL
        };
        let mut steps = 0;
        while let Some(address) = work.pop() {
            self.steps += 1;
            steps += 1;
            if self.steps > MOST_STEPS || steps > most {
                return Err(Reason::TooLong);
            }
            let instruction = self.decode(address)?;
            let state = states[&address].clone();
            let outcome = self.outcome(&instruction, &state, depth)?;
            if outcome.end.is_some_and(&stop) {
                return Err(Reason::NoReturn);
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

    fn decode(&self, address: u64) -> Result<Instruction, Reason> {
        self.image.instruction(address).ok_or(Reason::NoCode(address))
    }

    fn outcome(&mut self, instruction: &Instruction, state: &State, depth: usize) -> Result<Outcome, Reason> {
        let address = instruction.ip();
        let to = |to| Edge { to, zero: None };
        let mut outcome = Outcome {
            next: Vec::new(),
            end: None,
        };
        match instruction.flow_control() {
            FlowControl::Return if instruction.mnemonic() == Mnemonic::Ret && instruction.op_count() == 0 => {
                outcome.end = Some(End::Return);
            }
            FlowControl::UnconditionalBranch if instruction.is_jmp_short_or_near() => {
                let target = instruction.near_branch_target();
                if self.traced.contains(&target) {
                    return Err(Reason::GoesOn(address, target));
                }
                if self.image.returns_first_argument(target) {
                    outcome.end = Some(End::FirstArgument);
                } else {
                    outcome.next.push((to(target), state.clone()));
                }
            }
            FlowControl::ConditionalBranch => self.branch(instruction, state, &mut outcome)?,
            FlowControl::IndirectBranch => {
                if !self.image.jumps_to_first_argument(instruction) {
                    return Err(Reason::IndirectJump(address));
                }
                outcome.end = Some(End::FirstArgument);
            }
            FlowControl::Call if instruction.is_call_near() => {
                if self.may_return(instruction.near_branch_target(), state, depth) {
                    let mut after = state.clone();
                    after.called();
                    outcome.next.push((to(instruction.next_ip()), after));
                }
            }
            FlowControl::IndirectCall if instruction.is_call_near_indirect() => {
                let mut after = state.clone();
                after.called();
                outcome.next.push((to(instruction.next_ip()), after));
            }
            // `ud2`: it is there for the processor to stop at.
            FlowControl::Exception => {}
            FlowControl::Next | FlowControl::Call
                if instruction.flow_control() == FlowControl::Next
                    || instruction.mnemonic() == Mnemonic::Syscall =>
            {
                let mut after = state.clone();
                step(&mut after, instruction, &mut self.info)?;
                outcome.next.push((to(instruction.next_ip()), after));
            }
            _ => return Err(Reason::UnknownInstruction(address)),
        }
        Ok(outcome)
    }

    /// Both ways of a branch, or the one that is left.
    fn branch(
        &mut self,
        instruction: &Instruction,
        state: &State,
        outcome: &mut Outcome,
    ) -> Result<(), Reason> {
        let (taken, not_taken) = (instruction.near_branch_target(), instruction.next_ip());
        if self.traced.contains(&taken) {
            return Err(Reason::GoesOn(instruction.ip(), taken));
        }
        let mut after = state.clone();
        if !instruction.is_jcc_short_or_near() {
            // `loop` counts.
            step(&mut after, instruction, &mut self.info)?;
        }
        // The way that is gone where the condition is `flag` itself, and the other one.
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
        let mut edge = |to, zero, state: &State| outcome.next.push((Edge { to, zero }, state.clone()));
        match state.flags {
            Flags::Decided(set) if is_of_zero => edge(if set { met } else { unmet }, None, &after),
            Flags::Zero(register) if is_of_zero => {
                // A product with 0 does not overflow.
                let is_factor = matches!(state.register(register), Value::Entry(RDI | RSI));
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

    /// Whether a call may return. Only where no way to a return is found, and all of the code is understood, it does not.
    fn may_return(&mut self, target: u64, state: &State, depth: usize) -> bool {
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
        if depth >= DEEPEST {
            return true;
        }
        let start = State::at_entry(&call.1);
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
