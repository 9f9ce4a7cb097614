//! memtap's user side, as a library.
//!
//! Invariants, kept by every change: only [`bpf`] knows aya; only [`cli`] knows clap; [`profile`],
//! [`report`] and [`unwind`] do no I/O beyond the bytes they are given; dropping a session leaves
//! no probe attached and no process stopped.

pub mod bpf;
pub mod cli;
mod clock;
mod numeric;
pub mod output;
pub mod privileges;
pub mod probe_plan;
pub mod process;
pub mod profile;
pub mod recorder;
pub mod report;
pub mod settings;
pub mod signals;
pub mod symbolize;
pub mod unwind;

// The path that the recorder's modules use.
pub(crate) use recorder::cost;
