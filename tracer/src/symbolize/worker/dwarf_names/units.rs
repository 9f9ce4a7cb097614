//! The units of a file's debug information, read where they are asked for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use gimli::{AbbreviationsCacheStrategy, AttributeValue, DebugInfoOffset, Dwarf, UnitHeader, UnitType};

use super::Slice;
use super::index::{Die, LoadedUnit, RangeAttributes};

/// Units of one file. The largest programs have some 50,000.
const MAX_UNITS: usize = 1 << 20;

/// Entries that are read of one file: a few seconds.
const MAX_ENTRIES: u64 = 1 << 27;

/// Scopes that are kept at a time: some 60 MB.
const MAX_SCOPES: usize = 2 << 20;

/// Entries that are read for one name.
const MAX_STEPS: u32 = 4096;

/// The units.
pub(super) struct Units<'data> {
    pub(super) dwarf: Dwarf<Slice<'data>>,
    /// In the order of their offsets.
    headers: Vec<(DebugInfoOffset, UnitHeader<Slice<'data>>)>,
    loaded: HashMap<usize, Rc<LoadedUnit<'data>>>,
    /// Scopes of the units that are loaded.
    scopes: usize,
    entries_left: u64,
    pub(super) steps_left: u32,
    /// Names by the offsets of their declarations in the section.
    pub(super) known: HashMap<usize, Option<String>>,
}

impl<'data> Units<'data> {
    pub(super) fn of(mut dwarf: Dwarf<Slice<'data>>) -> Option<Self> {
        let mut headers = Vec::new();
        let mut units = dwarf.units();
        while let Ok(Some(header)) = units.next() {
            if let Some(offset) = header.debug_info_offset()
                && !matches!(header.type_(), UnitType::Type { .. } | UnitType::SplitType { .. })
                && headers.len() < MAX_UNITS
            {
                headers.push((offset, header));
            }
        }
        if headers.is_empty() {
            return None;
        }
        dwarf.populate_abbreviations_cache(AbbreviationsCacheStrategy::Duplicates);
        Some(Self {
            dwarf,
            headers,
            loaded: HashMap::new(),
            scopes: 0,
            entries_left: MAX_ENTRIES,
            steps_left: 0,
            known: HashMap::new(),
        })
    }

    /// The units of C++ that cover addresses, with the addresses. `addresses` are sorted.
    pub(super) fn of_addresses(&mut self, addresses: &[u64]) -> BTreeMap<usize, Vec<u64>> {
        let mut found: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        let mut left = self.entries_left;
        let mut add = |unit: usize, begin: u64, end: u64| {
            left = left.checked_sub(1)?;
            let first = addresses.partition_point(|address| *address < begin);
            for address in addresses[first..].iter().take_while(|address| **address < end) {
                left = left.checked_sub(1)?;
                found.entry(unit).or_default().push(*address);
            }
            Some(())
        };
        let listed = self.listed_ranges(&mut add);
        for (index, (_, header)) in self.headers.iter().enumerate() {
            if !listed.contains(&index)
                && let Ok(unit) = self.dwarf.unit(*header)
                && let Some(ranges) = root_ranges(&unit)
                && ranges
                    .each(&self.dwarf, &unit, &mut |begin, end| add(index, begin, end))
                    .is_none()
            {
                break;
            }
        }
        self.entries_left = left;
        found.retain(|index, addresses| {
            addresses.sort_unstable();
            addresses.dedup();
            self.is_cpp(*index)
        });
        found
    }

