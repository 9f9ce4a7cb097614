//! Whole names of C++ functions, where debug information has a short one.
//!
//! GCC gives functions that other files cannot call no linkage name: functions in namespaces
//! without a name, members of local classes, lambdas, static functions. Their entries in the debug
//! information tell the namespaces, classes and functions that they lie in, and for a function that
//! was not inlined the symbol table has the mangled name. It may also have another function's:
//! functions of equal code that a linker folded share their address, and the symbol of one may be
//! all that is left. So an outermost frame is named by these rules:
//!
//! 1. A symbol counts if it covers the address, is a mangled one of C++, and its last part is the
//!    short name. `main`, functions of C and their parts (`f.part.0`) have no such symbol: their
//!    names stay.
//! 2. Where the debug information tells the namespace and the class, the symbol's must be the same:
//!    else it is another function's, and the debug information's qualified name is taken.
//! 3. Where several different symbols are left (overloads that were folded), the debug
//!    information's name is taken too; it is the only one that is known to be right.

use std::fs::File;

use memmap2::Mmap;

use super::components::components;
use super::covering_symbols::covering;
use super::demangle::{demangle, is_mangled, without_suffix};
use super::dwarf_names::{DebugSections, DwarfNames, RawFrames};
use crate::elf::Elf;

/// Returns true for a name of a function that may have a longer one.
pub(super) fn is_short(name: &str) -> bool {
    !name.is_empty() && !is_mangled(name)
}

/// Looks up the whole names of frames in a file with debug information; nothing for those that are
/// whole, or have no other name. Compressed sections may unpack to `unpacked_bytes`.
pub(super) fn whole_names(
    file: &File,
    unpacked_bytes: u64,
    frames: &[RawFrames<'_>],
) -> Vec<Vec<Option<String>>> {
    let unknown = |frames: &RawFrames<'_>| vec![None; frames.names.len()];
    // SAFETY: the mapping is read as bytes, and no reference to it is kept. A file that is
    // truncated meanwhile ends this process, which exists for that.
    let bytes = unsafe { Mmap::map(file) }.ok();
    let Some(elf) = bytes.as_deref().and_then(|bytes| Elf::parse(bytes).ok()) else {
        return frames.iter().map(unknown).collect();
    };
    let sections = DebugSections::of(&elf, unpacked_bytes);
    let mut whole = match sections.as_ref().and_then(DwarfNames::of) {
        Some(mut names) => names.qualify(frames),
        None => frames.iter().map(unknown).collect(),
    };
    let outermost = |frames: &RawFrames<'_>| frames.names.first().is_some_and(|name| is_short(name));
    let mut addresses: Vec<u64> = frames
        .iter()
        .filter(|frames| outermost(frames))
        .map(|frames| frames.address)
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    let symbols = covering(&elf, &addresses);
    for (whole, frames) in whole.iter_mut().zip(frames) {
        if let (Some(whole), Some(short)) = (whole.first_mut(), frames.names.first())
            && is_short(short)
        {
            let symbols = symbols.get(&frames.address).map_or(&[][..], Vec::as_slice);
            let symbols = symbols
                .iter()
                .map(|symbol| demangle(without_suffix(symbol)).into_owned());
            *whole = choose(short, &symbols.collect::<Vec<_>>(), whole.as_deref());
        }
    }
    whole
}

/// Chooses between the demangled symbols that cover an address and the qualified name from debug
/// information; nothing where the short name has to do.
fn choose(short: &str, symbols: &[String], qualified: Option<&str>) -> Option<String> {
    let leaf = components(short)?.pop()?;
    let path = qualified.and_then(components);
    let mut fitting: Vec<&String> = symbols
        .iter()
        .filter(|symbol| {
            components(symbol).is_some_and(|parts| match &path {
                Some(path) => parts == *path,
                None => parts.last() == Some(&leaf),
            })
        })
        .collect();
    fitting.sort_unstable();
    fitting.dedup();
    match *fitting {
        [only] => Some(only.clone()),
        _ => qualified.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(short: &str, symbols: &[&str], qualified: Option<&str>) -> Option<String> {
        let symbols: Vec<String> = symbols.iter().map(ToString::to_string).collect();
        choose(short, &symbols, qualified)
    }

    #[test]
    fn symbol_of_the_function_is_taken() {
        let whole = "main::{lambda()#1}::operator()() const";
        assert_eq!(chosen("operator()", &[whole], None).as_deref(), Some(whole));
        assert_eq!(
            chosen("operator()", &[whole, whole], None).as_deref(),
            Some(whole)
        );
        let qualified = Some("main::{lambda#1}::operator()");
        assert_eq!(chosen("operator()", &[whole], qualified).as_deref(), Some(whole));
        assert_eq!(
            chosen("helper", &["helper(int)"], None).as_deref(),
            Some("helper(int)")
        );
        assert_eq!(
            chosen("push<int>", &["void A<int>::push<int>(int)"], None).as_deref(),
            Some("void A<int>::push<int>(int)")
        );
    }

    #[test]
    fn symbol_of_another_function_is_not() {
        assert_eq!(chosen("main", &[], None), None);
        assert_eq!(chosen("push", &["ns::B::pop(int)"], None), None);
        let qualified = Some("(anonymous namespace)::A::push(int)");
        assert_eq!(
            chosen("push", &["B::push(int)"], qualified).as_deref(),
            qualified,
            "folded into another class's"
        );
        assert_eq!(
            chosen(
                "push",
                &["B::push(int)", "(anonymous namespace)::A::push(int)"],
                qualified
            )
            .as_deref(),
            qualified
        );
    }

    #[test]
    fn of_folded_functions_none_is_guessed() {
        let folded = [
            "main::{lambda()#1}::operator()() const",
            "main::{lambda()#2}::operator()() const",
        ];
        assert_eq!(chosen("operator()", &folded, None), None);
        let qualified = Some("main::{lambda()#2}::operator()() const");
        assert_eq!(chosen("operator()", &folded, qualified).as_deref(), qualified);
    }
}
