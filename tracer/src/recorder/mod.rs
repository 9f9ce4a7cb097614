//! One recording, from its targets to its profile.
//!
//! [`Recorder`] joins the parts, each of which keeps its own state: [`attach`] the probes,
//! [`event_stream`] the events and their dispatch, [`process_table`] the processes, [`stack_table`]
//! the stacks, [`unwind_tables`] the tables and the walks that need them, [`budget`] the cost,
//! [`heap_history`] the past of the heap, [`exited_processes`] what is reclaimed. [`event_loop`]
//! waits and passes values between them; [`recording`] makes a [`Profile`](crate::profile::Profile)
//! of them in the end.
//!
//! Dropping a [`Recorder`] detaches every probe and resumes every stopped process; a command that
//! was not released ends without having run.

mod attach;
#[cfg(feature = "bench")]
pub mod bench;
mod budget;
pub mod cost;
mod estimate;
mod estimator;
mod event_loop;
mod event_stream;
mod exited_processes;
mod figures;
mod guard;
mod heap_history;
mod kernel_settings;
mod process_table;
mod profile_builder;
#[expect(
    clippy::module_inception,
    reason = "the module's main type has a file of its own"
)]
mod recorder;
mod recording;
mod stack_table;
mod targets;
mod unwind_tables;

pub(crate) use budget::Followed;
pub(crate) use estimate::{Estimate, TracingWay};
pub(crate) use estimator::Estimator;
pub(crate) use recorder::{ChildStatus, Observer, Progress, Recorder, Stop};
pub(crate) use recording::Recording;
pub use targets::StartError;
