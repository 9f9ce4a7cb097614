//! Passing a test runner's output through while reading its results.

use std::io::{self, Read, Write};
use std::ops::AddAssign;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result};
use test_support::child::{ChildGuard, Scope};

/// What the `test result:` lines of a run add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Runs `command`; what it prints on standard output appears at once, and its results are added up.
pub(crate) fn run(command: &mut Command) -> Result<(Counts, ExitStatus)> {
    let mut child = ChildGuard::spawn(command.stdout(Stdio::piped()), Scope::Process)?;
    let counts = match child.take_stdout() {
        Some(output) => pass_through(output, io::stdout().lock()).context("failed to pass test output on")?,
        None => Counts::default(),
    };
    let status = child.wait()?;
    Ok((counts, status))
}

/// Copies piece by piece, not line by line: a test that hangs has printed its name without a line's end.
fn pass_through(mut from: impl Read, mut to: impl Write) -> io::Result<Counts> {
    let mut counts = Counts::default();
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
fn parse(line: &str) -> Option<Counts> {
    let (_, results) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |name: &str| {
        results
            .split("; ")
            .find_map(|part| part.trim().strip_suffix(name)?.trim_end().parse::<usize>().ok())
    };
    Some(Counts {
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
            Some(Counts {
                passed: 12,
                failed: 2,
                skipped: 1
            })
        );
        assert_eq!(parse("test a ... ok"), None);
        assert_eq!(parse("test result: ok. nothing"), None);
    }

    #[test]
    fn output_is_passed_on_and_added_up() {
        let output = "running 3 tests\n\ntest result: ok. 1 passed; 0 failed; 2 ignored\n\
                      test result: ok. 3 passed; 0 failed; 0 ignored\nlast";
        let mut copy = Vec::new();
        let counts = pass_through(output.as_bytes(), &mut copy).expect("memory can be written to");
        assert_eq!(
            counts,
            Counts {
                passed: 4,
                failed: 0,
                skipped: 2
            }
        );
        assert_eq!(copy, output.as_bytes());
    }
}
