//! Whole names of C++ functions, where debug information has a short one.
//!
//! GCC gives functions that other files cannot call no linkage name: functions in namespaces
//! without a name, members of local classes, lambdas, static functions. Their entries in the debug
//! information tell the namespaces, classes and functions that they lie in, and for a function that
//! was not inlined the symbol table has the mangled name. It may also have another function's:
//! functions of equal code that a linker folded share their address, and the symbol of one may be
//! all that is left. So an outermost frame is named by these rules:
//!
//! 1. A symbol counts if it covers the address, is mangled, and its last part is the short name.
//!    `main`, functions of C and their parts (`f.part.0`) have no such symbol: their names stay.
//! 2. Where the debug information tells the namespace and the class, the symbol's must be the same:
//!    else it is another function's, and the debug information's qualified name is taken.
//! 3. Where several different symbols are left (overloads that were folded), the debug
//!    information's name is taken too; it is the only one that is known to be right.

use std::collections::HashMap;
use std::fs::File;

use memmap2::Mmap;

use super::components::components;
use super::covering_symbols::covering;
use super::demangle::{demangle, is_mangled, without_suffix};
use super::dwarf_names::{DebugSections, DwarfNames, RawFrames};
use crate::elf::Elf;

/// The whole names of frames, from the outermost to the innermost, by the index of their address;
/// nothing for those that are whole.
type WholeFrames = HashMap<usize, Vec<Option<String>>>;

/// The whole names in a file with debug information.
#[derive(Debug, Clone, Copy)]
pub(super) struct WholeNames<'a> {
    /// The file.
    pub(super) file: &'a File,
    /// The most bytes that its compressed sections may unpack to.
    pub(super) unpacked_bytes: u64,
}

impl WholeNames<'_> {
    /// Looks up the frames of addresses that have short names. `frames` are the names that the
    /// debug information has, from the outermost to the innermost.
    pub(super) fn of(&self, frames: &[(u64, Vec<&str>)]) -> WholeFrames {
        let is_short = |name: &&str| !name.is_empty() && !is_mangled(name);
        let short = (0..frames.len()).filter(|index| frames[*index].1.iter().any(is_short));
        let short: Vec<usize> = short.collect();
        if short.is_empty() {
            return WholeFrames::new();
        }
        // SAFETY: the mapping is read as bytes, and no reference to it is kept. A file that is
        // truncated meanwhile ends this process, which exists for that.
        let Ok(bytes) = (unsafe { Mmap::map(self.file) }) else {
            return WholeFrames::new();
        };
        let Ok(elf) = Elf::parse(&*bytes) else {
            return WholeFrames::new();
        };
        let asked: Vec<RawFrames<'_>> = short
            .iter()
            .map(|index| RawFrames {
                address: frames[*index].0,
                names: frames[*index].1.clone(),
            })
            .collect();
        let sections = DebugSections::of(&elf, self.unpacked_bytes);
        let mut whole = match sections.as_ref().and_then(DwarfNames::of) {
            Some(mut names) => names.qualify(&asked),
            None => asked
                .iter()
                .map(|frames| vec![None; frames.names.len()])
                .collect(),
        };
        let mut outer: Vec<u64> = asked
            .iter()
            .filter(|frames| frames.names.first().is_some_and(is_short))
            .map(|frames| frames.address)
            .collect();
        outer.sort_unstable();
        outer.dedup();
        let symbols = covering(&elf, &outer);
        for (whole, frames) in whole.iter_mut().zip(&asked) {
            let symbols = symbols.get(&frames.address).map_or(&[][..], Vec::as_slice);
            if let (Some(whole), Some(short)) = (whole.first_mut(), frames.names.first())
                && is_short(short)
            {
                let symbols = symbols
                    .iter()
                    .map(|symbol| demangle(without_suffix(symbol)).into_owned());
                *whole = choose(short, &symbols.collect::<Vec<_>>(), whole.as_deref());
            }
        }
        short.into_iter().zip(whole).collect()
    }
}

/// Chooses between the demangled symbols that cover an address and the qualified name from debug
/// information; nothing where the short name has to do.
pub(super) fn choose(short: &str, symbols: &[String], qualified: Option<&str>) -> Option<String> {
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
