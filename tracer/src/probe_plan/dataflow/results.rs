//! The locations of the value that a function is going to return, before each of its instructions.
//!
//! Followed backwards from the returns: a location counts where its value, unchanged, is what every
//! way from there to a return returns. Ways that never return do not count.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::InstructionInfoFactory;

use super::backward::before;
use super::graph::{End, Graph, Node};
use super::state::{RAX, RDI, ValueLocation};

/// The locations, by address of the instruction; without those from which no return is reached.
pub(in crate::probe_plan) type Results = BTreeMap<u64, BTreeSet<ValueLocation>>;

/// Returns the locations of the result in a function.
pub(in crate::probe_plan) fn results(graph: &Graph) -> Results {
    let mut info = InstructionInfoFactory::new();
    let mut results = Results::new();
    let mut before_any: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (address, node) in graph {
        for edge in &node.next {
            before_any.entry(edge.to).or_default().push(*address);
        }
    }
    let mut work: Vec<u64> = graph.keys().copied().collect();
    while let Some(address) = work.pop() {
        let node = &graph[&address];
        let Some(locations) = locations(node, &results, &mut info) else {
            continue;
        };
        if results.get(&address) != Some(&locations) {
            results.insert(address, locations);
            work.extend(before_any.get(&address).into_iter().flatten());
        }
    }
    results
}

fn locations(
    node: &Node,
    results: &Results,
    info: &mut InstructionInfoFactory,
) -> Option<BTreeSet<ValueLocation>> {
    match node.end {
        Some(End::Return) => return Some(BTreeSet::from([ValueLocation::Register(RAX)])),
        Some(End::FirstArgument) => return Some(BTreeSet::from([ValueLocation::Register(RDI)])),
        None => {}
    }
    let mut after: Option<BTreeSet<ValueLocation>> = None;
    for edge in &node.next {
        let Some(locations) = results.get(&edge.to) else {
            continue;
        };
        let mut locations = locations.clone();
        if let Some(zero) = edge.zero {
            let zero = ValueLocation::Register(zero);
            if locations.contains(&ValueLocation::Zero) {
                locations.insert(zero);
            } else if locations.contains(&zero) {
                locations.insert(ValueLocation::Zero);
            }
        }
        after = Some(match after {
            Some(all) => all.intersection(&locations).copied().collect(),
            None => locations,
        });
    }
    let after = after?;
    Some(
        after
            .into_iter()
            .filter_map(|location| before(location, &node.state, &node.instruction, info))
            .collect(),
    )
}
