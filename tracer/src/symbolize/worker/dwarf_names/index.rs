//! One pass over a unit: the parents of its entries, and the functions at addresses.

use std::collections::HashMap;
use std::rc::Rc;

use gimli::{Attribute, AttributeValue, DwTag, Dwarf, Unit, UnitOffset};

use super::Slice;

/// Functions that are kept for one address. Functions of equal code that were folded share theirs.
const MAX_CHAINS: usize = 64;

/// Functions that are inlined into one another, at one address.
const MAX_INLINED: usize = 256;

/// A unit, and its entries that others lie in.
pub(super) struct LoadedUnit<'data> {
    pub(super) unit: Unit<Slice<'data>>,
    scopes: Vec<ScopeEntry>,
    /// It describes types, and what lies in what: not with GCC's `-g1`.
    pub(super) has_types: bool,
}

/// An entry of a unit.
#[derive(Clone)]
pub(super) struct Die<'data> {
    pub(super) unit: Rc<LoadedUnit<'data>>,
    pub(super) offset: UnitOffset,
}

/// A namespace, a type or a function.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScopeEntry {
    pub(super) offset: UnitOffset,
    pub(super) tag: DwTag,
    pub(super) has_name: bool,
    /// The index of the scope that it lies in.
    parent: Option<usize>,
}

/// The entries of a function at an address, and of those that are inlined there: from the outermost
/// to the innermost.
pub(super) type Chain = Vec<UnitOffset>;

/// The functions by the addresses that were asked for.
pub(super) type Chains = HashMap<u64, Vec<Chain>>;

impl<'data> LoadedUnit<'data> {
    /// Reads the entries of a unit, and finds the functions at `addresses`, which are sorted.
    /// `entries_left` is the number of entries that may be read, and is counted down.
    pub(super) fn read(
        dwarf: &Dwarf<Slice<'data>>,
        unit: Unit<Slice<'data>>,
        addresses: &[u64],
        entries_left: &mut u64,
    ) -> Option<(Self, Chains)> {
        let mut scopes: Vec<ScopeEntry> = Vec::new();
        // Depths and indices of the scopes that the next entry lies in.
        let mut open: Vec<(isize, usize)> = Vec::new();
        let mut chains = Chains::new();
        let mut has_types = false;
        let mut entries = unit.entries_raw(None).ok()?;
        while !entries.is_empty() {
            *entries_left = entries_left.checked_sub(1)?;
            let (offset, depth) = (entries.next_offset(), entries.next_depth());
            let Some(abbreviation) = entries.read_abbreviation().ok()? else {
                continue;
            };
            let tag = abbreviation.tag();
            while open.last().is_some_and(|(other, _)| *other >= depth) {
                open.pop();
            }
            if is_scope(tag) {
                open.push((depth, scopes.len()));
                let parent = open.len().checked_sub(2).map(|parent| open[parent].1);
                let mut attributes = abbreviation.attributes().iter();
                scopes.push(ScopeEntry {
                    offset,
                    tag,
                    has_name: attributes.any(|attribute| attribute.name() == gimli::DW_AT_name),
                    parent,
                });
            }
            has_types |= tag == gimli::DW_TAG_base_type;
            let is_function = tag == gimli::DW_TAG_subprogram;
            if !is_function && tag != gimli::DW_TAG_inlined_subroutine || addresses.is_empty() {
                entries.skip_attributes(abbreviation.attributes()).ok()?;
                continue;
            }
            let mut ranges = RangeAttributes::default();
            for specification in abbreviation.attributes() {
                ranges.note(&entries.read_attribute(*specification).ok()?);
            }
            ranges.each(dwarf, &unit, &mut |begin, end| {
                let first = addresses.partition_point(|address| *address < begin);
                let covered = addresses[first..].iter().take_while(|address| **address < end);
                for address in covered {
                    *entries_left = entries_left.checked_sub(1)?;
                    let chains = chains.entry(*address).or_default();
                    if is_function {
                        if chains.len() < MAX_CHAINS {
                            chains.push(vec![offset]);
                        }
                    } else if let Some(chain) = chains.last_mut()
                        && chain.len() < MAX_INLINED
                    {
                        chain.push(offset);
                    }
                }
                Some(())
            })?;
        }
        let unit = Self {
            unit,
            scopes,
            has_types,
        };
        Some((unit, chains))
    }

