//! What the kernel side does with events, as the loader says while it runs: values of the map `RECORDING`.

/// Whether calls of allocators are taken in: a bit of the values below, so that one test tells, and the verifier has one way
/// to follow.
pub const CALLS: u64 = 1;

/// Hits of probes are counted, since they cost what they cost, and nothing else is done: before all probes are in, and
/// while they are taken off.
pub const NOTHING: u64 = 0;

/// Everything that is traced is taken in.
pub const ALL: u64 = 1;

/// Memory-map system calls are taken in; hits of probes in allocators are counted alone. Between the windows of a recording
/// whose probes are in for a part of the time.
pub const REGIONS: u64 = 2;

/// Calls of allocators are counted by function, all under the stack [`STACK_UNWALKED`](crate::STACK_UNWALKED).
pub const UNWALKED: u64 = 3;
