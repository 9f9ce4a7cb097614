//! Where the value is that a function is going to return, before each of its instructions.
//!
//! Followed backwards from the returns: a place counts where its value, unchanged, is what every way from there to a return
//! returns. Ways that never return do not count.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::InstructionInfoFactory;

use super::back::{Place, before};
use super::graph::{End, Graph, Node};
use super::values::{RAX, RDI};

/// The places, by address of the instruction; nothing for one from which no return is reached.
pub(super) type Results = BTreeMap<u64, BTreeSet<Place>>;

/// Finds the places of the result.
pub(super) fn results(graph: &Graph) -> Results {
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
        let Some(places) = places(node, &results, &mut info) else {
            continue;
        };
        if results.get(&address) != Some(&places) {
            results.insert(address, places);
            work.extend(before_any.get(&address).into_iter().flatten());
        }
    }
    results
}

fn places(node: &Node, results: &Results, info: &mut InstructionInfoFactory) -> Option<BTreeSet<Place>> {
    match node.end {
        Some(End::Return) => return Some(BTreeSet::from([Place::Register(RAX)])),
        Some(End::FirstArgument) => return Some(BTreeSet::from([Place::Register(RDI)])),
        None => {}
    }
    let mut after: Option<BTreeSet<Place>> = None;
    for edge in &node.next {
        let Some(places) = results.get(&edge.to) else {
            continue;
        };
        let mut places = places.clone();
        if let Some(zero) = edge.zero {
            let zero = Place::Register(zero);
            if places.contains(&Place::Zero) {
                places.insert(zero);
            } else if places.contains(&zero) {
                places.insert(Place::Zero);
            }
        }
        after = Some(match after {
            Some(all) => all.intersection(&places).copied().collect(),
            None => places,
        });
    }
    let after = after?;
    Some(
        after
            .into_iter()
            .filter_map(|place| before(place, &node.state, &node.instruction, info))
            .collect(),
    )
}
