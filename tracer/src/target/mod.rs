//! Which processes are traced, and what is in their address spaces.
//!
//! [`launch`] starts a command and holds it before its first instruction; [`process`] reads `/proc`;
//! [`sideband`] hears from the kernel of every fork, exec, exit and executable mapping; [`lives`] remembers
//! them, so that an address has a file long after its process has gone; [`files`] keeps those files open.

pub mod files;
pub mod launch;
pub mod lives;
pub mod maps;
pub mod process;
pub mod sideband;
pub mod user;
