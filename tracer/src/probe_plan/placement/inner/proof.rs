//! The choice of a function's inner sites, and its proof: whichever way a call takes, it hits one
//! site that has size and result, or one that has its size and later one that has its result; no
//! other, and none twice.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{InstructionInfoFactory, OpAccess};
use tracer_ebpf::Operand;

use super::candidate::InnerCandidate;
use super::min_cut::{self, Sides};
use super::{InnerSite, Kind};
use crate::probe_plan::dataflow::{Graph, Memory, Obstacle, Results, results};
use crate::probe_plan::roles::Roles;

/// Returns the sites of a function, by address. `at_calls`: sites may be on calls; the kernel
/// emulates those without putting the return address on the shadow stack, where there is one, which
/// is the end of the process.
pub(super) fn sites(
    graph: &Graph,
    entry: u64,
    roles: &Roles,
    at_calls: bool,
) -> Result<Vec<InnerSite>, Obstacle> {
    let results = results(graph);
    if !results.contains_key(&entry) {
        return Err(Obstacle::NoReturn);
    }
    let read_back = read_back(graph);
    let covered = covered(graph);
    let mut candidates: BTreeMap<u64, InnerCandidate> = BTreeMap::new();
    for (address, locations) in &results {
        if (at_calls || !graph[address].instruction.is_call_near())
            && !covered.contains(address)
            && let Some(found) = InnerCandidate::at(&graph[address], locations, roles, &read_back)
        {
            candidates.insert(*address, found);
        }
    }
    let costs = candidates
        .iter()
        .filter_map(|(address, candidate)| Some((*address, candidate.cost()?)))
        .collect();
    let Some((ends, is_over)) = min_cut::cheapest(graph, &results, entry, &costs) else {
        let is_there = |address: u64| costs.contains_key(&address);
        return Err(Obstacle::NoResult(uncut(graph, &results, entry, is_there)));
    };
    let sites = with_sizes(graph, &results, entry, &candidates, &ends, &is_over)?;
    check(graph, &results, entry, &sites)?;
    // Two probes inside cost more than an entry and its return.
    let gains = |site: &InnerSite| site.kind == Kind::Complete && site.operands.result != Operand::ZERO;
    if !sites.iter().any(gains) {
        return Err(Obstacle::NothingGained);
    }
    Ok(sites)
}

/// Returns the slots that the function reads again: nothing else changes those. An argument of a
/// call on the stack may be changed by the function that is called, and is not read again.
fn read_back(graph: &Graph) -> BTreeSet<i64> {
    let mut info = InstructionInfoFactory::new();
    let mut slots = BTreeSet::new();
    for node in graph.values() {
        for used in info.info(&node.instruction).used_memory() {
            let memory = node
                .state
                .memory(used.segment(), used.base(), used.index(), used.displacement());
            if let Memory::Stack(slot) = memory
                && matches!(used.access(), OpAccess::Read | OpAccess::CondRead)
            {
                slots.insert(slot);
            }
        }
    }
    slots
}

/// Returns the instructions whose first byte another instruction has inside it: a breakpoint there
/// would change that one.
fn covered(graph: &Graph) -> BTreeSet<u64> {
    let mut covered = BTreeSet::new();
    for (address, node) in graph {
        let inside = graph.range(address + 1..node.instruction.next_ip().max(address + 1));
        covered.extend(inside.map(|(address, _)| *address));
    }
    covered
}

