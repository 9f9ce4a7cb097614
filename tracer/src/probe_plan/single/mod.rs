//! Planning to follow a call by one probe: at an instruction inside the function at which the size that was asked for and
//! the address of the block are both known, where an entry and a return would take two, the second of which is dear.
//!
//! [`graph`] follows a function's code from its entry, with what registers and stack slots hold ([`values`], [`step`]);
//! [`results`] follows the result backwards from the returns ([`back`]); [`proof`] chooses, by what each tells ([`known`]), instructions that every call meets exactly
//! one of ([`cut`]), and checks that. Where a call has no such instruction on its way (glibc's `malloc` forgets the size
//! while it has the block made), two are chosen for that way, one that has the size and one that has the result. Whatever
//! is not understood is a [`Reason`] to leave the function to its entry and its return.

mod back;
mod beside;
mod cut;
mod graph;
mod image;
mod known;
mod planned;
mod proof;
mod reason;
mod results;
mod step;
mod values;

use std::collections::HashSet;

use tracer_ebpf::Operands;

use graph::{Explorer, Graph};
pub(super) use image::Image;
pub use planned::{Site, explain, sites};
pub use reason::Reason;

use super::shape::Shape;
use crate::bpf::programs;

/// What a site tells of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All of it.
    Whole,
    /// What it asks for.
    Request,
    /// What has become of one whose request was met before.
    Result,
}

impl Kind {
    /// The name of the eBPF program that serves such a site.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Whole => programs::CALL_COMPLETE,
            Self::Request => programs::CALL_BEGIN,
            Self::Result => programs::CALL_RESULT,
        }
    }
}

/// A site in a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Its address in the file.
    pub(super) address: u64,
    pub(super) kind: Kind,
    /// Where the call's values are.
    pub(super) site: Operands,
    /// The kernel must single-step the instruction there.
    pub(super) stepped: bool,
}

/// The sites of a function that is `len` bytes long. `traced`: the addresses of the other functions that are traced.
pub(super) fn plan(
    image: &Image,
    entry: u64,
    shape: Shape,
    traced: &HashSet<u64>,
) -> Result<Vec<Found>, Reason> {
    if !matches!(shape, Shape::Size | Shape::AlignedSize | Shape::CountSize) {
        return Err(Reason::Shape);
    }
    let graph = Explorer::new(image, traced).graph(entry)?;
    is_own(image, &graph, entry)?;
    proof::sites(&graph, entry, shape, !image.has_shadow_stack)
}

/// Fails if other code comes to the function's code than by calling it. Jumps to its middle from elsewhere would meet
/// sites that they are not meant for; a tail that several functions share is nobody's; and landing pads of exceptions, to
/// which no jump leads, come back with registers of which nothing is known.
fn is_own(image: &Image, graph: &Graph, entry: u64) -> Result<(), Reason> {
    let is_inside = |address: u64| {
        let before = graph.range(..=address).next_back();
        before.is_some_and(|(_, node)| address < node.instruction.next_ip())
    };
    let is_wanted = |address: u64| address != entry && graph.contains_key(&address);
    for (target, from) in image.references(is_wanted) {
        if !is_inside(from) {
            return Err(Reason::Shared(target, from));
        }
    }
    if let Some((target, from)) = beside::short_jump(image, graph, entry) {
        return Err(Reason::Shared(target, from));
    }
    if let Some(address) = image.words(is_wanted).first() {
        return Err(Reason::Pointed(*address));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
