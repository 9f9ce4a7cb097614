//! Reports of fixtures about themselves: see `fixtures/tally.h`.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{Count, Counts};

/// The lines that a fixture and its children wrote.
#[derive(Debug, Clone, Default)]
pub struct Reported {
    /// One for each process image, in the order in which they reported.
    pub images: Vec<ReportedImage>,
}

/// One process image: a forked child is one, and so is a program that it executes.
#[derive(Debug, Clone)]
pub struct ReportedImage {
    /// The process.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Its calls.
    pub chains: Vec<Chain>,
}

/// The calls of one function from one chain of callers.
#[derive(Debug, Clone)]
pub struct Chain {
    /// The callers, from the outermost that the fixture knows to the innermost.
    pub frames: Vec<String>,
    /// The function.
    pub function: String,
    /// The calls.
    pub count: Count,
}

impl Reported {
    /// Reads the lines of JSON among a program's output; other lines are others'.
    pub fn parse(stdout: &str) -> Result<Self> {
        let images = stdout
            .lines()
            .filter(|line| line.starts_with("{\"pid\":"))
            .map(|line| {
                let value = serde_json::from_str(line)?;
                image(&value).with_context(|| format!("not a fixture's line: {line}"))
            })
            .collect::<Result<Vec<_>>>()?;
        anyhow::ensure!(
            !images.is_empty(),
            "the fixture reported nothing; it wrote: {stdout:?}"
        );
        Ok(Self { images })
    }

    /// The sums by function, over all images.
    #[must_use]
    pub fn functions(&self) -> Counts {
        let mut sums = Counts::new();
        for image in &self.images {
            for (function, count) in image.functions() {
                *sums.entry(function).or_default() += count;
            }
        }
        sums
    }

    /// The image of a process with this name.
    pub fn image(&self, pid: u32, comm: &str) -> Result<&ReportedImage> {
        self.images
            .iter()
            .find(|image| image.pid == pid && image.comm == comm)
            .with_context(|| format!("no fixture reported as {comm} {pid}"))
    }
}

impl ReportedImage {
    /// The sums by function.
    #[must_use]
    pub fn functions(&self) -> Counts {
        let mut sums = Counts::new();
        for chain in &self.chains {
            *sums.entry(chain.function.clone()).or_default() += chain.count;
        }
        sums
    }
}

fn image(value: &Value) -> Option<ReportedImage> {
    let chains = value["chains"].as_array()?;
    Some(ReportedImage {
        pid: u32::try_from(value["pid"].as_u64()?).ok()?,
        comm: value["comm"].as_str()?.to_owned(),
        chains: chains.iter().map(chain).collect::<Option<_>>()?,
    })
}

fn chain(value: &Value) -> Option<Chain> {
    Some(Chain {
        frames: value["frames"].as_str()?.split(';').map(str::to_owned).collect(),
        function: value["function"].as_str()?.to_owned(),
        count: Count {
            calls: value["calls"].as_u64()?,
            bytes: value["bytes"].as_u64()?,
        },
    })
}
