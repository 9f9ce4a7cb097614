//! `cargo xtask truth`: memtap's stacks beside gdb's, frame by frame, on programs as they are
//! shipped.
//!
//! Each workload runs twice, in the same environment and at the same addresses: once under memtap
//! at full speed, once under gdb, which stops at every call. The counts per stack must be the same.
//! gdb is not ours, but it reads the same tables as memtap: what a compiler wrote wrongly into them
//! does not show here.

mod compare;
mod difference;
mod gdb;
mod job;
mod memtap;
mod modules;
mod report;
mod scratch;
mod stacks;
mod workload;
mod workloads;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};

use compare::Comparison;
use report::{WorkloadOutcome, WorkloadRow};
use scratch::ScratchDirectory;
use test_support::{packages, privilege, process, product, workspace};
use workload::TruthWorkload;

/// The workloads to compare, and their settings.
#[derive(Parser)]
#[command(
    name = "cargo xtask truth",
    bin_name = "cargo xtask truth",
    about = "Compare memtap's stacks with gdb's, frame by frame, on programs as they are shipped"
)]
struct TruthOptions {
    /// Workloads to compare; all where none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Stop gdb after so many calls, and look for these among memtap's; 0: compare the whole run
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    hits: u64,
    /// Functions whose calls are compared
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "malloc")]
    functions: Vec<String>,
    /// memtap's way of walking; its own default where this is not given
    #[arg(long, value_enum)]
    unwind: Option<UnwindOption>,
    /// Leave both sides' stacks and messages in this directory; target/truth where this is not
    /// given
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Use this memtap instead of building one
    #[arg(long, value_name = "FILE", hide = true)]
    memtap: Option<PathBuf>,
}

/// Ways of walking that memtap has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UnwindOption {
    Auto,
    Dwarf,
    Fp,
}

/// The least share of hits, in percent, whose stacks must be the same.
const BAR_PERCENT: f64 = 99.9;

/// Makes a workload that cannot run a failure, as for the suite.
const TEST_ALL: &str = "MEMTAP_TEST_ALL";

fn main() -> ExitCode {
    match run(&TruthOptions::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Compares every workload, prints a table and what differs, and fails below the bar.
fn run(options: &TruthOptions) -> Result<()> {
    let workloads = workload::select(&options.names)?;
    privilege::prime()?;
    packages::ensure(packages::TRUTH)?;
    let memtap = if let Some(memtap) = &options.memtap {
        memtap.clone()
    } else {
        product::build()?
    };
    privilege::prime()?;
    let out = match &options.out {
        Some(out) => out.clone(),
        None => workspace::target_dir()?.join("truth"),
    };
    fs::create_dir_all(&out).with_context(|| format!("failed to create {}", out.display()))?;
    // The tracers and the traced run in other directories, and some as other users.
    let out = out
        .canonicalize()
        .with_context(|| format!("failed to find {}", out.display()))?;

    let mut rows = Vec::new();
    for workload in workloads {
        eprintln!("xtask: {}", workload.name);
        rows.push(WorkloadRow {
            name: workload.name,
            outcome: compare_one(workload, options, &memtap, &out),
        });
    }
    process::report(&report::text(&rows));
    judge(
        &rows,
        !options.names.is_empty() || std::env::var_os(TEST_ALL).is_some(),
    )
}

/// Runs one workload under both.
fn compare_one(
    workload: &TruthWorkload,
    options: &TruthOptions,
    memtap: &Path,
    out: &Path,
) -> WorkloadOutcome {
    if let Err(error) = packages::ensure(workload.packages) {
        return WorkloadOutcome::Skipped(format!("{error:#}"));
    }
    let attempt = || {
        let scratch = ScratchDirectory::create(workload.name)?;
        let Some(job) = (workload.prepare)(&scratch)? else {
            return Ok(WorkloadOutcome::Skipped(workload.absent.to_owned()));
        };
        // What a program writes at its first run only, such as a cache, must not tell the runs
        // apart.
        job.run_alone(out, workload.name)?;
        let ours = memtap::record(memtap, &job, options.unwind, out, workload.name)?;
        let truth = gdb::record(&job, &options.functions, options.hits, out, workload.name)?;
        let ours = ours.only(&options.functions);
        let scope = job.scope(options.unwind, &truth);
        Ok(WorkloadOutcome::Compared(Comparison::new(&ours, &truth, scope)))
    };
    attempt().unwrap_or_else(|error: anyhow::Error| WorkloadOutcome::Failed(format!("{error:#}")))
}

/// Fails where a stack differs too often, a comparison failed, or one that was wanted could not be
/// made.
fn judge(rows: &[WorkloadRow], skipped_is_failure: bool) -> Result<()> {
    let failed: Vec<&str> = rows
        .iter()
        .filter(|row| match &row.outcome {
            WorkloadOutcome::Compared(comparison) => comparison.percent() < BAR_PERCENT,
            WorkloadOutcome::Failed(_) => true,
            WorkloadOutcome::Skipped(_) => skipped_is_failure,
        })
        .map(|row| row.name)
        .collect();
    if !failed.is_empty() {
        bail!(
            "failed to see the same stacks as gdb for {BAR_PERCENT} % of the hits of {}; see above",
            failed.join(", ")
        );
    }
    if !rows
        .iter()
        .any(|row| matches!(row.outcome, WorkloadOutcome::Compared(_)))
    {
        bail!("failed to compare anything; see above");
    }
    Ok(())
}
