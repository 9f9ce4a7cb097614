//! A recording whose stacks are compared with known chains, by bytes and by calls.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{
    Chain, Context, Count, Fixture, FoldedStackLine, FoldedStacks, Memtap, MemtapRecording, MemtapSession,
    Reported, ReportedImage,
};

/// Stands in a chain for frames of others than the fixture: one or more.
const OTHERS: &str = "...";

/// The suffix of the name of a function's half that the compiler moved out of the way.
const COLD: &str = " [clone .cold]";

/// The most frames that a C library has above `main`, inlined functions included.
const MAX_START_FRAMES: usize = 8;

/// A recording by both metrics.
pub(crate) struct Walked {
    /// The recording; its folded file is by bytes.
    pub(crate) recording: MemtapRecording,
    calls: FoldedStacks,
}

impl Walked {
    /// Records a program with the default walker.
    pub(crate) fn record(context: &Context, fixture: &Fixture) -> Result<Self> {
        Self::run(Memtap::record(context)?.fixture(fixture))
    }

    /// Runs what was put together, to its end.
    pub(crate) fn run(memtap: Memtap<'_>) -> Result<Self> {
        Self::end(Self::start(memtap)?)
    }

    /// Starts it.
    pub(crate) fn start(memtap: Memtap<'_>) -> Result<MemtapSession<'_>> {
        let calls = memtap.directory().join("calls.folded");
        memtap
            .arguments(["-o", &format!("alloc-count={}", calls.display())])
            .start()
    }

    /// Waits for its end.
    pub(crate) fn end(session: MemtapSession<'_>) -> Result<Self> {
        Self::read(session.finish()?.whole()?)
    }

    /// Reads what a recording has left that was begun by [`start`](Self::start).
    pub(crate) fn read(recording: MemtapRecording) -> Result<Self> {
        let calls = std::fs::read_to_string(recording.directory().join("calls.folded"))?;
        Ok(Self {
            calls: FoldedStacks::parse(&calls)?,
            recording,
        })
    }

    /// Fails unless each chain has its bytes and its calls. Gives the lines, by bytes, that are of
    /// no chain.
    pub(crate) fn holds(&self, reported: &Reported) -> Result<Vec<FoldedStackLine>> {
        let chains = Chains::of(reported);
        chains.compare(&self.calls, "calls", |count| count.calls)?;
        chains.compare(self.recording.folded()?, "bytes", |count| count.bytes)
    }

    /// The same for a program that makes no other calls.
    pub(crate) fn holds_nothing_but(&self, reported: &Reported) -> Result<()> {
        let rest = self.holds(reported)?;
        ensure!(rest.is_empty(), "these stacks are of no chain: {rest:#?}");
        Ok(())
    }

    /// The same where nothing can be known of what calls `main`: that a stack is cut short above it
    /// is no mistake.
    pub(crate) fn holds_nothing_but_up_to_main(&self, reported: &Reported) -> Result<()> {
        let mut chains = Chains::of(reported);
        chains.may_be_cut = true;
        chains.compare(&self.calls, "calls", |count| count.calls)?;
        let rest = chains.compare(self.recording.folded()?, "bytes", |count| count.bytes)?;
        ensure!(rest.is_empty(), "these stacks are of no chain: {rest:#?}");
        Ok(())
    }

    /// Fails unless all stacks ended for one reason.
    pub(crate) fn ends_are(&self, reason: &str) -> Result<()> {
        let ends = self.ends()?;
        ensure!(
            ends.len() == 1 && ends.contains_key(reason),
            "all stacks end as {reason}, these do as {ends:?}; the file:\n{}",
            self.recording.folded()?.text
        );
        Ok(())
    }

    /// Returns how many stacks ended for each reason there was.
    pub(crate) fn ends(&self) -> Result<BTreeMap<String, u64>> {
        let stacks = self.recording.summary()?.json["stacks"]
            .as_object()
            .context("the summary has no stacks")?;
        let is_end = |name: &str| !["distinct", "lost"].contains(&name);
        Ok(stacks
            .iter()
            .filter(|(name, _)| is_end(name))
            .filter_map(|(name, count)| Some((name.clone(), count.as_u64().filter(|count| *count > 0)?)))
            .collect())
    }
}

/// The account of a fixture that cannot tell it: chain, function, calls, bytes of all calls.
pub(crate) fn known(fixture: &Fixture, chains: &[(&str, &str, u64, u64)]) -> Reported {
    let chain = |&(frames, function, calls, bytes): &(&str, &str, u64, u64)| Chain {
        frames: frames.split(';').map(str::to_owned).collect(),
        function: function.to_owned(),
        count: Count { calls, bytes },
    };
    Reported {
        images: vec![ReportedImage {
            pid: 0,
            comm: fixture.comm.clone(),
            chains: chains.iter().map(chain).collect(),
        }],
    }
}

/// Fails if one of these stacks of no chain is of the program itself.
pub(crate) fn came_before_main(rest: &[FoldedStackLine]) -> Result<()> {
    let below_main = |line: &FoldedStackLine| line.frames.iter().any(|frame| frame == "main");
    ensure!(
        !rest.iter().any(below_main),
        "these stacks are of no chain: {rest:#?}"
    );
    Ok(())
}

/// The known chains of a program, with what each is counted.
struct Chains<'a> {
    counts: BTreeMap<(&'a str, &'a [String], &'a str), Count>,
    /// The functions that stand in any chain: none of them may stand in a place that no chain
    /// knows.
    own: BTreeSet<&'a str>,
    may_be_cut: bool,
}

impl<'a> Chains<'a> {
    fn of(reported: &'a Reported) -> Self {
        let mut counts = BTreeMap::new();
        let mut own = BTreeSet::new();
        for image in &reported.images {
            for chain in &image.chains {
                let key = (&*image.comm, &*chain.frames, &*chain.function);
                *counts.entry(key).or_insert_with(Count::default) += chain.count;
                own.extend(chain.frames.iter().map(String::as_str));
            }
        }
        own.remove(OTHERS);
        Self {
            counts,
            own,
            may_be_cut: false,
        }
    }

