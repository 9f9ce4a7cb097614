//! The plan of probes: from files to the instructions that are probed.
//!
//! [`detect`] finds allocators and their functions, `dataflow` follows their code, `placement`
//! chooses instructions and says where the values of a call are there; [`plan`] makes of these the
//! probes of a file.

mod dataflow;
pub mod detect;
pub mod inner_sites;
mod placement;
pub mod plan;
pub mod roles;

pub use dataflow::Obstacle;
