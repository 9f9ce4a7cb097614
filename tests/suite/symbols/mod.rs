//! Names for frames: separate debug information wherever it may be, code that was compiled at run
//! time, files that have gone or changed.

pub(crate) mod compiled;
pub(crate) mod exited_processes;
pub(crate) mod fetched;
pub(crate) mod mismatched_debug_files;
pub(crate) mod separate;
mod server;
mod shipped;
