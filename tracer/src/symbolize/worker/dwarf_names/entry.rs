//! The attributes of debug information entries that names are made of.

use std::rc::Rc;

use gimli::{AttributeValue, DebuggingInformationEntry, DwTag};

use super::Slice;
use super::index::{Die, LoadedUnit};
use super::units::Units;

/// References that are followed from one entry: from an inlined copy to the abstract function, and
/// from that to its declaration.
const MAX_HOPS: usize = 16;

/// An entry's attributes.
pub(super) struct Attributes<'data> {
    pub(super) tag: DwTag,
    pub(super) linkage_name: Option<&'data str>,
    pub(super) name: Option<&'data str>,
    pub(super) value_type: Option<AttributeValue<Slice<'data>>>,
    pub(super) is_artificial: bool,
    pub(super) is_external: bool,
    /// The line and column of its declaration.
    pub(super) declared_at: (u64, u64),
    /// The entry that has what is missing here, and true if that is the declaration of this.
    origin: Option<(AttributeValue<Slice<'data>>, bool)>,
}

/// An entry, with what it has from those that it refers to.
pub(super) struct Resolved<'data> {
    pub(super) linkage_name: Option<&'data str>,
    pub(super) name: Option<&'data str>,
    pub(super) is_external: bool,
    /// The last entry, which is the declaration, and lies in the class and namespace.
    pub(super) declaration: Die<'data>,
    /// The entry before it where that is the function itself, which has its parameters too.
    pub(super) definition: Die<'data>,
    pub(super) tag: DwTag,
}

impl<'data> Units<'data> {
    /// Reads the attributes of an entry.
    pub(super) fn attributes(&mut self, die: &Die<'data>) -> Option<Attributes<'data>> {
        self.take_step()?;
        let entry = die.unit.unit.entry(die.offset).ok()?;
        Some(self.attributes_of(&die.unit, &entry))
    }

    /// Picks attributes from an entry that was read.
    pub(super) fn attributes_of(
        &self,
        unit: &LoadedUnit<'data>,
        entry: &DebuggingInformationEntry<Slice<'data>>,
    ) -> Attributes<'data> {
        let mut found = Attributes {
            tag: entry.tag(),
            linkage_name: None,
            name: None,
            value_type: None,
            is_artificial: false,
            is_external: false,
            declared_at: (0, 0),
            origin: None,
        };
        let text = |value| {
            let text = self.dwarf.attr_string(&unit.unit, value).ok()?;
            std::str::from_utf8(text.slice()).ok()
        };
        for attribute in entry.attrs() {
            let value = attribute.value();
            match attribute.name() {
                gimli::DW_AT_linkage_name | gimli::DW_AT_MIPS_linkage_name => {
                    found.linkage_name = text(value);
                }
                gimli::DW_AT_name => found.name = text(value),
                gimli::DW_AT_type => found.value_type = Some(value),
                gimli::DW_AT_artificial => found.is_artificial = value == AttributeValue::Flag(true),
                gimli::DW_AT_external => found.is_external = value == AttributeValue::Flag(true),
                gimli::DW_AT_decl_line => found.declared_at.0 = value.udata_value().unwrap_or(0),
                gimli::DW_AT_decl_column => found.declared_at.1 = value.udata_value().unwrap_or(0),
                gimli::DW_AT_abstract_origin => found.origin = Some((value, false)),
                gimli::DW_AT_specification => found.origin = Some((value, true)),
                _ => {}
            }
        }
        found
    }

    /// Reads an entry with those that it refers to.
    pub(super) fn resolve(&mut self, die: &Die<'data>) -> Option<Resolved<'data>> {
        let mut die = die.clone();
        let mut definition = None;
        let (mut linkage_name, mut name, mut is_external) = (None, None, false);
        for _ in 0..MAX_HOPS {
            let attributes = self.attributes(&die)?;
            linkage_name = linkage_name.or(attributes.linkage_name);
            name = name.or(attributes.name);
            is_external |= attributes.is_external;
            match attributes.origin {
                Some((origin, is_declaration)) => {
                    if is_declaration {
                        definition.get_or_insert_with(|| die.clone());
                    }
                    die = self.follow(&die, origin)?;
                }
                None => {
                    return Some(Resolved {
                        linkage_name,
                        name,
                        is_external,
                        definition: definition.unwrap_or_else(|| die.clone()),
                        declaration: die,
                        tag: attributes.tag,
                    });
                }
            }
        }
        None
    }

    /// The name that other readers find: the first linkage name or name on the way.
    pub(super) fn raw_name(&mut self, die: &Die<'data>) -> Option<&'data str> {
        let mut die = die.clone();
        for _ in 0..MAX_HOPS {
            let attributes = self.attributes(&die)?;
            let name = attributes.linkage_name.or(attributes.name);
            if name.is_some() {
                return name;
            }
            die = self.follow(&die, attributes.origin?.0)?;
        }
        None
    }

    /// The entry that a value refers to, in this unit or in another one.
    pub(super) fn follow(
        &mut self,
        from: &Die<'data>,
        value: AttributeValue<Slice<'data>>,
    ) -> Option<Die<'data>> {
        match value {
            AttributeValue::UnitRef(offset) => Some(Die {
                unit: Rc::clone(&from.unit),
                offset,
            }),
            AttributeValue::DebugInfoRef(offset) => {
                let unit = self.containing(offset)?;
                let unit = self.load(unit)?;
                let offset = offset.to_unit_offset(&unit.unit.header)?;
                Some(Die { unit, offset })
            }
            _ => None,
        }
    }
}
