//! `cargo xtask kernels`: other kernels, booted under QEMU, and what memtap does on them.
//!
//! A guest sees the host's whole root file system and may write to it, but what it writes stays in
//! its memory. So memtap and the tests are built here, and run there as they are.

mod cpio;
mod guest;
mod image;
mod machine;
mod round;
mod run_directory;
mod series;
mod share;
mod suite;
mod verdict;
mod verifier;

pub(crate) use verifier::counts_in as verifier_counts;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::image::KernelImage;
use self::round::KernelRound;
use self::series::Series;
use self::suite::Suite;
use self::verdict::Trial;
use crate::test_output::TestResults;
use crate::{privilege, product, setup};

/// The tests to run, and the kernels.
#[derive(Args)]
pub(crate) struct KernelsOptions {
    /// Series of Debian's kernels, such as 6.1; all that are known if none is given
    #[arg(value_parser = series::parse)]
    series: Vec<&'static Series>,
    /// Run the tests of the suite whose names contain FILTER, in place of the core tests
    #[arg(long, value_name = "FILTER")]
    only: Option<String>,
    /// Record the verifier's instruction counts in tests/kernels/verifier.json
    #[arg(long)]
    bless: bool,
    /// Look for newer kernels than those in the cache
    #[arg(long)]
    update: bool,
    /// Use this memtap instead of building one
    #[arg(long, value_name = "FILE", hide = true)]
    memtap: Option<PathBuf>,
    /// Run a command in place of tests, and end as it ends
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["only", "bless"])]
    command: Vec<OsString>,
}

/// Boots each kernel, runs what is to be run, and sums up. A kernel that fails does not hide what
/// the others would say.
pub(crate) fn run(options: &KernelsOptions) -> Result<ExitCode> {
    machine::prepare()?;
    let series = match &options.series[..] {
        [] => &series::ALL,
        named => named,
    };
    if !options.command.is_empty() {
        return run_command(series, options);
    }
    setup::run(&setup::SetupOptions::default())?;
    let memtap = match &options.memtap {
        Some(path) => path
            .canonicalize()
            .with_context(|| format!("failed to find {}", path.display()))?,
        None => product::build()?,
    };
    let suite = Suite::build(options.only.as_deref())?;
    privilege::prime()?;
    eprintln!("xtask: this kernel first");
    let here = suite.run_here(&memtap)?;
    if here.failed > 0 {
        eprintln!(
            "xtask: {} tests fail on this kernel too; the others are tried all the same",
            here.failed
        );
    }
    let mut round = KernelRound::new(memtap, suite, options.bless)?;
    round.try_kernels(series, options.update, true);
    round.judge_here()?;
    let (_, has_succeeded) = round.finish()?;
    if !has_succeeded {
        bail!("failed on some kernels; see above");
    }
    Ok(ExitCode::SUCCESS)
}

/// The core tests on the kernels that `cargo xtask test` has to try, after the suite has run here.
/// Where they cannot be had, that is said, and counted as skipped; with `MEMTAP_TEST_ALL=1` it is a
/// failure. Returns the tests' results on all of them, and whether everything is as it has to be.
pub(crate) fn for_tests() -> Result<(TestResults, bool)> {
    let must_run = std::env::var_os("MEMTAP_TEST_ALL").is_some_and(|value| value == "1");
    if let Err(error) = machine::prepare() {
        let trials = series::FOR_TESTS.map(|series| Trial::missed(series, &error, must_run));
        return Ok(verdict::report(&trials, true));
    }
    let memtap = product::build()?;
    let suite = Suite::build(None)?;
    privilege::prime()?;
    let mut round = KernelRound::new(memtap, suite, false)?;
    round.try_kernels(&series::FOR_TESTS, false, must_run);
    round.judge_here()?;
    round.finish()
}

/// One command in place of tests, on one kernel after the other until one fails.
fn run_command(series: &[&'static Series], options: &KernelsOptions) -> Result<ExitCode> {
    let job = guest::line(&options.command);
    for series in series {
        let image = KernelImage::find(series, options.update)?;
        let ended = machine::run(&image, &job, None)?;
        round::tell_complaints(&image, &ended);
        if ended.status != 0 {
            return Ok(ExitCode::from(ended.status));
        }
    }
    Ok(ExitCode::SUCCESS)
}
