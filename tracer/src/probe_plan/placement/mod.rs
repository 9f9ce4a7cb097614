//! The places of probes, as queries on the control-flow graph.
//!
//! [`entry`] chooses the instruction near a function's first one, [`inner`] those in its middle
//! where one probe serves for two; [`operands`] says where a call's values are there.
//! [`tail_calls`] and [`callers`] make what the kernel side needs to count nested calls once.

pub(super) mod callers;
pub(super) mod entry;
pub(super) mod inner;
mod operands;
pub(super) mod tail_calls;
