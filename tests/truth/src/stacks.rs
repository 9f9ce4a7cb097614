//! Counted stacks, and the lines that both sides write them as.

use std::collections::HashMap;

use anyhow::{Context as _, Result};

/// Frames that are compared: the most that memtap keeps. Where there are more, both keep the
/// innermost.
pub(crate) const FRAMES_MAX: usize = 127;

/// A function and the return addresses above its call, the immediate caller's first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FrameStack {
    pub(crate) function: String,
    pub(crate) frames: Vec<u64>,
}

/// The number of times that a stack was seen, and the reason why its walk ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenStack {
    pub(crate) hits: u64,
    pub(crate) end: String,
}

/// Distinct stacks with their counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stacks(HashMap<FrameStack, SeenStack>);

impl Stacks {
    pub(crate) fn add(&mut self, mut stack: FrameStack, seen: SeenStack) {
        stack.frames.truncate(FRAMES_MAX);
        self.0
            .entry(stack)
            .and_modify(|before| before.hits += seen.hits)
            .or_insert(seen);
    }

    pub(crate) fn get(&self, stack: &FrameStack) -> Option<&SeenStack> {
        self.0.get(stack)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&FrameStack, &SeenStack)> {
        self.0.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn hits(&self) -> u64 {
        self.0.values().map(|seen| seen.hits).sum()
    }

    /// Those of these functions alone.
    pub(crate) fn only(self, functions: &[String]) -> Self {
        let wanted = |stack: &FrameStack| functions.contains(&stack.function);
        Self(self.0.into_iter().filter(|(stack, _)| wanted(stack)).collect())
    }

    /// The same with each stack cut off before its first frame that is not `wanted`.
    pub(crate) fn cut(&self, wanted: impl Fn(u64) -> bool) -> Self {
        let mut cut = Self::default();
        for (stack, seen) in self.iter() {
            let frames = stack.frames.iter().copied().take_while(|frame| wanted(*frame));
            let stack = FrameStack {
                function: stack.function.clone(),
                frames: frames.collect(),
            };
            cut.add(stack, seen.clone());
        }
        cut
    }
}

/// Reads `COUNT FUNCTION END ADDRESS…`.
pub(crate) fn parse(line: &str) -> Result<(FrameStack, SeenStack)> {
    let unreadable = || format!("failed to read the line of a stack: {line:?}");
    let mut words = line.split_ascii_whitespace();
    let mut word = || words.next().with_context(unreadable);
    let hits = word()?.parse().with_context(unreadable)?;
    let function = word()?.to_owned();
    let end = word()?.to_owned();
    let frames = words
        .map(|address| u64::from_str_radix(address, 16).with_context(unreadable))
        .collect::<Result<_>>()?;
    Ok((FrameStack { function, frames }, SeenStack { hits, end }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let (stack, seen) = parse("12 malloc complete 7f00 ab\n").expect("a line");
        assert_eq!(stack.frames, [0x7f00, 0xab]);
        assert_eq!(
            (stack.function.as_str(), seen.end.as_str()),
            ("malloc", "complete")
        );
        assert_eq!(seen.hits, 12);
        let (stack, _) = parse("1 malloc read_fault").expect("a line");
        assert!(stack.frames.is_empty());
        for bad in ["", "x malloc complete 1", "1 malloc", "1 malloc complete 0x1"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn stacks_that_are_cut_to_the_same_are_one() {
        let mut stacks = Stacks::default();
        for line in [
            "2 malloc complete 1 2 90 3",
            "3 malloc truncated 1 2 91",
            "4 calloc complete 1",
        ] {
            let (stack, seen) = parse(line).expect("a line");
            stacks.add(stack, seen);
        }
        let cut = stacks.cut(|frame| frame < 0x90);
        assert_eq!((cut.len(), cut.hits()), (2, 9));
        assert_eq!(stacks.only(&["calloc".to_owned()]).hits(), 4);
    }
}
