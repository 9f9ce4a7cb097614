//! What both sides of the walk benchmark speak. Behind the feature `bench`: the object that ships
//! has none of it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What the walks of one program came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WalkCounts {
    /// Hits of the probe.
    pub hits: u64,
    /// Frames found, over all hits.
    pub frames: u64,
    /// Walks that did not reach the outermost frame, or for which there was no room.
    pub failed: u64,
}

crate::abi::values::map_types! {
    WalkCounts: 24;
}
