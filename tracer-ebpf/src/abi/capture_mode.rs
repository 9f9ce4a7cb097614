//! What the kernel side does with events, as the loader says while it runs.

/// What is captured: the value of the map `CAPTURE_MODE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u64)]
pub enum CaptureMode {
    /// Hits of probes are counted, since they cost what they cost, and nothing else is done: before
    /// all probes are in, and while they are taken off.
    #[default]
    Nothing = 0,
    /// Everything that is traced is captured.
    All = 1,
    /// Memory-map system calls are captured; hits of probes in allocators are counted alone.
    /// Between the windows of a recording whose probes are in for a part of the time.
    Regions = 2,
    /// Calls of allocators are counted by function, all under the stack
    /// [`STACK_UNWALKED`](crate::STACK_UNWALKED).
    Unwalked = 3,
}

impl CaptureMode {
    /// The bit of the numbers of modes in which calls of allocators are captured: one test tells,
    /// and the verifier has one way to follow.
    pub const CALLS: u64 = 1;

    /// The mode's number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self as u64
    }
}
