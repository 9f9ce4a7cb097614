//! Names that are put together from an entry and those that it lies in, as a demangler would write
//! them: `(anonymous namespace)::Cache::insert(int)`,
//! `main::{lambda(int)#1}::operator()(int) const`.
//!
//! Parameters are left out where they cannot be told in the same words: those of templates, which
//! symbols have as they were declared, and pointers to functions, arrays and packs.

use std::borrow::Cow;
use std::rc::Rc;

use gimli::{AttributeValue, DebuggingInformationEntry, DwTag, UnitOffset};

use super::Slice;
use super::entry::{Attributes, Resolved};
use super::index::Die;
use super::units::Units;
use crate::symbolize::worker::demangle;

/// Entries inside one another, and types made of one another.
const MAX_DEPTH: usize = 48;

/// Bytes of a name.
const MAX_NAME_BYTES: usize = 4096;

/// Parameters of a function.
const MAX_PARAMETERS: usize = 64;

/// The name of a lambda's function, without arguments of a template.
const CALL: &str = "operator()";

/// The entry that another lies in.
enum Enclosing {
    Nothing,
    /// Something with that name.
    Named(String),
}

/// The parameters of a function.
struct Parameters {
    types: Vec<String>,
    /// It is a member that does not change its object.
    is_const: bool,
}

/// Names from the units of a file.
pub(super) struct Qualifier<'a, 'data> {
    pub(super) units: &'a mut Units<'data>,
}

