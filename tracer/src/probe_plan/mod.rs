//! Which functions are traced: from files to probes.
//!
//! [`functions`] says which symbol has which call shape; [`elf`] finds the symbols in a file; `flow` follows their code;
//! [`plan`] makes the sites of probes from them, with what the kernel side must know to count nested calls once, where
//! `place` says; [`single`] finds places inside functions where one probe does for two; [`loader`] tells which files a
//! command is going to map, [`roots`] where they may be in another root directory, and [`libraries`] which allocators it
//! may load later.

pub mod asked;
pub mod elf;
mod flow;
mod found;
pub mod functions;
mod jumps;
pub mod libraries;
pub mod loader;
mod names;
mod place;
pub mod plan;
mod ranges;
pub mod roots;
pub mod shape;
pub mod single;
mod values;
