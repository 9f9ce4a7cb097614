//! How much is followed, as the loader says while it runs.

use super::error::BpfError;
use super::load::Object;

/// How much is followed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// An allocation is followed per so many bytes on average; 1 is every allocation.
    pub interval_bytes: u64,
    /// The share of time in which probes are in, in (0, 1]: weights are divided by it.
    pub share: f64,
}

impl Sampling {
    /// Everything, all the time.
    pub const EVERYTHING: Self = Self {
        interval_bytes: 1,
        share: 1.0,
    };
}

impl Object {
    /// Says how much is followed from now on.
    pub fn set_sampling(&mut self, sampling: Sampling) -> Result<(), BpfError> {
        log::debug!("followed: {sampling:?}");
        Ok(())
    }
}
