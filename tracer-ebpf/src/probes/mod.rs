//! The programs, one for each duty. Each thin entry calls a function that does the work; every way
//! to give up is counted. The entries of uprobes are inlined into what the macro makes of each:
//! that call would have a frame of its own on the stack.

#[cfg(feature = "bench")]
mod bench;
mod calibration;
mod call;
mod heap;
mod hit;
mod operands;
mod process;
mod region;
mod result;
mod sampling;

pub(crate) use operands::{Request, called_by_allocator};