    /// Reads the ranges in `.debug_aranges` (DWARF 5 section 6.1.2), and returns the units that it
    /// has.
    fn listed_ranges(&self, add: &mut dyn FnMut(usize, u64, u64) -> Option<()>) -> HashSet<usize> {
        let mut listed = HashSet::new();
        let mut sets = self.dwarf.debug_aranges.headers();
        while let Ok(Some(set)) = sets.next() {
            let Ok(unit) = self
                .headers
                .binary_search_by_key(&set.debug_info_offset(), |(offset, _)| *offset)
            else {
                continue;
            };
            let mut entries = set.entries();
            let mut is_whole = false;
            loop {
                match entries.next() {
                    Ok(Some(entry)) if entry.length() > 0 => {
                        is_whole = true;
                        let end = entry.address().saturating_add(entry.length());
                        if add(unit, entry.address(), end).is_none() {
                            return listed;
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => {
                        is_whole = false;
                        break;
                    }
                }
            }
            if is_whole {
                listed.insert(unit);
            }
        }
        listed
    }

    fn is_cpp(&self, index: usize) -> bool {
        let language = || {
            let unit = self.dwarf.unit(self.headers[index].1).ok()?;
            let root = unit.entry(unit.header.root_offset()).ok()?;
            root.attr_value(gimli::DW_AT_language)
        };
        matches!(
            language(),
            Some(AttributeValue::Language(
                gimli::DW_LANG_C_plus_plus
                    | gimli::DW_LANG_C_plus_plus_03
                    | gimli::DW_LANG_C_plus_plus_11
                    | gimli::DW_LANG_C_plus_plus_14
                    | gimli::DW_LANG_C_plus_plus_17
                    | gimli::DW_LANG_C_plus_plus_20
            ))
        )
    }

    /// The functions of a unit at addresses, which are sorted, with those that are inlined there.
    pub(super) fn chains(&mut self, index: usize, addresses: &[u64]) -> Vec<(u64, Vec<Vec<Die<'data>>>)> {
        let Ok(unit) = self.dwarf.unit(self.headers[index].1) else {
            return Vec::new();
        };
        let read = LoadedUnit::read(&self.dwarf, unit, addresses, &mut self.entries_left);
        let Some((unit, chains)) = read else {
            return Vec::new();
        };
        let unit = self.keep(index, unit);
        let die = |offset| Die {
            unit: Rc::clone(&unit),
            offset,
        };
        let chains = chains.into_iter().map(|(address, chains)| {
            let chains = chains.into_iter();
            (
                address,
                chains.map(|chain| chain.into_iter().map(die).collect()).collect(),
            )
        });
        chains.collect()
    }

    /// A unit that another one refers to.
    pub(super) fn load(&mut self, index: usize) -> Option<Rc<LoadedUnit<'data>>> {
        if let Some(unit) = self.loaded.get(&index) {
            return Some(Rc::clone(unit));
        }
        if self.scopes > MAX_SCOPES {
            return None;
        }
        let unit = self.dwarf.unit(self.headers[index].1).ok()?;
        let (unit, _) = LoadedUnit::read(&self.dwarf, unit, &[], &mut self.entries_left)?;
        Some(self.keep(index, unit))
    }

    fn keep(&mut self, index: usize, unit: LoadedUnit<'data>) -> Rc<LoadedUnit<'data>> {
        let unit = Rc::new(unit);
        self.scopes += unit.len();
        if let Some(replaced) = self.loaded.insert(index, Rc::clone(&unit)) {
            self.scopes -= replaced.len();
        }
        unit
    }

    /// Drops the units that were read, if they are many.
    pub(super) fn forget(&mut self) {
        if self.scopes > MAX_SCOPES / 2 {
            self.loaded.clear();
            self.scopes = 0;
        }
    }

    /// The unit that has an offset of the section.
    pub(super) fn containing(&self, offset: DebugInfoOffset) -> Option<usize> {
        let behind = self.headers.partition_point(|(begin, _)| *begin <= offset);
        behind.checked_sub(1)
    }

    /// Begins a name.
    pub(super) fn refill_steps(&mut self) {
        self.steps_left = MAX_STEPS;
    }

    /// Counts an entry that is read for a name; nothing where there were too many.
    pub(super) fn take_step(&mut self) -> Option<()> {
        self.steps_left = self.steps_left.checked_sub(1)?;
        self.entries_left = self.entries_left.checked_sub(1)?;
        Some(())
    }
}

/// The attributes of the unit's own entry that have its ranges.
fn root_ranges<'data>(unit: &gimli::Unit<Slice<'data>>) -> Option<RangeAttributes<'data>> {
    let root = unit.entry(unit.header.root_offset()).ok()?;
    let mut ranges = RangeAttributes::default();
    for attribute in root.attrs() {
        ranges.note(attribute);
    }
    Some(ranges)
}