/// Adds to the sites that have a call's result those that have its size before, as late as can be.
fn with_sizes(
    graph: &Graph,
    results: &Results,
    entry: u64,
    candidates: &BTreeMap<u64, InnerCandidate>,
    ends: &Sides,
    is_over: &BTreeSet<u64>,
) -> Result<Vec<InnerSite>, Obstacle> {
    let decides = |address: u64| {
        candidates
            .get(&address)
            .is_some_and(|candidate| candidate.cost().is_some())
            && !is_over.contains(&ends.before(address))
            && is_over.contains(&ends.behind(graph, results, address))
    };
    let has_size = |address: u64| {
        candidates
            .get(&address)
            .is_some_and(|candidate| candidate.has_size && (!candidate.stepped || decides(address)))
    };
    let begun = Sides::new(graph, results, has_size);
    // Where a call is decided it has been begun, and so it is wherever it comes from there.
    let mut is_begun = BTreeSet::from([begun.end()]);
    for address in results.keys() {
        if is_over.contains(&ends.before(*address)) || (decides(*address) && !has_size(*address)) {
            is_begun.insert(begun.before(*address));
        }
        if decides(*address) {
            is_begun.insert(begun.behind(graph, results, *address));
        }
    }
    loop {
        let more = results
            .keys()
            .filter(|address| is_begun.contains(&begun.before(**address)));
        let more: Vec<u64> = more
            .map(|address| begun.behind(graph, results, *address))
            .filter(|side| !is_begun.contains(side))
            .collect();
        if more.is_empty() {
            break;
        }
        is_begun.extend(more);
    }
    if is_begun.contains(&begun.before(entry)) {
        return Err(Obstacle::NoSize(uncut(graph, results, entry, has_size)));
    }
    let mut sites = Vec::new();
    for (address, candidate) in candidates {
        let begins = has_size(*address)
            && !is_begun.contains(&begun.before(*address))
            && is_begun.contains(&begun.behind(graph, results, *address));
        let kind = match (begins, decides(*address)) {
            (true, true) => Kind::Complete,
            (true, false) => Kind::Request,
            (false, true) => Kind::Result,
            (false, false) => continue,
        };
        let mut operands = candidate.operands;
        if kind != Kind::Request {
            operands.result = candidate.result;
        }
        sites.push(InnerSite {
            address: *address,
            kind,
            operands,
            stepped: candidate.stepped,
        });
    }
    Ok(sites)
}

/// Returns a return that is reached without such a site.
fn uncut(graph: &Graph, results: &Results, entry: u64, is_there: impl Fn(u64) -> bool) -> u64 {
    let mut seen = BTreeSet::from([entry]);
    let mut work = vec![entry];
    let mut last = entry;
    while let Some(address) = work.pop() {
        if is_there(address) {
            continue;
        }
        let node = &graph[&address];
        last = address;
        if node.end.is_some() {
            return address;
        }
        for edge in &node.next {
            if results.contains_key(&edge.to) && seen.insert(edge.to) {
                work.push(edge.to);
            }
        }
    }
    last
}

/// The progress of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Fresh,
    Begun,
    Decided,
}

/// Goes all ways from the entry, and fails unless each meets the sites as it must. Ways that never
/// return may end before their site, or behind it.
fn check(graph: &Graph, results: &Results, entry: u64, sites: &[InnerSite]) -> Result<(), Obstacle> {
    let kinds: BTreeMap<u64, Kind> = sites.iter().map(|site| (site.address, site.kind)).collect();
    let mut seen = BTreeSet::from([(entry, Phase::Fresh)]);
    let mut work = vec![(entry, Phase::Fresh)];
    while let Some((address, phase)) = work.pop() {
        let node = &graph[&address];
        let phase = match (kinds.get(&address), phase) {
            (None, phase) => phase,
            (Some(Kind::Complete), Phase::Fresh) | (Some(Kind::Result), Phase::Begun) => Phase::Decided,
            (Some(Kind::Request), Phase::Fresh) => Phase::Begun,
            _ => return Err(Obstacle::NotOnce(address)),
        };
        if node.end.is_some() && phase != Phase::Decided {
            return Err(Obstacle::NotOnce(address));
        }
        for edge in &node.next {
            if results.contains_key(&edge.to) && seen.insert((edge.to, phase)) {
                work.push((edge.to, phase));
            }
        }
    }
    Ok(())
}
