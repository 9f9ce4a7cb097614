//! Folded stacks, read back.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use crate::{Chain, Reported};

/// A folded file.
#[derive(Debug, Clone)]
pub struct FoldedStacks {
    /// The text.
    pub text: String,
    /// Its lines, in their order.
    pub lines: Vec<FoldedStackLine>,
}

/// One stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldedStackLine {
    /// The first frame: the process.
    pub process: String,
    /// The callers, from the outermost to the innermost, without the mark of a stack that was cut.
    pub frames: Vec<String>,
    /// The last frame: the function that was called.
    pub function: String,
    /// True if the stack could not be walked to its end.
    pub is_truncated: bool,
    /// The weight.
    pub weight: u64,
}

impl FoldedStacks {
    /// Reads a file; lines must be of the form of the contract, sorted, and no two the same stack.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(line).collect::<Result<Vec<_>>>()?;
        ensure!(
            text.is_empty() || text.ends_with('\n'),
            "the folded file does not end with a line break"
        );
        for pair in text.lines().collect::<Vec<_>>().windows(2) {
            ensure!(
                pair[0] < pair[1],
                "the folded file is not sorted:\n{}\n{}",
                pair[0],
                pair[1]
            );
            let stack = |line: &str| line.rsplit_once(' ').map(|(stack, _)| stack.to_owned());
            ensure!(
                stack(pair[0]) != stack(pair[1]),
                "the folded file has a stack twice: {}",
                pair[0]
            );
        }
        Ok(Self {
            text: text.to_owned(),
            lines,
        })
    }

    /// The sum of all weights.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.lines.iter().map(|line| line.weight).sum()
    }

    /// The sum of the weights of the lines that a test is true for.
    pub fn weight_of(&self, mut wanted: impl FnMut(&FoldedStackLine) -> bool) -> u64 {
        self.lines
            .iter()
            .filter(|line| wanted(line))
            .map(|line| line.weight)
            .sum()
    }

    /// Compares every chain of the fixtures' own account with the lines that end in it, weighed by
    /// `weigh`, and gives the lines that are no fixture's: what the C library allocates on its own
    /// account.
    pub fn compare(
        &self,
        reported: &Reported,
        weigh: impl Fn(&Chain) -> u64,
    ) -> Result<Vec<FoldedStackLine>> {
        let mut expected: BTreeMap<(&str, &[String], &str), u64> = BTreeMap::new();
        for image in &reported.images {
            for chain in &image.chains {
                let key = (&*image.comm, &*chain.frames, &*chain.function);
                *expected.entry(key).or_default() += weigh(chain);
            }
        }
        let mut found: BTreeMap<_, u64> = BTreeMap::new();
        let mut rest = Vec::new();
        for line in &self.lines {
            let chain = expected.keys().find(|(comm, frames, function)| {
                line.is_of(comm) && line.function == *function && line.frames.ends_with(frames)
            });
            match chain {
                Some(chain) => *found.entry(*chain).or_default() += line.weight,
                None => rest.push(line.clone()),
            }
        }
        for (chain, weight) in &expected {
            let (comm, frames, function) = chain;
            let seen = found.get(chain).copied().unwrap_or_default();
            ensure!(
                seen == *weight,
                "{comm};{};{function}: expected a weight of {weight}, found {seen}; the file:\n{}",
                frames.join(";"),
                self.text
            );
        }
        Ok(rest)
    }
}

impl FoldedStackLine {
    /// Returns whether the process has this name, with or without its number (`comm-PID`).
    #[must_use]
    pub fn is_of(&self, comm: &str) -> bool {
        self.process == comm
            || self
                .process
                .rsplit_once('-')
                .is_some_and(|(name, pid)| name == comm && pid.parse::<u32>().is_ok())
    }

    /// Returns whether some frame's name contains this.
    #[must_use]
    pub fn passes(&self, name: &str) -> bool {
        self.frames.iter().any(|frame| frame.contains(name))
    }
}

fn line(text: &str) -> Result<FoldedStackLine> {
    let (stack, weight) = text
        .rsplit_once(' ')
        .with_context(|| format!("no weight: {text:?}"))?;
    let weight = weight
        .parse()
        .with_context(|| format!("not a weight: {text:?}"))?;
    let mut frames: Vec<String> = stack.split(';').map(str::to_owned).collect();
    ensure!(
        frames.len() >= 2 && frames.iter().all(|frame| !frame.is_empty()),
        "not a stack: {text:?}"
    );
    let process = frames.remove(0);
    let function = frames.pop().context("no function")?;
    let is_truncated = frames.first().is_some_and(|frame| frame == "[truncated]");
    if is_truncated {
        frames.remove(0);
    }
    Ok(FoldedStackLine {
        process,
        frames,
        function,
        is_truncated,
        weight,
    })
}

#[cfg(test)]
mod tests {
    use super::FoldedStacks;

    #[test]
    fn reads_a_file() -> anyhow::Result<()> {
        let folded = FoldedStacks::parse("a b;[truncated];f;malloc 3\na b;main;f;malloc 4\n")?;
        assert_eq!(folded.total(), 7);
        assert_eq!(folded.lines[0].process, "a b");
        assert!(folded.lines[0].is_truncated && !folded.lines[1].is_truncated);
        assert_eq!(folded.lines[1].frames, ["main", "f"]);
        assert_eq!(folded.weight_of(|line| line.passes("main")), 4);
        Ok(())
    }

    #[test]
    fn refuses_what_the_contract_does_not_allow() {
        for text in [
            "a;malloc 1",
            "a;malloc\n",
            "a;malloc -1\n",
            "malloc 1\n",
            "a;;malloc 1\n",
            "b;malloc 1\na;malloc 1\n",
            "a;malloc 1\na;malloc 2\n",
        ] {
            assert!(FoldedStacks::parse(text).is_err(), "{text:?} was read");
        }
    }
}
