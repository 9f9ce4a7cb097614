//! The programs, one file per kind of call. Each thin entry calls a function that does the work; every way to
//! give up is counted.

mod alloc;
#[cfg(feature = "bench")]
mod bench;
mod cost;
mod heap;
mod hit;
mod process;
mod region;
mod single;
mod weigh;

pub(crate) use alloc::{Request, called_by_allocator};
