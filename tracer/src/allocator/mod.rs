//! Which functions are traced: from files to probes.
//!
//! [`functions`] says which symbol has which call shape; [`elf`] finds the symbols in a file; [`plan`] makes
//! the sites of probes from them, with what the kernel side must know to count nested calls once, where `place`
//! says; [`single`] finds places inside functions where one probe does for two; [`loader`]
//! tells which files a command is going to map, and [`roots`] where they may be in another root directory.

pub mod elf;
pub mod functions;
pub mod loader;
mod place;
pub mod plan;
pub mod roots;
pub mod single;
mod values;