impl<'data> Qualifier<'_, 'data> {
    /// The qualified name of a frame's function; nothing where it has a linkage name, or no other
    /// name than its short one.
    pub(super) fn frame(&mut self, die: &Die<'data>) -> Option<String> {
        self.units.refill_steps();
        let function = self.units.resolve(die)?;
        if function.linkage_name.is_some() {
            return None;
        }
        self.function(&function, MAX_DEPTH)
    }

    /// The name of a function without a linkage name.
    fn function(&mut self, function: &Resolved<'data>, depth: usize) -> Option<String> {
        let depth = depth.checked_sub(1)?;
        let key = offset_in_section(&function.declaration);
        if let Some(known) = key.and_then(|key| self.units.known.get(&key)) {
            return known.clone();
        }
        let name = self.function_anew(function, depth);
        if let Some(key) = key {
            self.units.known.insert(key, name.clone());
        }
        name
    }

    fn function_anew(&mut self, function: &Resolved<'data>, depth: usize) -> Option<String> {
        let name = with_base_types(function.name?);
        let name = demangle::demangle(&name);
        let enclosing = self.enclosing(&function.declaration, depth)?;
        let has_types = function.definition.unit.has_types;
        if matches!(enclosing, Enclosing::Nothing) {
            if !has_types {
                // It may lie in something all the same.
                return None;
            }
            if function.is_external {
                // `main`, and functions of C that other files can call.
                return Some(name.into_owned());
            }
        }
        let mut whole = enclosing.with(&name);
        if has_types
            && !is_template(&name)
            && let Some(parameters) = self.parameters(&function.definition, depth)
        {
            whole.push_str(&parameters.text());
        }
        (whole.len() <= MAX_NAME_BYTES).then_some(whole)
    }

    /// Names what an entry lies in.
    fn enclosing(&mut self, die: &Die<'data>, depth: usize) -> Option<Enclosing> {
        let Some(offset) = die.unit.parent(die.offset) else {
            return Some(Enclosing::Nothing);
        };
        let unit = Rc::clone(&die.unit);
        self.qualified(&Die { unit, offset }, depth).map(Enclosing::Named)
    }

    /// The name of a namespace, a type or a function that others lie in.
    fn qualified(&mut self, die: &Die<'data>, depth: usize) -> Option<String> {
        let depth = depth.checked_sub(1)?;
        let entry = self.units.resolve(die)?;
        if entry.tag == gimli::DW_TAG_subprogram {
            return match entry.linkage_name {
                Some(linkage_name) => demangle::demangle_scope(linkage_name),
                None => self.function(&entry, depth),
            };
        }
        let own = match (entry.name, entry.tag) {
            (Some(name), _) => with_base_types(name).into_owned(),
            (_, gimli::DW_TAG_namespace) => "(anonymous namespace)".to_owned(),
            _ => self.without_name(&entry.declaration, depth)?,
        };
        let whole = self.enclosing(&entry.declaration, depth)?.with(&own);
        (whole.len() <= MAX_NAME_BYTES).then_some(whole)
    }

    /// A class without a name: of a lambda, which is numbered by its place in the source, as GCC 12
    /// numbers it.
    fn without_name(&mut self, class: &Die<'data>, depth: usize) -> Option<String> {
        let Some(call) = self.call_of(class) else {
            return Some("{unnamed type}".to_owned());
        };
        let is_template = self.units.attributes(&call)?.name.is_some_and(is_template);
        let parameters = if is_template {
            None
        } else {
            self.parameters(&call, depth)
        };
        let own_place = self.units.attributes(class)?.declared_at;
        let mut before = 0;
        for sibling in class.unit.siblings(class.offset) {
            if sibling.has_name || !is_class(sibling.tag) {
                continue;
            }
            let other = Die {
                unit: Rc::clone(&class.unit),
                offset: sibling.offset,
            };
            let place = (self.units.attributes(&other)?.declared_at, other.offset);
            if place < (own_place, class.offset) && self.call_of(&other).is_some() {
                before += 1;
            }
        }
        let number = before + 1;
        Some(match parameters {
            Some(parameters) => format!("{{lambda({})#{number}}}", parameters.types.join(", ")),
            None => format!("{{lambda#{number}}}"),
        })
    }

    /// The function of a lambda's class.
    fn call_of(&mut self, class: &Die<'data>) -> Option<Die<'data>> {
        let mut call = None;
        self.children(class, &mut |offset, attributes| {
            let is_call = attributes.tag == gimli::DW_TAG_subprogram
                && attributes
                    .name
                    .is_some_and(|name| without_arguments(name) == CALL);
            if is_call {
                let unit = Rc::clone(&class.unit);
                call = Some(Die { unit, offset });
            }
            !is_call
        })?;
        call
    }

    /// The parameters of a function, if all of them can be told.
    fn parameters(&mut self, function: &Die<'data>, depth: usize) -> Option<Parameters> {
        let mut types = Vec::new();
        let mut object = None;
        let mut is_variadic = false;
        let mut is_known = true;
        self.children(function, &mut |_, attributes| {
            match attributes.tag {
                gimli::DW_TAG_formal_parameter if attributes.is_artificial => {
                    object = object.take().or(attributes.value_type);
                }
                gimli::DW_TAG_formal_parameter => types.push(attributes.value_type),
                gimli::DW_TAG_unspecified_parameters => is_variadic = true,
                gimli::DW_TAG_GNU_formal_parameter_pack => is_known = false,
                _ => {}
            }
            is_known && types.len() <= MAX_PARAMETERS
        })?;
        if !is_known || types.len() > MAX_PARAMETERS {
            return None;
        }
        let types: Option<Vec<String>> = types
            .into_iter()
            .map(|value_type| self.type_name(function, value_type?, depth, false))
            .collect();
        let mut types = types?;
        if is_variadic {
            types.push("...".to_owned());
        }
        let is_const = match object {
            Some(object) => self.points_to_const(function, object)?,
            None => false,
        };
        Some(Parameters { types, is_const })
    }

    /// The name of a type, as a demangler writes it. A parameter's own `const` is no part of it,
    /// that of what it points to is (`has_const`).
    fn type_name(
        &mut self,
        from: &Die<'data>,
        value: AttributeValue<Slice<'data>>,
        depth: usize,
        has_const: bool,
    ) -> Option<String> {
        let depth = depth.checked_sub(1)?;
        let die = self.units.follow(from, value)?;
        let attributes = self.units.attributes(&die)?;
        let mut inner = |has_const| match attributes.value_type {
            Some(value) => self.type_name(&die, value, depth, has_const),
            None => Some("void".to_owned()),
        };
        let name = match attributes.tag {
            gimli::DW_TAG_pointer_type => inner(true)? + "*",
            gimli::DW_TAG_reference_type => inner(true)? + "&",
            gimli::DW_TAG_rvalue_reference_type => inner(true)? + "&&",
            gimli::DW_TAG_typedef => inner(has_const)?,
            gimli::DW_TAG_const_type if has_const => inner(true)? + " const",
            gimli::DW_TAG_const_type => inner(false)?,
            gimli::DW_TAG_base_type => with_base_types(attributes.name?).into_owned(),
            gimli::DW_TAG_unspecified_type => attributes.name?.to_owned(),
            gimli::DW_TAG_class_type
            | gimli::DW_TAG_structure_type
            | gimli::DW_TAG_union_type
            | gimli::DW_TAG_enumeration_type => self.qualified(&die, depth)?,
            _ => return None,
        };
        (name.len() <= MAX_NAME_BYTES).then_some(name)
    }

    /// Returns true for a pointer, which may be `const` itself, to what is `const`.
    fn points_to_const(&mut self, from: &Die<'data>, value: AttributeValue<Slice<'data>>) -> Option<bool> {
        let mut die = self.units.follow(from, value)?;
        let mut attributes = self.units.attributes(&die)?;
        while attributes.tag == gimli::DW_TAG_const_type {
            die = self.units.follow(&die, attributes.value_type?)?;
            attributes = self.units.attributes(&die)?;
        }
        let object = self.units.follow(&die, attributes.value_type?)?;
        Some(self.units.attributes(&object)?.tag == gimli::DW_TAG_const_type)
    }

    /// Calls `with` for the entries right below one, until it returns false.
    fn children(
        &mut self,
        die: &Die<'data>,
        with: &mut dyn FnMut(UnitOffset, Attributes<'data>) -> bool,
    ) -> Option<()> {
        let mut entries = die.unit.unit.entries_raw(Some(die.offset)).ok()?;
        let depth = entries.next_depth();
        let mut entry = DebuggingInformationEntry::null();
        entries.read_entry(&mut entry).ok()?;
        if !entry.has_children() {
            return Some(());
        }
        while !entries.is_empty() && entries.next_depth() > depth {
            self.units.take_step()?;
            let is_entry = entries.read_entry(&mut entry).ok()?;
            if is_entry && entry.depth() == depth + 1 {
                let attributes = self.units.attributes_of(&die.unit, &entry);
                if !with(entry.offset(), attributes) {
                    break;
                }
            }
        }
        Some(())
    }
}

impl Enclosing {
    /// The qualified name of something inside.
    fn with(self, name: &str) -> String {
        match self {
            Self::Nothing => name.to_owned(),
            Self::Named(outer) => outer + "::" + name,
        }
    }
}

impl Parameters {
    /// The parameters as a function has them.
    fn text(&self) -> String {
        let qualifier = if self.is_const { " const" } else { "" };
        format!("({}){qualifier}", self.types.join(", "))
    }
}

fn is_class(tag: DwTag) -> bool {
    matches!(tag, gimli::DW_TAG_class_type | gimli::DW_TAG_structure_type)
}

/// Returns true for a function with arguments of a template.
fn is_template(name: &str) -> bool {
    without_arguments(name).len() < name.len()
}

/// A function's short name without arguments of a template.
fn without_arguments(name: &str) -> &str {
    // An operator may have the bracket itself.
    let operator = name.strip_prefix("operator").map_or(0, |symbol| {
        let bare = symbol.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '_' && c != ' ');
        if symbol.starts_with([' ', '"']) {
            name.len()
        } else {
            name.len() - bare.len()
        }
    });
    // `operator<< <int>`, and `operator()<int>`.
    if name.starts_with("operator()") || name.starts_with("operator[]") {
        return &name[..CALL.len()];
    }
    let end = name[operator..]
        .find('<')
        .map_or(name.len(), |end| operator + end);
    name[..end].trim_end()
}

