//! `cargo xtask test`: everything that CI runs.

use std::fmt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::test_output::{self, TestCounts, TestResults};
use crate::{ebpf, kernels, lint, packages, privilege, process, setup, workspace};

/// The tests to run.
#[derive(Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line, and independent of the others"
)]
pub(crate) struct TestOptions {
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

/// Sets up, checks, tests, and sums up. A failure of one part does not hide what the others would
/// say.
pub(crate) fn run(options: &TestOptions) -> Result<()> {
    if !options.unit {
        privilege::prime()?;
    }
    let mut clock = PhaseClock::start();
    setup::run(&setup::SetupOptions::default())?;
    clock.ends("set-up");
    let memtap = if options.unit {
        packages::ensure(packages::TEST)?;
        None
    } else {
        // Packages come over the network while both processors compile.
        Some(thread::scope(|scope| {
            let packages = scope.spawn(|| packages::ensure(packages::TEST));
            let memtap = build_suite();
            join(packages)?;
            memtap
        })?)
    };
    clock.ends("build");
    let mut failed = Vec::new();
    let mut parts = Vec::new();
    if let Some(memtap) = &memtap
        && !options.no_kernels
        && !options.suite
        && options.filters.is_empty()
    {
        // The suite looks at times and at all of the machine's probes: nothing runs beside it. The
        // guests run what it has compiled.
        parts.push(("suite", suite(options, memtap)?));
        clock.ends("suite");
        let beside = beside_guests(options)?;
        clock.ends("kernels, lint and unit tests");
        failed.extend(beside.lint_failed.then_some("lint"));
        parts.insert(0, ("unit", beside.unit));
        parts.push(("kernels", beside.kernels));
    } else {
        if !options.no_lint
            && let Err(error) = lint::run(&lint::LintOptions::default())
        {
            eprintln!("xtask: {error:#}");
            failed.push("lint");
        }
        if !options.suite {
            parts.push(("unit", unit_tests(options, run_all)?));
        }
        if let Some(memtap) = &memtap {
            parts.push(("suite", suite(options, memtap)?));
        }
        clock.ends("tests");
    }
    failed.extend(
        parts
            .iter()
            .filter(|(_, part)| !part.succeeded)
            .map(|(name, _)| *name),
    );
    summarize(&parts);
    eprintln!("xtask test: {clock}");
    if !failed.is_empty() {
        bail!("failed: {}; see above", failed.join(", "));
    }
    Ok(())
}

/// The times of the phases of a run, in order.
struct PhaseClock {
    phases: Vec<(&'static str, Duration)>,
    since: Instant,
}

impl PhaseClock {
    fn start() -> Self {
        Self {
            phases: Vec::new(),
            since: Instant::now(),
        }
    }

    /// Ends a phase, which began where the last one ended.
    fn ends(&mut self, phase: &'static str) {
        self.phases.push((phase, self.since.elapsed()));
        self.since = Instant::now();
    }
}

impl fmt::Display for PhaseClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Duration = self.phases.iter().map(|(_, took)| *took).sum();
        write!(f, "{} s", all.as_secs())?;
        for (index, (phase, took)) in self.phases.iter().enumerate() {
            let separator = if index == 0 { ":" } else { "," };
            write!(f, "{separator} {phase} {} s", took.as_secs())?;
        }
        Ok(())
    }
}

/// One part of the tests, after it ran.
struct PartResult {
    results: TestResults,
    succeeded: bool,
}

/// Added to the niceness of what runs beside guests.
const LANE_NICENESS: i32 = 15;

/// The results of what runs while other kernels boot.
struct BesideGuests {
    lint_failed: bool,
    unit: PartResult,
    kernels: PartResult,
}

/// Boots the other kernels and, meanwhile, lints and runs the unit tests, whose output follows as a
/// whole: a guest keeps one processor at work, and no time is looked at.
fn beside_guests(options: &TestOptions) -> Result<BesideGuests> {
    thread::scope(|scope| {
        let lane = scope.spawn(|| {
            // An emulated processor that has to share a real one takes twice as long, and the
            // guests take longest.
            if let Err(error) = rustix::process::nice(LANE_NICENESS) {
                eprintln!("xtask: lint and unit tests run as urgently as the guests: {error}");
            }
            let lint_failed = !options.no_lint && !lint_passes()?;
            Ok::<_, anyhow::Error>((lint_failed, unit_tests(options, collect_all)?))
        });
        let kernels = kernels::for_tests();
        let ((lint_failed, unit), (results, succeeded)) = (join(lane)?, kernels?);
        Ok(BesideGuests {
            lint_failed,
            unit,
            kernels: PartResult { results, succeeded },
        })
    })
}

