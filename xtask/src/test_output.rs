//! Passing a test runner's output through while reading its results.

use std::io::{self, Read, Write};
use std::ops::AddAssign;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result};
use test_support::child::{ChildGuard, Scope};

/// Lines of a run's failures that are kept: enough for several tests' messages.
const MAX_FAILURE_LINES: usize = 120;

/// The sum of the `test result:` lines of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TestCounts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl AddAssign for TestCounts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Results that a run of tests has printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TestResults {
    /// The sums.
    pub(crate) counts: TestCounts,
    /// The runner's lines on the tests that failed, the first [`MAX_FAILURE_LINES`]. They are
    /// repeated at the very end, where they are read however long the output is.
    pub(crate) failures: Vec<String>,
    is_in_failures: bool,
}

impl From<TestCounts> for TestResults {
    fn from(counts: TestCounts) -> Self {
        Self {
            counts,
            ..Self::default()
        }
    }
}

impl TestResults {
    /// Reads one line of the runner's output.
    fn read_line(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(counts) = parse(line) {
            self.counts += counts;
            self.is_in_failures = false;
        } else if line == "failures:" {
            self.is_in_failures = true;
        } else if self.is_in_failures && !line.is_empty() && self.failures.len() < MAX_FAILURE_LINES {
            self.failures.push(line.to_owned());
        }
    }

    /// Adds the results of another run.
    pub(crate) fn add(&mut self, other: Self) {
        self.counts += other.counts;
        self.failures.extend(other.failures);
    }
}

/// Runs `command`; what it prints on standard output appears at once, and its results are added up.
pub(crate) fn run(command: &mut Command) -> Result<(TestResults, ExitStatus)> {
    let mut child = ChildGuard::spawn(command.stdout(Stdio::piped()), Scope::Process)?;
    let results = match child.take_stdout() {
        Some(output) => pass_through(output, io::stdout().lock()).context("failed to pass test output on")?,
        None => TestResults::default(),
    };
    let status = child.wait()?;
    Ok((results, status))
}

/// Like [`run`], for commands beside each other: whole lines, each behind `label`.
pub(crate) fn run_labelled(command: &mut Command, label: &str) -> Result<(TestResults, ExitStatus)> {
    let mut child = ChildGuard::spawn(command.stdout(Stdio::piped()), Scope::Process)?;
    let mut results = TestResults::default();
    if let Some(output) = child.take_stdout() {
        let mut output = Labelled {
            label,
            line: Vec::new(),
            to: io::stdout(),
            from: output,
        };
        results = output.pass_through().context("failed to pass test output on")?;
    }
    Ok((results, child.wait()?))
}

/// Runs `command` and keeps what it prints, messages first: for one beside others that print.
pub(crate) fn collect(command: &mut Command) -> Result<(TestResults, ExitStatus, String)> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start {}", command.get_program().display()))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let mut results = TestResults::default();
    for line in printed.lines() {
        results.read_line(line);
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &printed;
    Ok((results, output.status, text))
}

/// Output that is passed on by whole lines.
struct Labelled<'a, R, W> {
    label: &'a str,
    line: Vec<u8>,
    from: R,
    to: W,
}

impl<R: Read, W: Write> Labelled<'_, R, W> {
    fn pass_through(&mut self) -> io::Result<TestResults> {
        let mut results = TestResults::default();
        let mut buffer = [0; 4096];
        loop {
            let length = self.from.read(&mut buffer)?;
            for &byte in &buffer[..length] {
                self.line.push(byte);
                if byte == b'\n' {
                    self.end_line(&mut results)?;
                }
            }
            if length == 0 {
                // The last line may lack its end.
                if !self.line.is_empty() {
                    self.line.push(b'\n');
                    self.end_line(&mut results)?;
                }
                return Ok(results);
            }
        }
    }

    /// Writes the line at once, so that lines of two commands do not mix.
    fn end_line(&mut self, results: &mut TestResults) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let labelled = [self.label.as_bytes(), b" | ", &line].concat();
        self.to.write_all(&labelled)?;
        self.to.flush()?;
        results.read_line(&String::from_utf8_lossy(&line));
        Ok(())
    }
}

/// Copies piece by piece, not line by line: a test that hangs has printed its name without a line's
/// end.
fn pass_through(mut from: impl Read, mut to: impl Write) -> io::Result<TestResults> {
    let mut results = TestResults::default();
    let mut buffer = [0; 4096];
    let mut line = Vec::new();
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(results);
        }
        let bytes = &buffer[..length];
        to.write_all(bytes)?;
        to.flush()?;
        for &byte in bytes {
            if byte == b'\n' {
                results.read_line(&String::from_utf8_lossy(&line));
                line.clear();
            } else {
                line.push(byte);
            }
        }
    }
}

/// Reads `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; …`.
fn parse(line: &str) -> Option<TestCounts> {
    let (_, results) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |name: &str| {
        results
            .split("; ")
            .find_map(|part| part.trim().strip_suffix(name)?.trim_end().parse::<usize>().ok())
    };
    Some(TestCounts {
        passed: count("passed")?,
        failed: count("failed")?,
        skipped: count("ignored").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_libtest() {
        let line = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; \
                    finished in 0.01s";
        assert_eq!(
            parse(line),
            Some(TestCounts {
                passed: 12,
                failed: 2,
                skipped: 1
            })
        );
        assert_eq!(parse("test a ... ok"), None);
        assert_eq!(parse("test result: ok. nothing"), None);
    }

    #[test]
    fn lines_are_labelled_and_added_up() {
        let output = "running\n\ntest result: ok. 1 passed; 0 failed; 2 ignored\r\nlast";
        let mut copy = Vec::new();
        let mut labelled = Labelled {
            label: "6.1",
            line: Vec::new(),
            from: output.as_bytes(),
            to: &mut copy,
        };
        let counts = labelled.pass_through().expect("memory can be written to").counts;
        let expected = TestCounts {
            passed: 1,
            failed: 0,
            skipped: 2,
        };
        assert_eq!(counts, expected);
        let expected =
            "6.1 | running\n6.1 | \n6.1 | test result: ok. 1 passed; 0 failed; 2 ignored\r\n6.1 | last\n";
        assert_eq!(String::from_utf8_lossy(&copy), expected);
    }

    #[test]
    fn output_is_passed_on_and_added_up() {
        let output = "running 3 tests\n\ntest result: ok. 1 passed; 0 failed; 2 ignored\n\
                      test result: ok. 3 passed; 0 failed; 0 ignored\nlast";
        let mut copy = Vec::new();
        let counts = pass_through(output.as_bytes(), &mut copy)
            .expect("memory can be written to")
            .counts;
        assert_eq!(
            counts,
            TestCounts {
                passed: 4,
                failed: 0,
                skipped: 2
            }
        );
        assert_eq!(copy, output.as_bytes());
    }

    #[test]
    fn failures_are_kept() {
        let output = "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b ----\nwrong: 3\n\n\
                      failures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored\nlater\n";
        let results = pass_through(output.as_bytes(), Vec::new()).expect("memory can be written to");
        assert_eq!(results.failures, ["---- b ----", "wrong: 3", "    b"]);
        assert_eq!(results.counts.failed, 1);
    }
}
