//! A ring of the kernel side's in an event loop.

use std::io;

use aya::maps::ring_buf::RingBufItem;
use aya::maps::{MapData, RingBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::BpfError;
use super::object::Object;

/// The user side of a ring.
pub(super) struct Ring(AsyncFd<RingBuf<MapData>>);

impl Ring {
    /// Takes a ring; it can be taken once, and inside an event loop.
    pub(super) fn take(object: &mut Object, name: &str) -> Result<Self, BpfError> {
        let map = object
            .loaded
            .take_map(name)
            .ok_or_else(|| BpfError::Missing(format!("map {name}")))?;
        let ring = RingBuf::try_from(map).map_err(|error| BpfError::map(name, error))?;
        // SAFETY: the ring owns its descriptor, gives the same one every time, and closes it when
        // it is dropped.
        unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map(Self)
            .map_err(|error| BpfError::map(name, error))
    }

    /// Waits until the kernel side calls.
    pub(super) async fn called(&mut self) -> io::Result<()> {
        self.0.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// The next record, if there is one.
    pub(super) fn next(&mut self) -> Option<RingBufItem<'_>> {
        self.0.get_mut().next()
    }
}
