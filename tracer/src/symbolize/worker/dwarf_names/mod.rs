//! Qualified names of C++ functions from debug information, where it has a short name of them
//! alone.
//!
//! GCC writes a linkage name for functions that other files can call. A lambda is called
//! `operator()`, and a member of a local class `push`; their namespaces, classes and functions are
//! the parents of their entries (DWARF 5 section 3.3, and section 3.3.8 for inlined functions).
//!
//! Only units that have asked addresses are read, and those that they refer to. The bytes are
//! foreign: all work is counted, and what takes too much has no name from here.

mod entry;
mod index;
mod qualified;
#[cfg(test)]
mod tests;
mod units;

use std::borrow::Cow;
use std::collections::HashMap;

use gimli::{Dwarf, EndianSlice, LittleEndian, SectionId};

use super::unpacked;
use crate::elf::{Elf, sections};
use index::Die;
use qualified::Qualifier;
use units::Units;

type Slice<'data> = EndianSlice<'data, LittleEndian>;

/// The names that debug information has of the frames at an address, from the outermost to the
/// innermost: linkage names, or short ones.
#[derive(Debug)]
pub(super) struct RawFrames<'a> {
    pub(super) address: u64,
    pub(super) names: Vec<&'a str>,
}

/// The sections that names are read from, by their names.
pub(super) struct DebugSections<'data>(HashMap<&'static str, Cow<'data, [u8]>>);

impl<'data> DebugSections<'data> {
    /// Reads a file's sections. Those that are compressed are unpacked, to so many bytes in all;
    /// nothing where that is too few.
    pub(super) fn of(elf: &Elf<'data>, mut unpacked_bytes: u64) -> Option<Self> {
        let headers = sections::headers(elf).ok()?;
        let mut found = HashMap::new();
        for id in SECTIONS {
            let header = headers.iter().find(|header| header.name == id.name().as_bytes());
            if let Some(header) = header {
                found.insert(id.name(), unpacked::bytes_of(elf, header, &mut unpacked_bytes)?);
            }
        }
        Some(Self(found))
    }
}

/// The sections that units are made of.
const SECTIONS: &[SectionId] = &[
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugInfo,
    // A unit names its line program, which must be there.
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

/// The debug information of a file.
pub(super) struct DwarfNames<'data> {
    units: Units<'data>,
}

impl<'data> DwarfNames<'data> {
    /// Opens debug information; nothing where there is none.
    pub(super) fn of(sections: &'data DebugSections<'_>) -> Option<Self> {
        let bytes = |id: SectionId| sections.0.get(id.name()).map_or(&[][..], |bytes| &**bytes);
        let dwarf = Dwarf::load(|id| Ok::<_, gimli::Error>(EndianSlice::new(bytes(id), LittleEndian)));
        let units = Units::of(dwarf.ok()?)?;
        Some(Self { units })
    }

    /// The qualified names of frames, in their order; nothing for those with a linkage name, and
    /// for those whose names are whole.
    pub(super) fn qualify(&mut self, frames: &[RawFrames<'_>]) -> Vec<Vec<Option<String>>> {
        let mut addresses: Vec<u64> = frames.iter().map(|frames| frames.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let mut by_address: HashMap<u64, Vec<&RawFrames<'_>>> = HashMap::new();
        for frames in frames {
            by_address.entry(frames.address).or_default().push(frames);
        }
        let mut found: HashMap<u64, Vec<Option<String>>> = HashMap::new();
        for (unit, asked) in self.units.of_addresses(&addresses) {
            for (address, chains) in self.units.chains(unit, &asked) {
                let Some(frames) = by_address.get(&address).and_then(|frames| frames.first()) else {
                    continue;
                };
                if found.contains_key(&address) {
                    continue;
                }
                let fitting = chains.into_iter().find(|chain| self.fits(chain, frames));
                if let Some(chain) = fitting {
                    let names = chain.iter().map(|die| {
                        let units = &mut self.units;
                        Qualifier { units }.frame(die)
                    });
                    found.insert(address, names.collect());
                }
            }
            self.units.forget();
        }
        let names = frames.iter().map(|frames| {
            let names = found.get(&frames.address);
            names.cloned().unwrap_or_else(|| vec![None; frames.names.len()])
        });
        names.collect()
    }

    /// Returns true if these are the entries that the frames' names were read from.
    fn fits(&mut self, chain: &[Die<'data>], frames: &RawFrames<'_>) -> bool {
        self.units.refill_steps();
        let mut names = chain.iter().zip(&frames.names);
        chain.len() == frames.names.len()
            && names.all(|(die, name)| self.units.raw_name(die).is_some_and(|raw| raw == *name))
    }
}
