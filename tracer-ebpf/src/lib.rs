//! The interface of both sides of memtap: map names, keys, values, ring records, end codes and loss
//! counters.
//!
//! The eBPF programs (`main.rs`, target `bpfel-unknown-none`) write these types, the loader
//! (`tracer`) reads them. Every struct is `repr(C)` without padding, and its size is asserted here,
//! so that both sides agree byte by byte.
#![no_std]

pub mod abi;

pub use abi::*;
