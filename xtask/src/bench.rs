//! `cargo xtask bench`: what tracing costs a malloc/free loop, beside bpftrace, in one run.
//!
//! Each measurement is a fresh process of the loop, timed by its thread's CPU time. Tools take turns within a
//! round, so that a machine that slows down or speeds up does so for all. What a tool counted is compared
//! with what the loop did: a tool that misses calls is not a fast one.

mod code;
mod measure;
mod report;
mod target;
mod tools;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{packages, privilege, process, product, setup, workspace};

/// How to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Fewer and shorter rounds: a look, not a figure to quote
    #[arg(long)]
    quick: bool,
    /// Call depths to measure at: frames of the program, from main to the caller of malloc
    #[arg(long, value_delimiter = ',', default_value = "20", value_parser = clap::value_parser!(u32).range(3..))]
    depth: Vec<u32>,
    /// Write the figures to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail if memtap is over its limit, or missed a call
    #[arg(long)]
    check: bool,
}

/// The most that memtap may cost, as a share of what the reference tool costs.
const LIMIT: f64 = 0.6;

/// Bytes of each block: glibc serves it from the thread's cache, so the loop itself is as short as it gets.
const SIZE_BYTES: u64 = 64;

/// How long to measure.
struct Effort {
    rounds: usize,
    batches: u64,
    pairs: u64,
}

const FULL: Effort = Effort {
    rounds: 5,
    batches: 7,
    pairs: 100_000,
};
const QUICK: Effort = Effort {
    rounds: 2,
    batches: 5,
    pairs: 30_000,
};

/// Measures every tool at every depth, prints a table, and says whether memtap is within its limit.
pub(crate) fn run(options: &Options) -> Result<()> {
    privilege::prime()?;
    setup::run(&setup::Options::default())?;
    if let Err(error) = packages::ensure(packages::BENCH) {
        eprintln!("xtask: {error:#}");
    }
    let memtap = product::build()?;
    privilege::prime()?;
    let folder = workspace::target_dir()?.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let target = target::build(&folder)?;
    let tools = tools::table(memtap);
    let effort = if options.quick { QUICK } else { FULL };

    let rows = measure::all(&tools, &options.depth, &effort, &target, &folder);
    let comparison = report::Comparison::new(&tools, &rows);
    process::report(&comparison.markdown(&effort));
    if let Some(file) = &options.json {
        fs::write(file, comparison.json(&effort))
            .with_context(|| format!("failed to write {}", file.display()))?;
        eprintln!("xtask: wrote {}", file.display());
    }
    if options.check && !comparison.passes() {
        bail!("failed to keep memtap within {LIMIT} of the reference; see the table above");
    }
    Ok(())
}
