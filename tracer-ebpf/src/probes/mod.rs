//! The programs, one for each duty. Each thin entry calls a function that does the work; every way to give up is counted.

#[cfg(feature = "bench")]
mod bench;
mod calibration;
mod call;
mod complete;
mod heap;
mod hit;
mod operands;
mod process;
mod region;
mod sampling;

pub(crate) use operands::{Request, called_by_allocator};
