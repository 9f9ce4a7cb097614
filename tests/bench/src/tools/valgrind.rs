//! valgrind's two tools for the heap: the loop runs on its synthetic processor.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{Launcher, SeenCalls};
use test_support::workspace;

/// One of its tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Valgrind {
    /// Every block's life, by the stack that allocated it.
    Dhat,
    /// Live memory at points of time; it does not report how many calls there were.
    Massif,
}

const FILE: &str = "valgrind.out";

impl Valgrind {
    /// Arguments of valgrind, before the program; its messages go to a file of `directory`.
    pub(crate) fn arguments(self, directory: &Path) -> Vec<String> {
        let (tool, option) = match self {
            Self::Dhat => ("dhat", "dhat-out-file"),
            Self::Massif => ("massif", "massif-out-file"),
        };
        vec![
            format!("--tool={tool}"),
            format!("--{option}={}", directory.join(FILE).display()),
            format!("--log-file={}", directory.join("log").display()),
        ]
    }

    /// Reads what it wrote.
    pub(crate) fn read(self, directory: &Path) -> Result<SeenCalls> {
        let name = match self {
            Self::Dhat => "log",
            Self::Massif => FILE,
        };
        let text = fs::read_to_string(directory.join(name))
            .with_context(|| format!("failed to read {name}, which valgrind writes"))?;
        match self {
            Self::Dhat => blocks(&text).map(SeenCalls::Calls),
            Self::Massif => {
                ensure!(peak_bytes(&text) > Some(0), "massif saw no block");
                Ok(SeenCalls::Nothing)
            }
        }
    }
}

impl Launcher for Valgrind {
    fn missing(&self) -> Option<String> {
        missing()
    }

    fn command(&self, binary: &Path, directory: &Path) -> Result<Command> {
        let messages = directory.join("stderr");
        let messages =
            File::create(&messages).with_context(|| format!("failed to create {}", messages.display()))?;
        let mut command = workspace::untouched(Path::new("valgrind"));
        command
            .args(self.arguments(directory))
            .arg(binary)
            .stderr(messages);
        Ok(command)
    }

    fn seen(&self, directory: &Path) -> Result<SeenCalls> {
        self.read(directory)
    }
}

/// Returns why valgrind cannot run here.
pub(crate) fn missing() -> Option<String> {
    (!workspace::in_path("valgrind")).then(|| "valgrind is not installed".to_owned())
}

/// From a line like `==7== Total:     5,120,000 bytes in 80,000 blocks`.
fn blocks(log: &str) -> Result<u64> {
    let number = |line: &str| {
        let (_, rest) = line.split_once(" Total: ")?;
        let (_, blocks) = rest.split_once(" bytes in ")?;
        blocks.strip_suffix(" blocks")?.replace(',', "").parse().ok()
    };
    log.lines()
        .find_map(number)
        .context("failed to find the total in dhat's messages")
}

/// The most of all snapshots, from lines like `mem_heap_B=64`.
fn peak_bytes(snapshots: &str) -> Option<u64> {
    let bytes = snapshots
        .lines()
        .filter_map(|line| line.strip_prefix("mem_heap_B=")?.parse().ok());
    bytes.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals() {
        let log = "==7== Command: ./loop\n==7== Total:     5,120,000 bytes in 80,000 blocks\n";
        assert_eq!(blocks(log).ok(), Some(80_000));
        assert!(blocks("==7== Command: ./loop\n").is_err());
        assert_eq!(
            peak_bytes("snapshot=0\nmem_heap_B=0\nmem_heap_B=64\nmem_heap_extra_B=99\n"),
            Some(64)
        );
        assert_eq!(peak_bytes(""), None);
    }
}
