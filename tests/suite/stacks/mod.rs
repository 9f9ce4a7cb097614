//! Whole, right stacks of programs without frame pointers, walked by `.eh_frame`.
//!
//! The fixtures know each chain of callers, from `main` to the caller of the allocator, and how
//! often it was taken for how many bytes. A chain must be there frame by frame; what is above it is
//! the C library's.

pub(crate) mod c_libraries;
pub(crate) mod chains;
mod elf;
pub(crate) mod languages;
pub(crate) mod libraries;
pub(crate) mod own_stacks;
pub(crate) mod signals;
pub(crate) mod stripped;
pub(crate) mod walked;