/// Types of the language as demanglers write them, each before those that it holds; compilers write
/// `long unsigned int`.
const BASE_TYPES: &[(&str, &str)] = &[
    ("long long unsigned int", "unsigned long long"),
    ("long unsigned int", "unsigned long"),
    ("short unsigned int", "unsigned short"),
    ("long long int", "long long"),
    ("long int", "long"),
    ("short int", "short"),
];

/// A type, or a name with types among its arguments, as demanglers write it.
fn with_base_types(name: &str) -> Cow<'_, str> {
    let mut name = Cow::Borrowed(name);
    for (written, demangled) in BASE_TYPES {
        if name.contains(written) {
            name = Cow::Owned(name.replace(written, demangled));
        }
    }
    name
}

/// The place of an entry in the section.
fn offset_in_section(die: &Die<'_>) -> Option<usize> {
    let offset = die.offset.to_debug_info_offset(&die.unit.unit.header)?;
    Some(offset.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_told_from_operators() {
        for (name, expected) in [
            ("push", "push"),
            ("push<int>", "push"),
            ("operator()", "operator()"),
            ("operator()<int>", "operator()"),
            ("operator<", "operator<"),
            ("operator<< <int>", "operator<<"),
            ("operator->", "operator->"),
            ("operator bool", "operator bool"),
            ("operator std::vector<int>", "operator std::vector<int>"),
            ("operator\"\"_kb", "operator\"\"_kb"),
        ] {
            assert_eq!(without_arguments(name), expected);
            assert_eq!(is_template(name), expected != name);
        }
    }
}
