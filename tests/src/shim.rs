//! The second opinion on allocator calls: `fixtures/shim.c`, preloaded.

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

/// Runs a command, which must end with 0, and counts its calls and those of its children, made by the programs
/// themselves or by the C library for them.
pub fn shim_counts(context: &Context, mut command: Command) -> Result<(Counts, Finished)> {
    let shim = Fixture::library(context, "shim")?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("counters");
    std::fs::write(&file, [0; FUNCTIONS.len() * 16])?;
    command.env("LD_PRELOAD", &shim.path).env("SHIM_FILE", &file);
    let finished = run(command)?.succeeded()?;
    let bytes = std::fs::read(&file)?;
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
    Ok((counts, finished))
}
