//! The walker of x86-64 code.
//!
//! [`MachineCode`] holds the bytes of a file and decodes them: an instruction with its ways out is
//! a node of the control-flow graph of the whole file. Two questions are asked of that graph.
//! [`ReachedCode`] is what can be reached from a function's first instruction, whatever registers
//! hold. A [`Graph`] has in addition the [`AbstractState`] before each instruction: for every
//! register and stack slot the argument, the product, the constant or the stack address that it is
//! known to hold; [`mod@results`] adds where the value is that the function is going to return. The
//! places of probes, tail calls and the sites inside functions are queries on these.
//!
//! Pure: bytes and the addresses of symbols in, answers out. Whatever is not understood is an
//! [`Obstacle`], never a guess.

mod backward;
mod code;
mod emulation;
mod graph;
mod obstacle;
mod reach;
mod relative;
mod results;
mod state;
mod step;

pub(super) use code::{AddressMap, AddressSet, CodePart, MachineCode};
pub(super) use emulation::{is_emulated, is_steppable};
pub(super) use graph::{Explorer, Graph, Node};
pub use obstacle::Obstacle;
pub(super) use reach::{ReachedCode, TracedFunctions};
pub(super) use results::{Results, results};
pub(super) use state::{AbstractState, Memory, RBP, Value, ValueLocation, argument};
