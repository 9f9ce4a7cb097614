//! The second opinion on allocator calls: `fixtures/shim.c`, preloaded.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{Context, Count, Counts, Finished, Fixture, run};

/// The order of the counters in the shim's file.
const FUNCTIONS: [&str; 9] = [
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "posix_memalign",
    "aligned_alloc",
    "memalign",
    "valloc",
    "pvalloc",
];

/// The shim's library, and the file that its counters are in: what `LD_PRELOAD` and `SHIM_FILE`
/// name.
#[derive(Debug)]
pub struct Shim {
    /// The library.
    pub library: PathBuf,
    /// The file.
    pub file: PathBuf,
}

impl Shim {
    /// Makes both in a directory, for whoever may look into that.
    pub fn create(context: &Context, directory: &Path) -> Result<Self> {
        let shim = Self {
            library: directory.join("libshim.so"),
            file: directory.join("counters"),
        };
        std::fs::copy(Fixture::library(context, "shim")?.path, &shim.library)?;
        std::fs::write(&shim.file, [0; FUNCTIONS.len() * 16])?;
        for path in [&shim.library, &shim.file] {
            std::fs::set_permissions(path, Permissions::from_mode(0o777))?;
        }
        Ok(shim)
    }

    /// Has a command, and what it starts, counted.
    pub fn count(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("SHIM_FILE", &self.file);
    }

    /// Returns what was counted so far, by function.
    pub fn counts(&self) -> Result<Counts> {
        let bytes = std::fs::read(&self.file)?;
        let mut numbers = bytes
            .chunks_exact(8)
            .map(|chunk| chunk.try_into().map(u64::from_le_bytes));
        let mut counts = Counts::new();
        for function in FUNCTIONS {
            let calls = numbers.next().context("the shim's file is short")??;
            let bytes = numbers.next().context("the shim's file is short")??;
            if calls > 0 {
                counts.insert(function.to_owned(), Count { calls, bytes });
            }
        }
        Ok(counts)
    }
}

/// Runs a command, which must end with 0, and counts its calls and those of its children, made by
/// the programs themselves or by the C library for them.
pub fn shim_counts(context: &Context, mut command: Command) -> Result<(Counts, Finished)> {
    let directory = tempfile::tempdir()?;
    let shim = Shim::create(context, directory.path())?;
    shim.count(&mut command);
    let finished = run(command)?.succeeded()?;
    Ok((shim.counts()?, finished))
}
