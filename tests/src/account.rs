//! Reports of fixtures on their blocks: see `fixtures/live/ledger.h`.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::HeapFigures;

/// The number of times that a thread that ends may call `free` for things of the C library that it
/// does not have.
const FREES_AT_END: u64 = 4;

/// One process image's own figures.
#[derive(Debug, Clone)]
pub struct Account {
    /// The process.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Highest live count and bytes of all of the fixture's processes at once, where it reported
    /// them.
    pub peak_together: Option<(u64, u64)>,
    threads: u64,
    figures: HeapFigures,
}

impl Account {
    /// Reads the accounts among a program's output; other lines are others'.
    pub fn parse_all(stdout: &str) -> Result<Vec<Self>> {
        let accounts = stdout
            .lines()
            .filter(|line| line.starts_with("{\"pid\":"))
            .map(|line| Self::parse(line).with_context(|| format!("not a fixture's line: {line}")))
            .collect::<Result<Vec<_>>>()?;
        ensure!(
            !accounts.is_empty(),
            "the fixture reported nothing; it wrote: {stdout:?}"
        );
        Ok(accounts)
    }

    fn parse(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line)?;
        let number = |name: &str| value[name].as_u64().with_context(|| format!("no {name}"));
        let together = &value["peak_together"];
        Ok(Self {
            pid: u32::try_from(number("pid")?)?,
            comm: value["comm"].as_str().context("no comm")?.to_owned(),
            peak_together: together["count"].as_u64().zip(together["bytes"].as_u64()),
            threads: number("threads")?,
            figures: HeapFigures::parse(&value)?,
        })
    }

    /// Returns what it tells.
    #[must_use]
    pub fn figures(&self) -> &HeapFigures {
        &self.figures
    }

    /// Returns what differs in what another saw of this image. Each `pthread_create` allocates one
    /// block, by `calloc`, of a size that the fixture cannot know and that is the same for all; it
    /// is never given back. Each thread that ends calls `free` for things of the C library, all of
    /// them NULL.
    pub fn difference(&self, found: &HeapFigures) -> Result<Option<String>> {
        let mut expected = self.figures.clone();
        if self.threads > 0 {
            let beyond = |path: &str| found.get(path).saturating_sub(self.figures.get(path));
            let bytes = beyond("functions/calloc/bytes");
            ensure!(
                beyond("functions/calloc/calls") == self.threads && bytes > 0 && bytes % self.threads == 0,
                "{} threads began, and calloc was called {} times more than reported, for {bytes} bytes",
                self.threads,
                beyond("functions/calloc/calls")
            );
            let frees = beyond("functions/free/calls").min(FREES_AT_END * self.threads);
            expected.add("functions/free/calls", frees);
            expected.add("functions/calloc/calls", self.threads);
            expected.add("functions/calloc/bytes", bytes);
            for block in ["alloc", "live", "peak"] {
                expected.add(&format!("{block}/count"), self.threads);
                expected.add(&format!("{block}/bytes"), bytes);
            }
        }
        Ok(HeapFigures::difference(&expected, found))
    }
}

/// A program's output with the numbers of processes left out, so that two runs can be compared.
#[must_use]
pub fn without_pids(stdout: &str) -> String {
    let mut parts = stdout.split("\"pid\":");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + "\"pid\":" + part.trim_start_matches(|digit: char| digit.is_ascii_digit())
    })
}
