//! Passing a test runner's output through while reading its results.

use std::io::{self, Read, Write};
use std::ops::AddAssign;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result};
use test_support::child::{ChildGuard, Scope};

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

/// Runs `command`; what it prints on standard output appears at once, and its results are added up.
pub(crate) fn run(command: &mut Command) -> Result<(TestCounts, ExitStatus)> {
    let mut child = ChildGuard::spawn(command.stdout(Stdio::piped()), Scope::Process)?;
    let counts = match child.take_stdout() {
        Some(output) => pass_through(output, io::stdout().lock()).context("failed to pass test output on")?,
        None => TestCounts::default(),
    };
    let status = child.wait()?;
    Ok((counts, status))
}

/// Like [`run`], for commands beside each other: whole lines, each behind `label`.
pub(crate) fn run_labelled(command: &mut Command, label: &str) -> Result<(TestCounts, ExitStatus)> {
    let mut child = ChildGuard::spawn(command.stdout(Stdio::piped()), Scope::Process)?;
    let mut counts = TestCounts::default();
    if let Some(output) = child.take_stdout() {
        let mut output = Labelled {
            label,
            line: Vec::new(),
            to: io::stdout(),
            from: output,
        };
        counts = output.pass_through().context("failed to pass test output on")?;
    }
    Ok((counts, child.wait()?))
}

/// Runs `command` and keeps what it prints, messages first: for one beside others that print.
pub(crate) fn collect(command: &mut Command) -> Result<(TestCounts, ExitStatus, String)> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start {}", command.get_program().display()))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let mut counts = TestCounts::default();
    for line in printed.lines() {
        counts += parse(line).unwrap_or_default();
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &printed;
    Ok((counts, output.status, text))
}

/// Output that is passed on by whole lines.
struct Labelled<'a, R, W> {
    label: &'a str,
    line: Vec<u8>,
    from: R,
    to: W,
}

impl<R: Read, W: Write> Labelled<'_, R, W> {
    fn pass_through(&mut self) -> io::Result<TestCounts> {
        let mut counts = TestCounts::default();
        let mut buffer = [0; 4096];
        loop {
            let length = self.from.read(&mut buffer)?;
            for &byte in &buffer[..length] {
                self.line.push(byte);
                if byte == b'\n' {
                    counts += self.end_line()?;
                }
            }
            if length == 0 {
                // The last line may lack its end.
                if !self.line.is_empty() {
                    self.line.push(b'\n');
                    counts += self.end_line()?;
                }
                return Ok(counts);
            }
        }
    }

    /// Writes the line at once, so that lines of two commands do not mix.
    fn end_line(&mut self) -> io::Result<TestCounts> {
        let line = std::mem::take(&mut self.line);
        let labelled = [self.label.as_bytes(), b" | ", &line].concat();
        self.to.write_all(&labelled)?;
        self.to.flush()?;
        Ok(parse(String::from_utf8_lossy(&line).trim_end()).unwrap_or_default())
    }
}

/// Copies piece by piece, not line by line: a test that hangs has printed its name without a line's
/// end.
fn pass_through(mut from: impl Read, mut to: impl Write) -> io::Result<TestCounts> {
    let mut counts = TestCounts::default();
    let mut buffer = [0; 4096];
    let mut line = Vec::new();
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(counts);
        }
        let bytes = &buffer[..length];
        to.write_all(bytes)?;
        to.flush()?;
        for &byte in bytes {
            if byte == b'\n' {
                counts += parse(&String::from_utf8_lossy(&line)).unwrap_or_default();
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
        let counts = labelled.pass_through().expect("memory can be written to");
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
        let counts = pass_through(output.as_bytes(), &mut copy).expect("memory can be written to");
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
}
