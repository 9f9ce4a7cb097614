//! heaptrack, which puts functions of its own before libc's and follows blocks inside the program.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Launcher, SeenCalls};
use test_support::{process, workspace};

/// The loop under `heaptrack`: it cannot be put into a running process without stopping that in a
/// debugger.
pub(crate) struct Heaptrack;

/// Its files' name, to which it adds that of its compressor.
const STEM: &str = "heaptrack";

impl Launcher for Heaptrack {
    fn missing(&self) -> Option<String> {
        let programs = ["heaptrack", "heaptrack_print"];
        (!programs.into_iter().all(workspace::in_path)).then(|| "heaptrack is not installed".to_owned())
    }

    fn command(&self, binary: &Path, directory: &Path) -> Result<Command> {
        let messages = directory.join("stderr");
        let messages =
            File::create(&messages).with_context(|| format!("failed to create {}", messages.display()))?;
        let mut command = workspace::untouched(Path::new("heaptrack"));
        command.arg("--output").arg(directory.join(STEM)).arg(binary);
        command.stderr(messages);
        Ok(command)
    }

    fn note(&self) -> Option<String> {
        Some("counts a block of the C++ library too".to_owned())
    }

    fn seen(&self, directory: &Path) -> Result<SeenCalls> {
        let profile = ["zst", "gz"]
            .map(|extension| directory.join(STEM).with_extension(extension))
            .into_iter()
            .find(|file| file.exists())
            .context("failed to find heaptrack's file")?;
        let mut print = workspace::untouched(Path::new("heaptrack_print"));
        let text = process::output(print.arg("-f").arg(&profile), "read heaptrack's file")?;
        fs::remove_file(&profile).with_context(|| format!("failed to remove {}", profile.display()))?;
        calls(&text).map(SeenCalls::Calls)
    }
}

/// From a line like `calls to allocation functions: 80001 (20070/s)`.
fn calls(report: &str) -> Result<u64> {
    report
        .lines()
        .find_map(|line| line.strip_prefix("calls to allocation functions: "))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .context("failed to find the calls in heaptrack's report")
}

#[cfg(test)]
mod tests {
    use super::calls;

    #[test]
    fn the_line_with_the_calls() {
        let report = "total runtime: 3.99s.\ncalls to allocation functions: 80001 (20070/s)\n";
        assert_eq!(calls(report).ok(), Some(80001));
        assert!(calls("total runtime: 3.99s.\n").is_err());
    }
}
