//! The kernel boundary: nothing else in this crate knows aya.
//!
//! [`Object`] is the loaded eBPF object: its programs, its settings, its counters. [`links`]
//! attaches programs and detaches them. Each other family of maps has a module of its own, with
//! functions over an [`Object`]: [`records`] and [`copies`] read the rings, [`sums`], [`heap`] and
//! [`processes`] the tables, and [`tables`] writes unwind tables. Dropping an [`Object`] removes
//! every probe that was attached through it; the kernel does the same when the process dies.

#[cfg(feature = "bench")]
pub mod bench;
pub mod btf;
mod close_later;
mod compat;
pub mod copies;
pub mod counters;
mod embedded;
mod error;
pub mod heap;
pub mod links;
pub mod load;
mod object;
pub mod processes;
pub mod programs;
pub mod records;
mod refusal;
mod ring;
pub mod run_stats;
pub mod sampling;
pub(crate) mod stopped;
pub mod sums;
pub mod tables;
pub mod tracefs;

pub use links::{Attached, Uprobe, UprobeScope};
pub use object::Object;
pub use records::RingRecord;
pub use sampling::Sampling;

/// Whether the kernel has links of many uprobes; else what it said.
pub fn many_uprobes_in_a_link() -> std::io::Result<()> {
    compat::multi::probe()
}
