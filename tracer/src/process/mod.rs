//! The traced processes, and the contents of their address spaces.
//!
//! [`launch`] starts a command and holds it before its first instruction; [`proc_fs`] reads
//! `/proc`; [`sideband`] reads the kernel's records of forks, execs, exits and executable mappings;
//! [`history`] remembers them, so that an address has a file long after its process has gone;
//! [`files`] keeps those files open, as [`foreign_files`] opens them, and [`contents`] tells
//! whether they are still what they were; [`descriptors`] bounds their number; [`root`] is where a
//! process looks for files; [`perf_maps`] finds what just-in-time compilers write of their code;
//! [`cgroup`] tells which processes are in one; [`exit_watch`] tells what has ended one;
//! `task_clocks` tells the CPU time of threads in a moment, and samples it.

pub(crate) mod cgroup;
pub(crate) mod contents;
pub mod descriptors;
pub(crate) mod exit_watch;
pub mod files;
pub(crate) mod foreign_files;
pub mod history;
pub(crate) mod launch;
pub(crate) mod maps;
pub(crate) mod perf_event;
pub(crate) mod perf_maps;
mod perf_ring;
pub mod proc_fs;
pub(crate) mod root;
pub mod sideband;
pub(crate) mod task_clocks;
