//! The limits of this process that memtap cannot work within, told before anything is begun.

use anyhow::{Result, bail};
use rustix::process::{Resource, getrlimit};

use crate::report::units;

/// Address space without which not even the reports of a small program can be made.
const MIN_ADDRESS_SPACE_BYTES: u64 = 256 << 20;

/// Likewise for the memory that memtap writes to.
const MIN_DATA_BYTES: u64 = 128 << 20;

/// Files that are open in any recording: tables of the kernel side, its programs and their probes.
const MIN_FILES: u64 = 128;

/// Rings of each CPU.
const FILES_PER_CPU: u64 = 2;

/// Fails where a limit is too low.
pub(super) fn require() -> Result<()> {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    // The hard limit: memtap raises the other.
    let files = getrlimit(Resource::Nofile).maximum;
    check_files(files, MIN_FILES + FILES_PER_CPU * cpus)?;
    let memory = [
        (
            Resource::As,
            "address space (`ulimit -v`)",
            MIN_ADDRESS_SPACE_BYTES,
        ),
        (Resource::Data, "data (`ulimit -d`)", MIN_DATA_BYTES),
    ];
    for (resource, name, least) in memory {
        check_bytes(name, getrlimit(resource).current, least)?;
    }
    Ok(())
}

fn check_files(limit: Option<u64>, least: u64) -> Result<()> {
    match limit {
        Some(limit) if limit < least => bail!(
            "the limit of open files (`ulimit -Hn`) is {limit}, and memtap takes at least {least}: raise it and try again"
        ),
        _ => Ok(()),
    }
}

fn check_bytes(name: &str, limit: Option<u64>, least: u64) -> Result<()> {
    match limit {
        Some(limit) if limit < least => bail!(
            "the limit of {name} is {}, and memtap takes at least {}: raise it and try again",
            units::bytes(limit.into()),
            units::bytes(least.into())
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_limits_that_are_too_low_are_told() {
        assert!(check_files(None, 128).is_ok());
        assert!(check_files(Some(128), 128).is_ok());
        let error = check_files(Some(10), 128).expect_err("too few").to_string();
        assert!(error.contains("is 10, and memtap takes at least 128"), "{error}");
        assert!(check_bytes("data", None, 1).is_ok());
        let error = check_bytes("data", Some(1 << 20), 1 << 27)
            .expect_err("too few")
            .to_string();
        assert_eq!(
            error,
            "the limit of data is 1.0 MiB, and memtap takes at least 128.0 MiB: raise it and try again"
        );
    }
}
