//! `record --live`: blocks followed from their allocation to their free.
//!
//! The fixtures know what they made and gave back, the shim follows the blocks of any program, and
//! memtap has to say the same as both.

pub(crate) mod accounts;
mod compare;
pub(crate) mod fixtures;
pub(crate) mod heaptrack;
pub(crate) mod languages;
pub(crate) mod programs;
pub(crate) mod servers;
