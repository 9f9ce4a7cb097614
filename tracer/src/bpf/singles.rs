//! Places inside functions, told to the kernel side.

use aya::maps::{Array, MapData};
use tracer_ebpf::SingleSite;

use super::load::{BpfError, Object};

impl Object {
    /// Tells the kernel side what a place inside a function tells. `function`: the cookie of the function's own site.
    /// Returns the cookie that the probe must carry.
    pub fn add_single(&mut self, function: u64, single: SingleSite) -> Result<u64, BpfError> {
        let failed = |error| BpfError::map("SINGLES", error);
        let index = self.singles_len;
        let mut singles =
            Array::<&mut MapData, SingleSite>::try_from(self.map_mut("SINGLES")?).map_err(failed)?;
        singles.set(index, single, 0).map_err(failed)?;
        self.singles_len += 1;
        Ok(u64::from(index) << 32 | function)
    }
}
