//! Kernel calls in place of aya's: loading without the kernel's type information, links of many
//! uprobes, look-ups in batches, and the calls of `bpf(2)` that those take.

pub(super) mod batch;
pub(super) mod loader;
pub(super) mod multi;
pub(super) mod perf;
pub(super) mod sys;

use aya::maps::{Map, MapData, MapError};

/// The data of a map of any type that memtap has; aya gives them out by type alone.
pub(super) fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::CgroupArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::ProgramArray(data)
        | Map::RingBuf(data)
        | Map::StackTraceMap(data) => Some(data),
        _ => None,
    }
}

/// The outcome of a removal from a map, which has succeeded too where there was no such entry. aya
/// says so by an error of its own for look-ups alone.
pub(super) fn removed(outcome: Result<(), MapError>) -> Result<(), MapError> {
    match outcome {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use aya::sys::SyscallError;

    use super::*;

    #[test]
    fn entry_that_was_not_there_is_removed() {
        let failed = |number| {
            Err(MapError::SyscallError(SyscallError {
                call: "bpf_map_delete_elem",
                io_error: io::Error::from_raw_os_error(number),
            }))
        };
        assert!(removed(Ok(())).is_ok());
        assert!(removed(Err(MapError::KeyNotFound)).is_ok());
        assert!(removed(failed(libc::ENOENT)).is_ok());
        assert!(removed(failed(libc::EBUSY)).is_err());
    }
}
