//! One recording, from its start to its profile. [`Recorder`] owns the targets and the kernel side; the steps
//! are in the order of the files: `recorder` attaches, `watch` waits and drains, `collect` takes the figures and
//! makes the [`Profile`](crate::profile::Profile).
//!
//! Dropping a [`Recorder`] takes every probe off; a command that was not let go ends without having run.

mod aging;
mod allocators;
#[cfg(feature = "bench")]
pub mod bench;
mod breakpoints;
mod budget;
mod builder;
mod chosen;
mod collect;
mod compiled;
mod copied;
pub mod cost;
mod departed;
mod estimate;
mod examined;
mod figures;
mod guard;
mod history;
mod loading;
mod new_code;
mod pace;
mod peak;
mod probes;
mod processes;
mod recorder;
mod released;
mod resolved;
mod snapshots;
mod start_error;
mod tables;
mod targets;
mod watch;

pub use budget::control::Followed;
pub use collect::Recording;
pub use estimate::{Estimate, Way};
pub use recorder::Recorder;
pub use start_error::StartError;
pub use watch::{Audience, Child, Progress, Stop, Stopped};