/// The result of a thread; its panic is the caller's.
fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Runs `xtask lint` as a process of its own, whose messages are printed as a whole. Returns
/// whether it passed.
fn lint_passes() -> Result<bool> {
    let program = std::env::current_exe().context("failed to find xtask itself")?;
    eprintln!("xtask: lint runs beside the guests; its messages follow");
    let (_, status, text) = test_output::collect(workspace::untouched(&program).arg("lint"))?;
    eprint!("{text}");
    Ok(status.success())
}

/// A way of running commands and adding up their results.
type Runner = fn(Vec<Command>) -> Result<PartResult>;

/// All tests of all crates but the suite: pure code, without root.
fn unit_tests(options: &TestOptions, run: Runner) -> Result<PartResult> {
    // Everything but files of tests, of which the suite is the only one. Always the whole
    // workspace: for a part of it dependencies would be compiled anew, with other features.
    let commands = [["--lib", "--bins", "--examples"].as_slice(), &["--doc"]].map(|targets| {
        let mut command = workspace::cargo();
        command
            .args(["test", "--workspace", "--no-fail-fast"])
            .args(targets)
            .arg("--")
            .args(&options.filters)
            .args(&options.runner_arguments);
        command
    });
    run(commands.into())
}

/// `cargo test` of the traces of real programs.
fn cargo_test_suite() -> Command {
    let mut command = workspace::cargo();
    command.args(["test", "-p", "memtap-tests", "--test", "suite", "--release"]);
    command
}

/// Builds memtap and the suite. Returns the path of memtap.
fn build_suite() -> Result<PathBuf> {
    let memtap = ebpf::build_memtap()?;
    process::run(cargo_test_suite().arg("--no-run"), "build the suite")?;
    Ok(memtap)
}

/// Traces of real programs, by the release binary, as root.
fn suite(options: &TestOptions, memtap: &Path) -> Result<PartResult> {
    privilege::prime()?;
    let suite = |filter: Option<&String>| {
        let mut command = cargo_test_suite();
        command
            .env("MEMTAP_BIN", memtap)
            .arg("--")
            .args(filter)
            .args(&options.runner_arguments);
        command
    };
    if options.filters.is_empty() {
        return run_all(vec![suite(None)]);
    }
    // The suite's runner takes one filter at a time.
    run_all(options.filters.iter().map(|filter| suite(Some(filter))).collect())
}

fn run_all(commands: Vec<Command>) -> Result<PartResult> {
    let mut part = PartResult {
        results: TestResults::default(),
        succeeded: true,
    };
    for mut command in commands {
        let (results, status) = test_output::run(&mut command)?;
        part.results.add(results);
        part.succeeded &= status.success();
    }
    Ok(part)
}

/// Like [`run_all`]; what each command prints follows as a whole.
fn collect_all(commands: Vec<Command>) -> Result<PartResult> {
    let mut part = PartResult {
        results: TestResults::default(),
        succeeded: true,
    };
    for mut command in commands {
        let (results, status, text) = test_output::collect(&mut command)?;
        process::report(&text);
        part.results.add(results);
        part.succeeded &= status.success();
    }
    Ok(part)
}

/// The failures of all parts once more, and one line in addition to the runners' own.
fn summarize(parts: &[(&str, PartResult)]) {
    let mut total = TestCounts::default();
    for (name, part) in parts {
        total += part.results.counts;
        if !part.results.failures.is_empty() {
            let failures = part.results.failures.join("\n  ");
            process::report(&format!("\nfailures of {name}:\n  {failures}"));
        }
    }
    let by_part: Vec<String> = parts
        .iter()
        .map(|(name, part)| format!("{name}: {}", part.results.counts.passed))
        .collect();
    let TestCounts {
        passed,
        failed,
        skipped,
    } = total;
    process::report(&format!(
        "\nxtask test: {passed} passed, {failed} failed, {skipped} skipped ({} passed)",
        by_part.join(", ")
    ));
}
