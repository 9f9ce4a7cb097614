//! Keeping what tracing costs the targets within a budget, and saying what it costs.
//!
//! [`plan`] reckons how much can be followed, [`controller`] decides when that changes, [`windows`] places the windows in which
//! probes are in where they cannot be in all the time, and makes estimates of what was seen in them; [`meter`] adds up what
//! it costs. [`control`] drives them all from the event loop, `look` reads the counters for them, and `switch` gets
//! probes in and out.

mod account;
pub(crate) mod control;
pub(crate) mod controller;
mod look;
pub(crate) mod meter;
pub(crate) mod plan;
pub(crate) mod slowing;
pub(crate) mod statistics;
mod switch;
pub(crate) mod took;
pub(crate) mod windows;
