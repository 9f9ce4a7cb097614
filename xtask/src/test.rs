//! `cargo xtask test`: everything that CI runs.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::test_output::{self, Counts};
use crate::{kernels, lint, packages, privilege, process, product, setup, workspace};

/// What to run.
#[derive(Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line, and independent of the others"
)]
pub(crate) struct Options {
    /// Run only the tests whose names contain one of these
    filters: Vec<String>,
    /// Leave out formatting, clippy and the repository's own rules
    #[arg(long)]
    no_lint: bool,
    /// Run the unit tests alone
    #[arg(long, conflicts_with = "suite")]
    unit: bool,
    /// Run the traces of real programs alone
    #[arg(long)]
    suite: bool,
    /// Do not boot other kernels; nor does a run of one part, or of some tests
    #[arg(long)]
    no_kernels: bool,
    /// More arguments for the test runners
    #[arg(last = true)]
    runner_arguments: Vec<String>,
}

/// Sets up, checks, tests, and sums up. A failure of one part does not hide what the others would say.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !options.unit {
        privilege::prime()?;
    }
    setup::run(&setup::Options::default())?;
    packages::ensure(packages::TEST)?;
    let mut failed = Vec::new();
    if !options.no_lint
        && let Err(error) = lint::run(&lint::LintOptions::default())
    {
        eprintln!("xtask: {error:#}");
        failed.push("lint");
    }
    let mut parts = Vec::new();
    if !options.suite {
        parts.push(("unit", unit_tests(options)?));
    }
    if !options.unit {
        parts.push(("suite", suite(options)?));
    }
    // The last, since it takes longest and runs what the suite has compiled.
    if !options.no_kernels && !options.unit && !options.suite && options.filters.is_empty() {
        let (counts, succeeded) = kernels::for_tests()?;
        parts.push(("kernels", Part { counts, succeeded }));
    }
    failed.extend(
        parts
            .iter()
            .filter(|(_, part)| !part.succeeded)
            .map(|(name, _)| *name),
    );
    summarize(&parts);
    if !failed.is_empty() {
        bail!("failed: {}; see above", failed.join(", "));
    }
    Ok(())
}

/// One part of the tests, after it ran.
struct Part {
    counts: Counts,
    succeeded: bool,
}

/// All tests of all crates but the suite: pure code, without root.
fn unit_tests(options: &Options) -> Result<Part> {
    let mut all_but_suite = workspace::cargo();
    all_but_suite.args([
        "test",
        "--workspace",
        "--exclude",
        "memtap-tests",
        "--no-fail-fast",
        "--",
    ]);
    all_but_suite
        .args(&options.filters)
        .args(&options.runner_arguments);
    let mut helpers = workspace::cargo();
    helpers.args(["test", "-p", "memtap-tests", "--lib", "--"]);
    helpers.args(&options.filters).args(&options.runner_arguments);
    run_all([all_but_suite, helpers])
}

/// Traces of real programs, by the release binary, as root.
fn suite(options: &Options) -> Result<Part> {
    let memtap = product::build()?;
    privilege::prime()?;
    let suite = |filter: Option<&String>| {
        let mut command = workspace::cargo();
        command
            .env("MEMTAP_BIN", &memtap)
            .args(["test", "-p", "memtap-tests", "--test", "suite", "--release", "--"])
            .args(filter)
            .args(&options.runner_arguments);
        command
    };
    if options.filters.is_empty() {
        return run_all([suite(None)]);
    }
    // The suite's runner takes one filter at a time.
    run_all(options.filters.iter().map(|filter| suite(Some(filter))))
}

fn run_all(commands: impl IntoIterator<Item = Command>) -> Result<Part> {
    let mut part = Part {
        counts: Counts::default(),
        succeeded: true,
    };
    for mut command in commands {
        let (counts, status) = test_output::run(&mut command)?;
        part.counts += counts;
        part.succeeded &= status.success();
    }
    Ok(part)
}

/// One line in addition to the runners' own.
fn summarize(parts: &[(&str, Part)]) {
    let mut total = Counts::default();
    for (_, part) in parts {
        total += part.counts;
    }
    let by_part: Vec<String> = parts
        .iter()
        .map(|(name, part)| format!("{name}: {}", part.counts.passed))
        .collect();
    let Counts {
        passed,
        failed,
        skipped,
    } = total;
    process::report(&format!(
        "\nxtask test: {passed} passed, {failed} failed, {skipped} skipped ({} passed)",
        by_part.join(", ")
    ));
}
