//! The second opinion on blocks: `fixtures/live/shim.c`, preloaded.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{Context, Finished, HeapFigures, Recipe, run};

/// The order of the functions in the shim's file: see `fixtures/live/images.h`.
const FUNCTIONS: [&str; 8] = [
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "posix_memalign",
    "aligned_alloc",
    "valloc",
    "pvalloc",
];
const SUMS: [&str; 4] = ["alloc", "freed", "live", "peak"];
const COMM_BYTES: usize = 16;
const EXE_BYTES: usize = 104;
/// The pid, two names, three numbers a function, two of frees, two a sum, temporary, and given
/// twice.
const IMAGE_BYTES: usize = 8 + COMM_BYTES + EXE_BYTES + (3 * FUNCTIONS.len() + 2 + 2 * SUMS.len() + 2) * 8;
/// The room for images that the shim has.
const IMAGES: usize = 4096;

/// A process image that the shim was in.
#[derive(Debug, Clone)]
pub struct ShimImage {
    /// The process.
    pub pid: u32,
    /// Its name when it began.
    pub comm: String,
    /// Its executable, at most 103 bytes of it.
    pub exe: String,
    /// Its use of the heap.
    pub figures: HeapFigures,
}

/// Runs a command to its end, and follows its blocks and those of its children, of the programs
/// themselves and of the C library for them. The images are in the order in which they began.
pub fn shim_images(context: &Context, mut command: Command) -> Result<(Vec<ShimImage>, Finished)> {
    let shim = Recipe::live_c("shim").shared().build(context)?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("images");
    let size = 8 + IMAGES * IMAGE_BYTES;
    std::fs::File::create(&path)?.set_len(u64::try_from(size)?)?;
    command.env("LD_PRELOAD", &shim.path).env("LIVE_SHIM_FILE", &path);
    let finished = run(command)?;
    let file = std::fs::read(&path)?;
    let mut rest = file.as_slice();
    let len = usize::try_from(number(&mut rest)?)?;
    ensure!(len > 0, "the shim was in no process of `{}`", finished.command);
    let images = rest
        .chunks_exact(IMAGE_BYTES)
        .take(len)
        .map(image)
        .collect::<Result<_>>()?;
    Ok((images, finished))
}

fn image(mut bytes: &[u8]) -> Result<ShimImage> {
    let pid = u32::try_from(number(&mut bytes)?)?;
    let comm = text(&mut bytes, COMM_BYTES)?;
    let exe = text(&mut bytes, EXE_BYTES)?;
    let mut paths = Vec::new();
    for function in FUNCTIONS {
        paths.extend(["calls", "bytes", "failed"].map(|field| format!("functions/{function}/{field}")));
    }
    paths.extend(["functions/free/calls", "functions/free/unmatched"].map(str::to_owned));
    for sum in SUMS {
        paths.extend(["count", "bytes"].map(|field| format!("{sum}/{field}")));
    }
    paths.push("temporary/count".to_owned());
    let mut figures = HeapFigures::default();
    for path in paths {
        figures.set(&path, number(&mut bytes)?);
    }
    let given_twice = number(&mut bytes)?;
    ensure!(
        given_twice == 0,
        "the shim missed {given_twice} frees in {comm} {pid}"
    );
    Ok(ShimImage {
        pid,
        comm,
        exe,
        figures,
    })
}

fn number(bytes: &mut &[u8]) -> Result<u64> {
    let (number, rest) = bytes.split_first_chunk().context("the shim's file is short")?;
    *bytes = rest;
    Ok(u64::from_le_bytes(*number))
}

fn text(bytes: &mut &[u8], len: usize) -> Result<String> {
    let (text, rest) = bytes.split_at_checked(len).context("the shim's file is short")?;
    *bytes = rest;
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}
