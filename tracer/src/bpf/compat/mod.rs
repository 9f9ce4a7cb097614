//! What newer versions of aya do themselves: links of many uprobes, look-ups in batches, and the calls of `bpf(2)` that those
//! take.

pub(super) mod batch;
pub(super) mod multi;
mod sys;
