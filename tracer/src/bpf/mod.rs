//! The kernel boundary: nothing else in this crate knows aya.
//!
//! [`Object`] is the loaded eBPF object with its maps; [`links`] attaches programs and takes them off again;
//! [`records`], [`copies`] and [`sums`] read what the kernel side wrote. Dropping an [`Object`] removes every probe that
//! was attached through it; the kernel does the same when the process dies.

mod batch;
#[cfg(feature = "bench")]
pub mod bench;
pub mod btf;
pub mod copies;
pub mod heap;
pub mod limits;
pub mod links;
pub mod load;
pub mod records;
mod refusal;
mod ring;
mod singles;
pub mod sums;
pub mod tables;
pub mod tracefs;

pub use limits::Limits;
pub use links::{Attached, UprobeScope};
pub use load::Object;
pub use records::Record;
