//! The frame at which two stacks part, and the reason.

use std::collections::BTreeMap;

use super::modules::Modules;
use super::stacks::{FrameStack, SeenStack, Stacks};

/// Differences of one cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DifferenceGroup {
    pub(crate) cause: String,
    pub(crate) hits: u64,
    /// Distinct stacks of gdb's, or of memtap's where gdb has none.
    pub(crate) stacks: usize,
    /// The frames around the place where the most frequent pair of stacks parts.
    pub(crate) example: String,
    example_hits: u64,
}

/// Frames that an example shows of each side after the place where they part.
const SHOWN: usize = 3;

/// Pairs each hit that gdb alone has with memtap's nearest, and groups the pairs by cause, the most
/// hits first. Hits that memtap alone has are a difference too, unless gdb saw only a part.
pub(crate) fn groups(
    memtap: &Stacks,
    gdb: &Stacks,
    others: &Stacks,
    modules: &Modules,
    is_partial: bool,
) -> Vec<DifferenceGroup> {
    let hits = |stacks: &Stacks, stack: &FrameStack| stacks.get(stack).map_or(0, |seen| seen.hits);
    let surplus = |stacks: &Stacks, less: [&Stacks; 2]| -> BTreeMap<FrameStack, SeenStack> {
        let rest = stacks.iter().filter_map(|(stack, seen)| {
            let accounted: u64 = less.iter().map(|less| hits(less, stack)).sum();
            let hits = seen.hits.checked_sub(accounted).filter(|hits| *hits > 0)?;
            let end = seen.end.clone();
            Some((stack.clone(), SeenStack { hits, end }))
        });
        rest.collect()
    };
    let mut spare = surplus(memtap, [gdb, others]);
    let nobody = Stacks::default();
    let mut groups = BTreeMap::new();
    for (stack, seen) in surplus(gdb, [memtap, &nobody]) {
        let mut left = seen.hits;
        let mut is_new = true;
        while left > 0 {
            let (cause, example, taken) = match nearest(&spare, &stack) {
                Some(found) => {
                    let pair = Pair {
                        memtap: &found,
                        memtap_end: &spare[&found].end,
                        gdb: &stack,
                        gdb_end: &seen.end,
                        modules,
                    };
                    let described = (pair.cause(), pair.example());
                    let taken = take(&mut spare, &found, left);
                    (described.0, described.1, taken)
                }
                None => ("memtap has fewer hits".to_owned(), show(&stack, 0, modules), left),
            };
            add(&mut groups, cause, taken, usize::from(is_new), example);
            is_new = false;
            left -= taken;
        }
    }
    if !is_partial {
        for (stack, seen) in spare {
            let cause = format!("memtap has more hits, {}", seen.end);
            add(&mut groups, cause, seen.hits, 1, show(&stack, 0, modules));
        }
    }
    let mut groups: Vec<DifferenceGroup> = groups.into_values().collect();
    groups.sort_by(|one, other| (other.hits, &one.cause).cmp(&(one.hits, &other.cause)));
    groups
}

fn add(
    groups: &mut BTreeMap<String, DifferenceGroup>,
    cause: String,
    hits: u64,
    stacks: usize,
    example: String,
) {
    let group = groups.entry(cause.clone()).or_insert_with(|| DifferenceGroup {
        cause,
        hits: 0,
        stacks: 0,
        example: String::new(),
        example_hits: 0,
    });
    group.hits += hits;
    group.stacks += stacks;
    if hits > group.example_hits {
        group.example = example;
        group.example_hits = hits;
    }
}

/// Takes up to `wanted` hits of a stack away. Returns how many.
fn take(spare: &mut BTreeMap<FrameStack, SeenStack>, stack: &FrameStack, wanted: u64) -> u64 {
    let Some(seen) = spare.get_mut(stack) else {
        return 0;
    };
    let taken = wanted.min(seen.hits);
    seen.hits -= taken;
    if seen.hits == 0 {
        spare.remove(stack);
    }
    taken
}

/// The stack that has the most innermost frames in common, which is a neighbour in their order.
/// None where not even the caller is the same.
fn nearest(spare: &BTreeMap<FrameStack, SeenStack>, stack: &FrameStack) -> Option<FrameStack> {
    let before = spare.range(..stack).next_back();
    let after = spare.range(stack..).next();
    [before, after]
        .into_iter()
        .flatten()
        .map(|(candidate, _)| candidate)
        .filter(|candidate| candidate.function == stack.function)
        .max_by_key(|candidate| common(&candidate.frames, &stack.frames))
        .cloned()
}