    fn compare(
        &self,
        folded: &FoldedStacks,
        metric: &str,
        weigh: impl Fn(&Count) -> u64,
    ) -> Result<Vec<FoldedStackLine>> {
        let mut found: BTreeMap<_, u64> = BTreeMap::new();
        let mut rest = Vec::new();
        for line in &folded.lines {
            let mut fitting = self.counts.keys().filter(|(comm, chain, function)| {
                line.is_of(comm) && line.function == *function && self.fits(&line.frames, chain)
            });
            match fitting.next() {
                Some(chain) => {
                    ensure!(fitting.next().is_none(), "two chains fit {line:?}");
                    ensure!(
                        !line.is_truncated || self.may_be_cut,
                        "the stack is cut short: {line:?}"
                    );
                    *found.entry(*chain).or_default() += line.weight;
                }
                None => rest.push(line.clone()),
            }
        }
        for (chain, count) in &self.counts {
            let (comm, frames, function) = chain;
            let seen = found.get(chain).copied().unwrap_or_default();
            ensure!(
                seen == weigh(count),
                "{comm};{};{function}: expected {} {metric}, found {seen}; the file:\n{}",
                frames.join(";"),
                weigh(count),
                folded.text
            );
        }
        Ok(rest)
    }

    /// Returns whether frames end in a chain, with nothing but others' frames, and few of them,
    /// above it.
    fn fits(&self, frames: &[String], chain: &[String]) -> bool {
        let mut rest = frames;
        let mut may_skip = false;
        for wanted in chain.iter().rev() {
            if wanted == OTHERS {
                let Some((other, outer)) = rest.split_last() else {
                    return false;
                };
                if !self.is_other(other) {
                    return false;
                }
                rest = outer;
                may_skip = true;
                continue;
            }
            while may_skip && rest.last().is_some_and(|frame| self.is_other(frame)) {
                rest = &rest[..rest.len() - 1];
            }
            may_skip = false;
            match rest.split_last() {
                Some((frame, outer)) if plain(frame) == wanted => rest = outer,
                _ => return false,
            }
        }
        rest.len() <= MAX_START_FRAMES && rest.iter().all(|frame| self.is_other(frame))
    }

    /// Returns whether a frame is of known code that is not the fixture's.
    fn is_other(&self, frame: &str) -> bool {
        !self.own.contains(plain(frame)) && !frame.starts_with("[0x")
    }
}

fn plain(frame: &str) -> &str {
    frame.strip_suffix(COLD).unwrap_or(frame)
}
