//! One round of tests on several kernels.

use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::guest;
use super::image::KernelImage;
use super::machine::{self, Ended};
use super::series::{self, Series};
use super::suite::Suite;
use super::verdict::{self, KernelVerdict, Trial};
use super::verifier::{self, Recorded};
use crate::test_output::{TestCounts, TestResults};
use crate::{privilege, process};

/// Guests at once, where there are as many processors: QEMU emulates all of a guest's processors in
/// one thread.
const GUESTS: usize = 2;

/// A guest that has powered off or failed, and the time from before the boot.
struct GuestRun {
    ended: Result<Ended>,
    time: Duration,
}

/// The tests to run, and their results so far.
pub(super) struct KernelRound {
    memtap: PathBuf,
    suite: Suite,
    recorded: Recorded,
    bless: bool,
    trials: Vec<Trial>,
    /// Objections to this machine's own kernel.
    objections: Vec<String>,
}

impl KernelRound {
    /// A round that has not begun. With `bless` it records the verifier's counts in place of
    /// judging them.
    pub(super) fn new(memtap: PathBuf, suite: Suite, bless: bool) -> Result<Self> {
        Ok(Self {
            memtap,
            suite,
            recorded: Recorded::read()?,
            bless,
            trials: Vec::new(),
            objections: Vec::new(),
        })
    }

    /// Boots the kernels that can be had, two at a time where there are two processors, and runs
    /// the tests there. One that cannot be had is a failure if `must_run` says so.
    pub(super) fn try_kernels(&mut self, wanted: &[&'static Series], update: bool, must_run: bool) {
        let mut images = Vec::new();
        for series in wanted {
            match KernelImage::find(series, update) {
                Ok(image) => images.push((*series, image)),
                Err(error) => self.miss(series, &error, must_run),
            }
        }
        let job = guest::testing(&self.memtap, &self.suite.path, &self.suite.arguments);
        for (index, run) in run_beside(&images, &job) {
            let (series, image) = &images[index];
            self.judge(series, image, run);
        }
    }

    /// Judges a guest's run, and says what has become of it.
    fn judge(&mut self, series: &Series, image: &KernelImage, run: GuestRun) {
        let (counts, verdict) = match run.ended {
            Ok(ended) => {
                tell_complaints(image, &ended);
                let mut verdict = verdict::judge(series, &ended);
                if !series.may_refuse {
                    verdict.object(verifier::missing_in(&ended.results.doctor, series.lacks));
                }
                if series.counts_instructions {
                    verdict.object(self.judge_instructions(series.name, &ended.results.doctor));
                }
                (ended.tests.counts, verdict)
            }
            Err(error) => (
                TestCounts::default(),
                KernelVerdict::Failed(vec![format!("{error:#}")]),
            ),
        };
        let trial = Trial {
            name: series.name,
            counts,
            time: run.time,
            verdict,
        };
        eprintln!("xtask: {}", trial.text());
        self.trials.push(trial);
    }

    /// Notes that a kernel cannot be had here, which may be a failure.
    fn miss(&mut self, series: &Series, error: &anyhow::Error, is_failure: bool) {
        let trial = Trial::missed(series, error, is_failure);
        eprintln!("xtask: NOT RUN: {}", trial.text());
        self.trials.push(trial);
    }

    /// Judges the counts of this machine's own kernel, which is somebody else's on the next
    /// machine: where nothing is recorded of it, nothing is asked of it.
    pub(super) fn judge_here(&mut self) -> Result<()> {
        let output = privilege::elevated(&self.memtap)
            .args(["doctor", "--json"])
            .output()
            .context("failed to start `memtap doctor`")?;
        let doctor = String::from_utf8_lossy(&output.stdout);
        let release = verifier::release_in(&doctor).unwrap_or_default();
        let kernel = format!("host-{}", series::of_release(&release));
        if !self.bless && !self.recorded.has(&kernel) {
            eprintln!("xtask: no instruction counts of {kernel} are recorded; --bless does");
            return Ok(());
        }
        self.objections = self.judge_instructions(&kernel, &doctor);
        Ok(())
    }

    /// Returns the kernels that have recorded figures and that this round has not tried: programs
    /// come and go on all of them.
    fn left_out(&self) -> Vec<&'static str> {
        let is_left_out = |series: &&Series| {
            series.counts_instructions
                && self.recorded.has(series.name)
                && !self.trials.iter().any(|trial| trial.name == series.name)
        };
        series::ALL
            .into_iter()
            .filter(is_left_out)
            .map(|series| series.name)
            .collect()
    }

    /// Writes what is blessed, reports, and returns the tests' results on all kernels, and whether
    /// everything is as it has to be.
    pub(super) fn finish(self) -> Result<(TestResults, bool)> {
        if self.bless {
            self.recorded.write()?;
            for name in self.left_out() {
                process::report(&format!(
                    "the figures of kernel {name} are those of before: run `cargo xtask kernels {name} --bless` too"
                ));
            }
        }
        for objection in &self.objections {
            process::report(&format!("this kernel: {objection}"));
        }
        let (mut results, has_succeeded) = verdict::report(&self.trials, self.objections.is_empty());
        results.failures.extend(self.objections);
        Ok((results, has_succeeded))
    }

    /// Returns what is wrong with the verifier's counts; nothing where they are recorded now.
    fn judge_instructions(&mut self, kernel: &str, doctor: &str) -> Vec<String> {
        match verifier::counts_in(doctor) {
            Ok(found) if self.bless => {
                self.recorded.bless(kernel, &found);
                Vec::new()
            }
            Ok(found) => self.recorded.objections(kernel, &found),
            Err(error) => vec![format!("{error:#}")],
        }
    }
}

/// Boots all images, [`GUESTS`] at once, and returns their runs in the order of the images.
fn run_beside(images: &[(&'static Series, KernelImage)], job: &str) -> Vec<(usize, GuestRun)> {
    let guests = thread::available_parallelism().map_or(1, usize::from).min(GUESTS);
    let (next, runs) = (Mutex::new(0..images.len()), Mutex::new(Vec::new()));
    // A poisoned lock is one that a panic has passed through, which the scope passes on.
    let take = || next.lock().ok().and_then(|mut next| next.next());
    let work = || {
        while let Some(index) = take() {
            let (series, image) = &images[index];
            eprintln!("xtask: kernel {}: {}", series.name, image.release);
            let began = Instant::now();
            let label = (guests > 1 && images.len() > 1).then_some(series.name);
            let ended = machine::run(image, job, label);
            let time = began.elapsed();
            if let Ok(mut runs) = runs.lock() {
                runs.push((index, GuestRun { ended, time }));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..guests {
            scope.spawn(work);
        }
        work();
    });
    let mut runs = runs.into_inner().unwrap_or_default();
    runs.sort_by_key(|(index, _)| *index);
    runs
}

/// Says what a kernel was not well with.
pub(super) fn tell_complaints(image: &KernelImage, ended: &Ended) {
    for line in &ended.complaints {
        eprintln!("xtask: the kernel {} complains: {line}", image.release);
    }
}