    /// The number of scopes.
    pub(super) fn len(&self) -> usize {
        self.scopes.len()
    }

    /// The scope that a scope lies in; nothing at the top of the unit.
    pub(super) fn parent(&self, offset: UnitOffset) -> Option<UnitOffset> {
        let scope = &self.scopes[self.index(offset)?];
        scope.parent.map(|parent| self.scopes[parent].offset)
    }

    /// The scopes that lie in the same one as this, in their order.
    pub(super) fn siblings(&self, offset: UnitOffset) -> Vec<ScopeEntry> {
        let Some(index) = self.index(offset) else {
            return Vec::new();
        };
        let parent = self.scopes[index].parent;
        let begin = parent.map_or(0, |parent| parent + 1);
        let inside = self.scopes[begin..]
            .iter()
            .take_while(|scope| parent.is_none() || scope.parent >= parent);
        inside.filter(|scope| scope.parent == parent).copied().collect()
    }

    fn index(&self, offset: UnitOffset) -> Option<usize> {
        self.scopes
            .binary_search_by_key(&offset, |scope| scope.offset)
            .ok()
    }
}

/// Returns true for entries whose name is a part of the names of those inside.
fn is_scope(tag: DwTag) -> bool {
    matches!(
        tag,
        gimli::DW_TAG_namespace
            | gimli::DW_TAG_class_type
            | gimli::DW_TAG_structure_type
            | gimli::DW_TAG_union_type
            | gimli::DW_TAG_enumeration_type
            | gimli::DW_TAG_subprogram
    )
}

/// The attributes that say which addresses an entry covers (DWARF 5 section 2.17).
#[derive(Default)]
pub(super) struct RangeAttributes<'data> {
    low: Option<AttributeValue<Slice<'data>>>,
    high: Option<AttributeValue<Slice<'data>>>,
    list: Option<AttributeValue<Slice<'data>>>,
}

impl<'data> RangeAttributes<'data> {
    /// Keeps an attribute if it is one of them.
    pub(super) fn note(&mut self, attribute: &Attribute<Slice<'data>>) {
        match attribute.name() {
            gimli::DW_AT_low_pc => self.low = Some(attribute.value()),
            gimli::DW_AT_high_pc => self.high = Some(attribute.value()),
            gimli::DW_AT_ranges => self.list = Some(attribute.value()),
            _ => {}
        }
    }

    /// Calls `with` for each range, until it returns nothing.
    pub(super) fn each(
        &self,
        dwarf: &Dwarf<Slice<'data>>,
        unit: &Unit<Slice<'data>>,
        with: &mut dyn FnMut(u64, u64) -> Option<()>,
    ) -> Option<()> {
        if let Some(list) = &self.list {
            let Ok(Some(mut ranges)) = dwarf.attr_ranges(unit, *list) else {
                return Some(());
            };
            while let Ok(Some(range)) = ranges.next() {
                with(range.begin, range.end)?;
            }
            return Some(());
        }
        let address = |value: &AttributeValue<Slice<'data>>| dwarf.attr_address(unit, *value).ok()?;
        let Some(begin) = self.low.as_ref().and_then(address) else {
            return Some(());
        };
        let end = match &self.high {
            Some(AttributeValue::Udata(size)) => begin.checked_add(*size),
            Some(end) => address(end),
            None => None,
        };
        match end {
            Some(end) => with(begin, end),
            None => Some(()),
        }
    }
}
