//! The outcome of one kernel's tests.

use std::time::Duration;

use super::machine::Ended;
use super::series::Series;
use crate::process;
use crate::test_output::{TestCounts, TestResults};

/// A kernel that was tried.
pub(super) struct Trial {
    /// The series' name.
    pub(super) name: &'static str,
    /// The tests' results.
    pub(super) counts: TestCounts,
    /// From before the boot to after the power-off.
    pub(super) time: Duration,
    /// The outcome.
    pub(super) verdict: KernelVerdict,
}

/// The outcome.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KernelVerdict {
    /// All that ran passed.
    Passed,
    /// memtap does not run there, says so by this one line, and may.
    Refused(String),
    /// Something is wrong.
    Failed(Vec<String>),
    /// It could not be tried.
    Skipped(String),
}

/// Judges a guest that has run the tests.
pub(super) fn judge(series: &Series, ended: &Ended) -> KernelVerdict {
    let TestCounts { passed, failed, .. } = ended.tests.counts;
    match (&ended.results.refusal[..], series.may_refuse) {
        ([line], true) => KernelVerdict::Refused(line.clone()),
        ([], _) if failed > 0 => {
            let mut reasons = vec![format!("{failed} tests failed")];
            reasons.extend_from_slice(&ended.tests.failures);
            KernelVerdict::Failed(reasons)
        }
        ([], _) if ended.status != 0 => {
            KernelVerdict::Failed(vec![format!("the tests ended with {}", ended.status)])
        }
        ([], _) if passed == 0 => KernelVerdict::Failed(vec!["no test ran".to_owned()]),
        ([], _) => KernelVerdict::Passed,
        (lines, may_refuse) => {
            let what = if may_refuse {
                format!("memtap refuses by {} lines, not by one", lines.len())
            } else {
                "memtap refuses".to_owned()
            };
            KernelVerdict::Failed(vec![format!("{what}: {}", shortened(lines).join("\n  "))])
        }
    }
}

/// The first line and the last few: a verifier's log is long, and says at its end what is wrong.
fn shortened(lines: &[String]) -> Vec<String> {
    const LAST: usize = 8;
    let Some(left_out) = lines.len().checked_sub(LAST + 1).filter(|&count| count > 0) else {
        return lines.to_vec();
    };
    let mut shortened = vec![lines[0].clone(), format!("… {left_out} lines …")];
    shortened.extend_from_slice(&lines[lines.len() - LAST..]);
    shortened
}

impl KernelVerdict {
    /// Adds what is wrong.
    pub(super) fn object(&mut self, objections: Vec<String>) {
        match self {
            _ if objections.is_empty() => {}
            Self::Failed(reasons) => reasons.extend(objections),
            _ => *self = Self::Failed(objections),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "FAILED",
            Self::Skipped(_) => "SKIPPED",
        }
    }
}

impl Trial {
    /// A kernel that could not be tried.
    pub(super) fn missed(series: &Series, error: &anyhow::Error, is_failure: bool) -> Self {
        let reason = format!("{error:#}");
        Self {
            name: series.name,
            counts: TestCounts {
                skipped: usize::from(!is_failure),
                ..TestCounts::default()
            },
            time: Duration::ZERO,
            verdict: if is_failure {
                KernelVerdict::Failed(vec![reason])
            } else {
                KernelVerdict::Skipped(reason)
            },
        }
    }

    fn has_failed(&self) -> bool {
        matches!(self.verdict, KernelVerdict::Failed(_))
    }

    /// Returns what is said of this kernel, a line and perhaps more below it.
    pub(super) fn text(&self) -> String {
        let TestCounts {
            passed,
            failed,
            skipped,
        } = self.counts;
        let mut lines = vec![format!(
            "kernel {:<5} {:<8} {passed} passed, {failed} failed, {skipped} ignored, {} s",
            self.name,
            self.verdict.word(),
            self.time.as_secs()
        )];
        match &self.verdict {
            KernelVerdict::Passed => {}
            KernelVerdict::Refused(reason) | KernelVerdict::Skipped(reason) => lines.push(reason.clone()),
            KernelVerdict::Failed(reasons) => lines.extend_from_slice(reasons),
        }
        lines.join("\n  ")
    }
}

