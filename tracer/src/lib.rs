//! memtap's user side, as a library.
//!
//! A module uses those to its right only:
//! `cli` → `recorder` → {`probe_plan`, `bpf`, `symbolize`} → {`process`, `unwind`}, and `cli` and
//! `recorder` → `report` → `profile`. `settings`, `clock`, `privileges`, `signals`, `output`,
//! `message` and `numeric` are leaves that any may use, and that use none.
//!
//! Invariants: only `bpf` knows aya and bpf(2); only `cli` knows clap; `profile`, `report` and
//! `unwind` do no I/O beyond the bytes they are given; dropping a recorder leaves no probe attached
//! and no process stopped.

#![warn(
    clippy::print_stderr,
    reason = "a write to standard error that fails would end memtap: `message` is for messages"
)]

pub mod bpf;
pub mod cli;
pub mod clock;
pub mod elf;
mod message;
mod numeric;
mod output;
mod privileges;
pub mod probe_plan;
pub mod process;
mod profile;
pub mod recorder;
mod report;
pub mod settings;
mod signals;
mod symbolize;
pub mod unwind;
