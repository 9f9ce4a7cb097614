//! The mangled symbols that cover addresses.

use std::collections::HashMap;

use super::demangle::is_rust;
use crate::elf::{Elf, SymbolKind, SymbolTable};

/// Symbols that are kept for one address. Folded functions of equal code have thousands at one
/// address, and no more than these are looked at.
const MAX_SYMBOLS: usize = 64;

/// The mangled names of functions, by an address that they cover.
pub(super) type CoveringSymbols<'data> = HashMap<u64, Vec<&'data str>>;

/// Looks up the functions of C++ that cover addresses, which are sorted: in the whole symbol table,
/// or in the dynamic one where there is no other.
pub(super) fn covering<'data>(elf: &Elf<'data>, addresses: &[u64]) -> CoveringSymbols<'data> {
    let found = in_table(elf, SymbolTable::Static, addresses);
    match found {
        Some(found) => found,
        None => in_table(elf, SymbolTable::Dynamic, addresses).unwrap_or_default(),
    }
}

/// The same in one table; nothing where the file does not have it.
fn in_table<'data>(
    elf: &Elf<'data>,
    table: SymbolTable,
    addresses: &[u64],
) -> Option<CoveringSymbols<'data>> {
    let symbols = elf.symbols(table).ok().filter(|symbols| symbols.len() > 0)?;
    let mut found = CoveringSymbols::new();
    for symbol in symbols {
        if symbol.kind != SymbolKind::Function || !symbol.name.starts_with(b"_Z") {
            continue;
        }
        let end = symbol.address.saturating_add(symbol.size);
        let first = addresses.partition_point(|address| *address < symbol.address);
        let covered = addresses[first..].iter().take_while(|address| **address < end);
        for address in covered {
            let names = found.entry(*address).or_default();
            if names.len() < MAX_SYMBOLS
                && let Ok(name) = std::str::from_utf8(symbol.name)
                && !is_rust(name)
            {
                names.push(name);
            }
        }
    }
    Some(found)
}