/// Prints what became of each kernel, and of all. Returns the tests' results on all of them, and
/// whether everything is as it has to be; `is_well_here` adds what was found elsewhere.
pub(super) fn report(trials: &[Trial], is_well_here: bool) -> (TestResults, bool) {
    for trial in trials {
        process::report(&trial.text());
    }
    process::report(&summary(trials));
    let has_succeeded = is_well_here && !trials.iter().any(Trial::has_failed);
    let mut results = TestResults::from(total(trials));
    for trial in trials {
        if let KernelVerdict::Failed(reasons) = &trial.verdict {
            results.failures.push(format!("kernel {}", trial.name));
            results.failures.extend_from_slice(reasons);
        }
    }
    (results, has_succeeded)
}

fn total(trials: &[Trial]) -> TestCounts {
    let mut counts = TestCounts::default();
    for trial in trials {
        counts += trial.counts;
    }
    counts
}

/// The last line: all kernels, and the tests of all of them.
fn summary(trials: &[Trial]) -> String {
    let counts = total(trials);
    let time: Duration = trials.iter().map(|trial| trial.time).sum();
    let kernels: Vec<String> = trials
        .iter()
        .map(|trial| format!("{} {}", trial.name, trial.verdict.word()))
        .collect();
    format!(
        "xtask kernels: {}; {} tests passed, {} failed, {} ignored in {} s",
        kernels.join(", "),
        counts.passed,
        counts.failed,
        counts.skipped,
        time.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::super::guest::Results;
    use super::super::series;
    use super::*;

    fn ended(status: u8, passed: usize, failed: usize, refusal: &[&str]) -> Ended {
        Ended {
            status,
            tests: TestResults::from(TestCounts {
                passed,
                failed,
                skipped: 0,
            }),
            results: Results {
                status: Some(status),
                doctor: String::new(),
                refusal: refusal.iter().map(|&line| line.to_owned()).collect(),
            },
            complaints: Vec::new(),
        }
    }

    #[test]
    fn verdicts() {
        let old = series::parse("5.10").expect("it is there");
        let new = series::parse("6.1").expect("it is there");
        assert_eq!(judge(new, &ended(0, 3, 0, &[])), KernelVerdict::Passed);
        let refusal = ended(1, 0, 0, &["memtap: error: too old"]);
        assert_eq!(
            judge(old, &refusal),
            KernelVerdict::Refused("memtap: error: too old".to_owned())
        );
        let failures = [
            judge(new, &refusal),
            judge(old, &ended(1, 0, 0, &["one", "two"])),
            judge(old, &ended(1, 3, 1, &[])),
            judge(new, &ended(101, 3, 0, &[])),
            judge(new, &ended(0, 0, 0, &[])),
        ];
        for verdict in failures {
            assert!(matches!(verdict, KernelVerdict::Failed(_)), "{verdict:?}");
        }
    }

    #[test]
    fn long_logs_are_shortened() {
        let lines: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        assert_eq!(shortened(&lines[..9]), &lines[..9]);
        let shortened = shortened(&lines);
        assert_eq!(shortened[..3], ["0", "… 11 lines …", "12"]);
        assert_eq!(shortened.len(), 10);
    }

    #[test]
    fn what_is_said() {
        let trial = |name, verdict| Trial {
            name,
            counts: TestCounts {
                passed: 2,
                failed: 1,
                skipped: 0,
            },
            time: Duration::from_millis(2900),
            verdict,
        };
        let mut verdict = KernelVerdict::Passed;
        verdict.object(Vec::new());
        assert_eq!(verdict, KernelVerdict::Passed);
        verdict.object(vec!["malloc grew".to_owned()]);
        let trials = [trial("6.1", verdict), trial("7.2", KernelVerdict::Passed)];
        assert_eq!(
            trials[0].text(),
            "kernel 6.1   FAILED   2 passed, 1 failed, 0 ignored, 2 s\n  malloc grew"
        );
        assert_eq!(
            summary(&trials),
            "xtask kernels: 6.1 FAILED, 7.2 passed; 4 tests passed, 2 failed, 0 ignored in 5 s"
        );
    }
}
