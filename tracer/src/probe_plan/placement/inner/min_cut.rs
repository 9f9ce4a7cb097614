//! The minimum cut through a control-flow graph: instructions of which every way from the entry to
//! a return has one.
//!
//! Every place between two instructions is before it or after it. An instruction at which it may
//! not happen has the same on both sides; one at which it may has it happen if its ways in are
//! before and its ways out after. The entry is before, the end after, and nothing leads back. The
//! cheapest such partition is a minimum cut, found by augmenting paths.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::probe_plan::dataflow::{Graph, Results};

/// The end of all ways, as an address.
const END: u64 = u64::MAX;

/// More than all candidates cost together.
const NEVER: u64 = u64::MAX / 4;

/// Instructions that lie on the same side, as one.
#[derive(Debug)]
pub(super) struct Sides {
    parents: BTreeMap<u64, u64>,
}

impl Sides {
    /// The sides of all instructions from which a return is reached. `candidates`: where it may
    /// happen.
    pub(super) fn new(graph: &Graph, results: &Results, candidates: impl Fn(u64) -> bool) -> Self {
        let mut sides = Self {
            parents: results
                .keys()
                .chain([&END])
                .map(|address| (*address, *address))
                .collect(),
        };
        for address in results.keys() {
            let after = Self::after(graph, results, *address);
            for other in &after[1..] {
                sides.join(after[0], *other);
            }
            if !candidates(*address) {
                sides.join(*address, after[0]);
            }
        }
        sides
    }

    /// Returns the successors of an instruction from which a return is reached; at least one.
    fn after(graph: &Graph, results: &Results, address: u64) -> Vec<u64> {
        let node = &graph[&address];
        let mut after: Vec<u64> = node
            .next
            .iter()
            .map(|edge| edge.to)
            .filter(|to| results.contains_key(to))
            .collect();
        if node.end.is_some() {
            after.push(END);
        }
        after
    }

    /// The side of the place before an instruction.
    pub(super) fn before(&self, address: u64) -> u64 {
        let mut address = address;
        while let Some(parent) = self.parents.get(&address)
            && *parent != address
        {
            address = *parent;
        }
        address
    }

    /// The side of the places after it.
    pub(super) fn behind(&self, graph: &Graph, results: &Results, address: u64) -> u64 {
        self.before(Self::after(graph, results, address)[0])
    }

    /// The side of the end.
    pub(super) fn end(&self) -> u64 {
        self.before(END)
    }

    fn join(&mut self, one: u64, other: u64) {
        let (one, other) = (self.before(one), self.before(other));
        self.parents.insert(one, other);
    }
}

/// The cheapest cut: the sides that are after it. Nothing if there is none. `cost`: of each
/// candidate.
pub(super) fn cheapest(
    graph: &Graph,
    results: &Results,
    entry: u64,
    cost: &BTreeMap<u64, u64>,
) -> Option<(Sides, BTreeSet<u64>)> {
    let sides = Sides::new(graph, results, |address| cost.contains_key(&address));
    let (source, sink) = (sides.before(entry), sides.end());
    if source == sink {
        return None;
    }
    let mut room: BTreeMap<u64, BTreeMap<u64, u64>> = BTreeMap::new();
    for (address, cost) in cost {
        let (from, to) = (sides.before(*address), sides.behind(graph, results, *address));
        if from != to {
            *room.entry(from).or_default().entry(to).or_default() += cost;
            // Nothing leads back from after to before.
            room.entry(to).or_default().insert(from, NEVER);
        }
    }
    loop {
        let came_from = reach(&room, source);
        if !came_from.contains_key(&sink) {
            let after = sides.parents.keys().map(|address| sides.before(*address));
            let after = after.filter(|side| !came_from.contains_key(side)).collect();
            return Some((sides, after));
        }
        let mut way = vec![sink];
        while let Some(last) = way.last().copied()
            && last != source
        {
            way.push(came_from[&last]);
        }
        way.reverse();
        let least = way.windows(2).map(|step| room[&step[0]][&step[1]]).min()?;
        if least >= NEVER / 2 {
            return None;
        }
        for step in way.windows(2) {
            *room.entry(step[0]).or_default().entry(step[1]).or_default() -= least;
            *room.entry(step[1]).or_default().entry(step[0]).or_default() += least;
        }
    }
}

/// The sides that can be reached where there is room, each with the one before it.
fn reach(room: &BTreeMap<u64, BTreeMap<u64, u64>>, source: u64) -> BTreeMap<u64, u64> {
    let mut came_from = BTreeMap::from([(source, source)]);
    let mut queue = VecDeque::from([source]);
    while let Some(side) = queue.pop_front() {
        for (next, left) in room.get(&side).into_iter().flatten() {
            if *left > 0 && !came_from.contains_key(next) {
                came_from.insert(*next, side);
                queue.push_back(*next);
            }
        }
    }
    came_from
}
