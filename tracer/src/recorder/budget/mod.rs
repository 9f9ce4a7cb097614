//! The budget: keeps the cost of tracing for the targets within a limit, and reports that cost.
//!
//! [`plan`] computes the finest level that a budget allows, [`level`] decides on changes of the level, [`windows`]
//! estimates the whole time from windows where probes cannot be attached all the time, [`meter`] adds up the cost.
//! [`cost_meter`] reads the counters for them, [`window_schedule`] attaches and detaches probes, and
//! [`BudgetController`] drives them all from the event loop.

mod controller;
mod cost_meter;
mod cost_report;
mod level;
pub(super) mod meter;
pub(super) mod plan;
pub(super) mod slowing;
mod window_schedule;
mod windows;

pub(super) use controller::BudgetController;
pub(super) use cost_meter::RunStatistics;
pub use cost_report::Followed;
