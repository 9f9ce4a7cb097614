//! `.eh_frame` → the compact tables that the kernel side walks stacks with.
//!
//! [`compile()`] turns the bytes of an ELF file into a [`Table`]; an [`Arena`] finds it a place in
//! the kernel's arrays (laid out as [`layout`] says) and lists what to write there; [`walk()`]
//! takes the same steps in user space, on a copy of a stack. Nothing here does I/O, and no input
//! makes it panic.

mod arena;
mod call_sites;
mod cfi;
mod code;
mod compile;
mod context_start;
mod error;
mod expression;
mod extents;
mod frames;
mod image;
mod merge;
mod placement;
mod rule_pool;
mod rule_set;
mod rules;
mod signal;
mod statistics;
mod table;
mod walk;

#[cfg(test)]
mod tests;

pub use tracer_ebpf::unwind as layout;

pub use arena::{Arena, ArenaFull, Capacity, Usage};
pub(crate) use code::Code;
pub use compile::{CompileOptions, Rows, compile, compile_elf};
pub use error::Error;
pub use image::TableImage;
pub use placement::{Delta, Inserted, Placement, Run};
pub use rules::Unsupported;
pub use statistics::CompileStatistics;
pub use table::Table;
pub use walk::{FoundTable, PcKind, Reach, Registers, StackCopy, Walk, WalkEnd, walk};
