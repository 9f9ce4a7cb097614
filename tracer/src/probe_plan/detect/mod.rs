//! Finding allocators: in a file by the names of functions, and files before they are mapped.
//!
//! [`functions`] is the table of functions, [`signature`] the rows that the user adds to it;
//! [`symbols`] finds them in a file, and [`allocators`] says which of them are an allocator's.
//! [`loader`] lists the files that a command is going to map, by the rules of the
//! [`dynamic_linker`], [`roots`] those in another root directory, and [`libraries`] the allocators
//! that it may load later. Files are read, and none is executed.

pub(super) mod allocators;
pub mod dynamic_linker;
pub mod functions;
pub mod libraries;
mod linker_cache;
pub mod loader;
mod names;
pub mod roots;
mod row;
pub mod signature;
pub mod symbols;
