//! Inner sites: one probe inside a function in place of two, at its entry and at its return, of
//! which the second is dear.
//!
//! At an inner site the size that was asked for and the address of the block are both known.
//! [`proof`] chooses among the [`candidate`]s instructions of which every call hits exactly one
//! ([`min_cut`]), and checks that. Where a call has no such instruction on its way (glibc's
//! `malloc` forgets the size while it has the block made), two are chosen for that way, one that
//! has the size and one that has the result. Whatever is not understood is an [`Obstacle`], and
//! leaves the function to its entry and its return.

mod candidate;
mod min_cut;
mod proof;
mod short_jumps;

use std::collections::HashSet;

use tracer_ebpf::Operands;

use super::super::dataflow::{Explorer, Graph, MachineCode, Obstacle};
use super::super::roles::Roles;

/// The part of a call that a site has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All of it.
    Complete,
    /// The request.
    Request,
    /// The result of a call whose request another site has.
    Result,
}

/// A site in a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::probe_plan) struct InnerSite {
    /// Its address in the file.
    pub(in crate::probe_plan) address: u64,
    pub(in crate::probe_plan) kind: Kind,
    pub(in crate::probe_plan) operands: Operands,
    /// The kernel must single-step the instruction there.
    pub(in crate::probe_plan) stepped: bool,
}

/// The sites of a function. `traced`: the addresses of the other functions that are traced.
pub(in crate::probe_plan) fn plan(
    code: &MachineCode,
    entry: u64,
    roles: &Roles,
    traced: &HashSet<u64>,
) -> Result<Vec<InnerSite>, Obstacle> {
    if !roles.returns_new_block() {
        return Err(Obstacle::Signature);
    }
    let graph = Explorer::new(code, traced).graph(entry, roles.factor_registers())?;
    let sites = proof::sites(&graph, entry, roles, !code.has_shadow_stack)?;
    // Last: the whole file is searched for it.
    is_own(code, &graph, entry)?;
    Ok(sites)
}

/// Fails if other code comes to the function's code than by calling it. Jumps to its middle from
/// elsewhere would meet sites that they are not meant for; a tail that several functions share is
/// nobody's; and landing pads of exceptions, to which no jump leads, come back with registers of
/// which nothing is known.
fn is_own(code: &MachineCode, graph: &Graph, entry: u64) -> Result<(), Obstacle> {
    let is_inside = |address: u64| {
        let before = graph.range(..=address).next_back();
        before.is_some_and(|(_, node)| address < node.instruction.next_ip())
    };
    let first = graph.keys().next().copied().unwrap_or(entry);
    let last = graph.keys().next_back().copied().unwrap_or(entry);
    let is_wanted =
        |address: u64| (first..=last).contains(&address) && address != entry && graph.contains_key(&address);
    for (target, from) in code.references(is_wanted) {
        if !is_inside(from) {
            return Err(Obstacle::Shared(target, from));
        }
    }
    if let Some((target, from)) = short_jumps::find(code, graph, entry) {
        return Err(Obstacle::Shared(target, from));
    }
    if let Some(address) = code.words(is_wanted).first() {
        return Err(Obstacle::Pointed(*address));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
