//! `cargo xtask bench`: what tracing costs a malloc/free loop, and what following its blocks, beside other tools; what a walk of its stack costs,
//! beside the kernel's own; and what making unwind tables takes.
//!
//! Each measurement of the loop is a fresh process of it, timed by its thread's CPU time. Tools take turns within
//! a round, so that a machine that slows down or speeds up does so for all. What a tool counted is compared
//! with what the loop did: a tool that misses calls is not a fast one.

mod code;
mod compare;
mod measure;
mod report;
mod running_loop;
mod tables;
mod target;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::slice;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::json;

use crate::{packages, privilege, process, product, setup, workspace};

/// How to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Fewer and shorter rounds: a look, not a figure to quote
    #[arg(long)]
    quick: bool,
    /// Call depths to measure at: frames of the program, from main to the caller of malloc
    #[arg(long, value_delimiter = ',', default_value = "5,20,60", value_parser = clap::value_parser!(u32).range(3..))]
    depth: Vec<u32>,
    /// Write the figures to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail if memtap is over a limit, or missed a call
    #[arg(long)]
    check: bool,
}

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
    rounds: 1,
    batches: 7,
    pairs: 20_000,
};

/// Frames of the program for walks: 12, 27 and 67 frames with those that libc starts it with.
const WALK_DEPTHS: [u32; 3] = [
    12 - report::START_FRAMES,
    27 - report::START_FRAMES,
    67 - report::START_FRAMES,
];

/// Frames of the program where blocks are followed.
const LIVE_DEPTH: u32 = 20;

/// Measures everything, prints tables, and says whether memtap is within its limits.
pub(crate) fn run(options: &Options) -> Result<()> {
    privilege::prime()?;
    setup::run(&setup::Options::default())?;
    // One by one: what cannot be had must not keep the others out.
    for package in packages::BENCH {
        if let Err(error) = packages::ensure(slice::from_ref(package)) {
            eprintln!("xtask: {error:#}");
        }
    }
    let memtap = product::build()?;
    let examples = build_examples()?;
    privilege::prime()?;
    let folder = workspace::target_dir()?.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let builds = target::Builds::new(&folder)?;
    let effort = if options.quick { QUICK } else { FULL };

    process::report(&report::heading(&effort));
    let walk_cost = examples.join("walk_cost");
    let tools = tools::calls(&memtap, &walk_cost);
    let rows = measure::all(&tools, &options.depth, &effort, &builds, &folder);
    let calls = compare::compare(&tools, &rows, compare::Share::Whole);
    process::report(&report::calls(&calls));

    let tools = tools::live(&memtap);
    let rows = measure::all(&tools, &[LIVE_DEPTH], &effort, &builds, &folder);
    let live = compare::compare(&tools, &rows, compare::Share::Whole);
    process::report(&report::live(&live));

    let tools = tools::walks(&walk_cost);
    let rows = measure::all(&tools, &WALK_DEPTHS, &effort, &builds, &folder);
    let walks = compare::compare(&tools, &rows, compare::Share::Addition);
    process::report(&report::walks(&walks));

    let tables = tables::measure(&examples.join("table_cost"), effort.rounds * 2 + 1)?;
    process::report(&tables::markdown(&tables));

    let passes = [&calls, &live, &walks]
        .into_iter()
        .all(|lines| compare::passes(lines))
        && tables::passes(&tables);
    if let Some(file) = &options.json {
        let document = json!({
            "schema": "memtap.bench/2",
            "machine": report::machine(),
            "size_bytes": SIZE_BYTES,
            "rounds": effort.rounds,
            "batches": effort.batches,
            "pairs": effort.pairs,
            "passes": passes,
            "rows": report::json(&calls),
            "live": report::json(&live),
            "walks": report::json(&walks),
            "tables": tables::json(&tables),
        });
        write(file, &format!("{document:#}\n"))?;
    }
    if options.check && !passes {
        bail!("failed to keep memtap within its limits; see the tables above");
    }
    Ok(())
}

/// Builds the programs that measure parts of memtap, with the feature that puts these parts' eBPF programs in
/// their object. memtap's own binary has been built without it. Returns their folder.
fn build_examples() -> Result<PathBuf> {
    let mut command = workspace::cargo();
    command.args(["build", "--release", "-p", "memtap", "--features", "bench"]);
    command.args(["--example", "walk_cost", "--example", "table_cost"]);
    process::run(&mut command, "build what measures walks and tables")?;
    Ok(workspace::target_dir()?.join("release/examples"))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("failed to write {}", file.display()))?;
    eprintln!("xtask: wrote {}", file.display());
    Ok(())
}