fn common(one: &[u64], other: &[u64]) -> usize {
    one.iter()
        .zip(other)
        .take_while(|(one, other)| one == other)
        .count()
}

/// A stack of each side, taken for the same hit.
struct Pair<'a> {
    memtap: &'a FrameStack,
    memtap_end: &'a str,
    gdb: &'a FrameStack,
    gdb_end: &'a str,
    modules: &'a Modules,
}

impl Pair<'_> {
    /// Returns what both sides did in the last frame that they agree on.
    fn cause(&self) -> String {
        let common = common(&self.memtap.frames, &self.gdb.frames);
        let place = match common.checked_sub(1) {
            Some(last) => self.modules.name(self.gdb.frames[last]),
            None => "the function itself".to_owned(),
        };
        let next = |stack: &FrameStack, end: &str| match stack.frames.get(common) {
            Some(&address) => format!("goes on to {}", self.modules.name(address)),
            None => format!("ends ({end})"),
        };
        format!(
            "in {place}: memtap {}, gdb {}",
            next(self.memtap, self.memtap_end),
            next(self.gdb, self.gdb_end)
        )
    }

    fn example(&self) -> String {
        let common = common(&self.memtap.frames, &self.gdb.frames);
        let last = match common.checked_sub(1) {
            Some(last) => format!(" up to {}", self.modules.place(self.gdb.frames[last])),
            None => String::new(),
        };
        format!(
            "{common} frames the same{last}; memtap: {}; gdb: {}",
            show(self.memtap, common, self.modules),
            show(self.gdb, common, self.modules)
        )
    }
}

/// Some frames from one on, and how many there are.
fn show(stack: &FrameStack, from: usize, modules: &Modules) -> String {
    let rest = stack.frames.get(from..).unwrap_or_default();
    let shown: Vec<String> = rest
        .iter()
        .take(SHOWN)
        .map(|frame| modules.place(*frame))
        .collect();
    match rest.len() {
        0 => "nothing".to_owned(),
        length if length > SHOWN => format!("{} … ({length} frames)", shown.join(" ")),
        _ => shown.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::super::compare::tests::stacks;
    use super::super::modules;
    use super::*;

    fn causes(memtap: &[&str], gdb: &[&str], is_partial: bool) -> Vec<(String, u64)> {
        let (memtap, gdb) = (stacks(memtap), stacks(gdb));
        let modules = modules::tests::two();
        groups(&memtap, &gdb, &Stacks::default(), &modules, is_partial)
            .into_iter()
            .map(|group| (group.cause, group.hits))
            .collect()
    }

    #[test]
    fn each_way_to_part() {
        let memtap = [
            "4 malloc read_fault 1300 8100",
            "2 malloc complete 1400 1500",
            "1 malloc complete 1600 1601 1602",
        ];
        let gdb = [
            "4 malloc complete 1300 8100 1350",
            "2 malloc complete 1400 8200",
            "1 malloc same_id 1600 1601",
        ];
        let expected = [
            ("in libc.so: memtap ends (read_fault), gdb goes on to prog", 4),
            ("in prog: memtap goes on to prog, gdb goes on to libc.so", 2),
            ("in prog: memtap goes on to prog, gdb ends (same_id)", 1),
        ];
        let expected: Vec<(String, u64)> = expected
            .iter()
            .map(|(cause, hits)| ((*cause).to_owned(), *hits))
            .collect();
        assert_eq!(causes(&memtap, &gdb, false), expected);
    }

    #[test]
    fn hits_without_a_partner() {
        let one = ["5 malloc complete 1300"];
        assert_eq!(causes(&one, &[], true), []);
        assert_eq!(
            causes(&one, &[], false),
            [("memtap has more hits, complete".to_owned(), 5)]
        );
        assert_eq!(causes(&[], &one, true), [("memtap has fewer hits".to_owned(), 5)]);
        assert_eq!(
            causes(&["5 calloc complete 1300"], &one, true),
            [("memtap has fewer hits".to_owned(), 5)],
            "another function is no partner"
        );
    }

    #[test]
    fn a_hit_is_paired_once() {
        let memtap = ["1 malloc read_fault 1300"];
        let gdb = ["3 malloc complete 1300 1400"];
        let causes = causes(&memtap, &gdb, false);
        let hits: Vec<u64> = causes.iter().map(|(_, hits)| *hits).collect();
        assert_eq!(hits, [2, 1]);
        assert_eq!(causes[0].0, "memtap has fewer hits");
    }
}
