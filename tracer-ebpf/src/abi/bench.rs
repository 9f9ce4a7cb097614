//! What both sides of the walk benchmark speak. Behind the feature `bench`: the object that ships has none of it.

/// What the walks of one program came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WalkCounts {
    /// Hits of the probe.
    pub hits: u64,
    /// Frames found, over all hits.
    pub frames: u64,
    /// Walks that did not reach the outermost frame, or for which there was no room.
    pub failed: u64,
}

const _: () = assert!(size_of::<WalkCounts>() == 24);

#[cfg(not(target_arch = "bpf"))]
// SAFETY: repr(C), three integers without padding, as the assertion shows: any bytes are a valid value.
unsafe impl aya::Pod for WalkCounts {}
