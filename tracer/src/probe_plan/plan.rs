//! From the functions of a file to the probes on it.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use tracer_ebpf::{CodeRange, Function, MAX_CODE_RANGES, Operands, ProbeSpec};

use super::elf::{self, ElfError, Placed, Symbols};
use super::flow::{Code, Flow};
use super::found::{find, forwards, handing_on, names};
use super::functions::{
    ASAN_MARK, GLIBC_MARK, LIBC_ALIASES, LIBC_MARK, LOADER_MARK, LOOKUPS, Row, Set, Table, Throws,
};
use super::jumps::Jumps;
use super::place::{arguments, places, shape_at};
use super::ranges::merge;
use super::shape::{RETURN_ADDRESS_BYTES, Shape};
use crate::process::files::MappedFile;
use crate::symbolize;

/// A probe to be attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedProbe {
    /// What calls count as.
    pub function: Function,
    /// The symbol.
    pub symbol: String,
    /// Which program serves it.
    pub shape: Shape,
    /// What the function itself is given: a probe further on may be served by another program.
    pub called: Shape,
    /// The address in the file of the function's first instruction.
    pub address: u64,
    /// Bytes from there to the probe.
    pub offset: u64,
    /// Where in the file.
    pub file_offset: u64,
    /// What the kernel side must know of it.
    pub spec: ProbeSpec,
    /// Whether the kernel must single-step the instruction there, which makes a hit much dearer.
    pub single_stepped: bool,
    /// Other places for it, the best first, should another tracer hold that one.
    pub others: Vec<PlannedProbe>,
}

impl PlannedProbe {
    /// Bytes pushed on the stack between the function's first instruction and the probed one.
    #[must_use]
    pub const fn pushed_bytes(&self) -> u32 {
        self.spec.operands.cfa_bytes - RETURN_ADDRESS_BYTES
    }
}

/// A file that has an allocator, and the probes that trace it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The file.
    pub file: Arc<MappedFile>,
    /// The allocators in it, by name.
    pub allocators: Vec<String>,
    /// Which of the functions that the user named are there, and of the prefixes, as they were given.
    pub asked_for: Vec<String>,
    /// The probes, in the order of the table of functions.
    pub probes: Vec<PlannedProbe>,
}

/// What a file is to us.
#[derive(Debug, Clone)]
pub enum Found {
    /// It has an allocator.
    Allocator(Plan),
    /// It is a statically linked program without symbols: it may have one that cannot be found.
    StaticWithoutSymbols,
    /// It is a program that has this allocator linked in, and no symbols by which its functions could be found.
    Hidden(&'static str),
    /// It has functions of an allocator that hand every call on to another file's: that one's probes see them.
    Forwards,
    /// It has none.
    Nothing,
}

/// Looks for allocators in a file: a library's, or one that is linked into a program.
pub fn examine(file: &Arc<MappedFile>, table: &Table) -> Result<Found, ElfError> {
    let marks = [LIBC_MARK, GLIBC_MARK, LOADER_MARK, ASAN_MARK];
    let table = table.for_file(&file.path);
    let wanted = |name: &str| {
        table.has(name) || marks.contains(&name) || LOOKUPS.contains(&name) || LIBC_ALIASES.contains(&name)
    };
    let read = |separate: Option<&File>| {
        elf::find_functions(&file.open_path(), &file.path, &wanted, table.offsets(), separate)
    };
    let mut symbols = read(None)?;
    let is_static = symbols.interpreter.is_none() && !symbols.has_symbols;
    if symbols.functions.is_empty()
        && (symbols.hidden.is_some() || is_static)
        && let Some(separate) = symbolize::debug_file_of(file, table.debug_directories())
    {
        symbols = read(Some(&separate))?;
    }
    let has = |name: &str| symbols.functions.contains_key(name);
    let mut found = if has(LOADER_MARK) && !has(LIBC_MARK) {
        Vec::new()
    } else {
        find(&symbols, &table)
    };
    let forwards = forwards(&symbols) && !found.is_empty();
    if forwards {
        found.retain(|(row, _)| table.is_asked_for(row));
    }
    if found.is_empty() {
        return Ok(match (forwards, symbols.hidden) {
            (true, _) => Found::Forwards,
            (_, Some(allocator)) => Found::Hidden(allocator),
            _ if is_static && !symbols.has_static_symbols => Found::StaticWithoutSymbols,
            _ => Found::Nothing,
        });
    }
    let mut asked_for: Vec<String> = found
        .iter()
        .filter(|(row, _)| table.is_asked_for(row))
        .map(|(row, _)| match &row.set {
            Set::Prefix(prefix) => prefix.clone(),
            _ => row.symbol.clone(),
        })
        .collect();
    asked_for.dedup();
    Ok(Found::Allocator(Plan {
        file: Arc::clone(file),
        allocators: names(&symbols, &found),
        asked_for,
        probes: probes(&symbols, found),
    }))
}

fn probes(symbols: &Symbols, mut found: Vec<(&Row, Placed)>) -> Vec<PlannedProbe> {
    let is_libc = symbols.functions.contains_key(LIBC_MARK);
    let throws = Throwing::of(symbols, &found);
    let all: Vec<(u64, u64)> = found
        .iter()
        .map(|(_, placed)| (placed.address, placed.len))
        .collect();
    let code = Code::new(symbols, all.into_iter());
    let handing_on = handing_on(&code, &found, &|row| throws.may(row));
    // What hands on is still code that calls the others, but needs no probe of its own.
    let callers: Vec<Placed> = found
        .iter()
        .filter(|(_, placed)| !handing_on.contains(&placed.address))
        .map(|(_, placed)| *placed)
        .collect();
    let flows: HashMap<u64, Flow> = found
        .iter()
        .map(|(_, placed)| (placed.address, code.follow(placed.address, None)))
        .collect();
    found.retain(|(_, placed)| !handing_on.contains(&placed.address));
    let jumps = Jumps::new(&found, &flows);
    let mut own_calls = code.own_calls(flows.values());
    if is_libc {
        own_calls.extend(&symbols.own_calls);
    }
    jumps.carry_on(&mut own_calls);
    found
        .iter()
        .filter_map(|(row, placed)| {
            let mut tail = jumps.marks(row, placed, is_libc);
            if symbols.functions.contains_key(GLIBC_MARK) && row.set == Set::Prefix(String::new()) {
                tail |= ProbeSpec::GLIBC_CHUNKS;
            }
            if throws.may(row) {
                tail |= ProbeSpec::ENTRY_ONLY;
            }
            if row.frees_on_failure {
                tail |= ProbeSpec::FREES_ON_FAILURE;
            }
            let code = symbols.code.get(&placed.address).map_or(&[][..], Vec::as_slice);
            let is_array = row.shape == Shape::ResizeArray;
            let mut at = places(code, arguments(row.shape), is_array)
                .into_iter()
                .filter_map(|place| {
                    let shape = shape_at(row.shape, &place)?;
                    let mut spec = site(row.function, placed, place.offset, tail, &callers, &own_calls);
                    spec.operands = shape.operands(place.pushed_bytes);
                    // What it returns is the function's, wherever its arguments are.
                    spec.flags |= row.shape.return_flags();
                    Some(PlannedProbe {
                        function: row.function,
                        symbol: row.symbol.clone(),
                        shape,
                        called: row.shape,
                        address: placed.address,
                        offset: place.offset,
                        file_offset: placed.file_offset + place.offset,
                        spec,
                        single_stepped: place.single_stepped,
                        others: Vec::new(),
                    })
                });
            let best = at.next();
            let others = at.collect();
            best.map(|best| PlannedProbe { others, ..best })
        })
        .collect()
}

/// Which functions of a file an exception may pass through.
struct Throwing {
    /// Those with `std::nothrow` catch what a new-handler throws.
    catches: bool,
}

impl Throwing {
    fn of(symbols: &Symbols, found: &[(&Row, Placed)]) -> Self {
        Self {
            catches: symbols.functions.contains_key("tc_malloc")
                || found.iter().any(|(row, _)| row.function == Function::Mallocx),
        }
    }

    fn may(&self, row: &Row) -> bool {
        match row.throws {
            Throws::Never => false,
            Throws::Nothrow => !self.catches,
            Throws::May => true,
        }
    }
}

/// The site's callers, as distances from the probe: every function's code, this one's own too, and calls that the
/// allocator makes for itself elsewhere (glibc frees what it kept for a thread that ends).
fn site(
    function: Function,
    placed: &Placed,
    offset: u64,
    tail: u32,
    functions: &[Placed],
    own_calls: &[(u64, u64)],
) -> ProbeSpec {
    let probe = placed.address + offset;
    let distance = |address: u64| address.wrapping_sub(probe).cast_signed();
    let bodies = functions.iter().filter(|other| other.len > 0).map(|other| {
        let start = distance(other.address);
        // A call that is the last instruction of a function returns to just past its end.
        CodeRange {
            start: start + 1,
            end: start.saturating_add_unsigned(other.len + 1),
        }
    });
    let elsewhere = own_calls
        .iter()
        .filter(|(target, _)| *target == placed.address)
        .map(|(_, next)| {
            let start = distance(*next);
            CodeRange {
                start,
                end: start + 1,
            }
        });
    let used = merge(bodies.chain(elsewhere).collect(), MAX_CODE_RANGES - 1);
    let mut callers = [CodeRange::default(); MAX_CODE_RANGES];
    callers[0] = CodeRange {
        start: used.iter().map(|range| range.start).min().unwrap_or(0),
        end: used.iter().map(|range| range.end).max().unwrap_or(0),
    };
    callers[1..=used.len()].copy_from_slice(&used);
    ProbeSpec {
        operands: Operands::default(),
        function: function.number(),
        flags: tail,
        callers_len: u32::try_from(used.len() + 1).unwrap_or(0),
        index: 0,
        reserved: 0,
        caller_distance: 0,
        callers,
    }
}

/// The name of a file for messages: its last part.
#[must_use]
pub fn short_name(path: &Path) -> String {
    path.file_name().map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(symbols: &Symbols) -> Vec<PlannedProbe> {
        let table = Table::default();
        let mut found = find(symbols, &table);
        found.retain(|(row, _)| row.set == Set::Prefix(String::new()) && row.symbol != "free");
        probes(symbols, found)
    }

    fn placed(address: u64, len: u64) -> Placed {
        Placed {
            address,
            len,
            file_offset: address,
        }
    }

    fn symbols(functions: &[(&str, Placed, &[u8])]) -> Symbols {
        let mut symbols = Symbols::default();
        for (name, placed, code) in functions {
            symbols.functions.insert((*name).to_owned(), *placed);
            symbols.code.insert(placed.address, code.to_vec());
            symbols.text.push((placed.address, code.to_vec()));
        }
        for name in ["free", LIBC_MARK] {
            symbols.functions.insert(name.to_owned(), placed(0x9000, 1));
        }
        symbols
    }

    #[test]
    fn one_address_has_one_probe_named_by_the_first_name() {
        let shared = placed(0x1000, 4);
        let symbols = symbols(&[("memalign", shared, &[0x55]), ("aligned_alloc", shared, &[0x55])]);
        let probes = planned(&symbols);
        assert_eq!(probes.len(), 1);
        assert_eq!(probes[0].symbol, "aligned_alloc");
        assert!(!probes[0].single_stepped);
    }

    #[test]
    fn jump_from_realloc_to_malloc_marks_both() {
        // realloc at 0x1010 is `jmp 0x1000`
        let symbols = symbols(&[
            ("malloc", placed(0x1000, 4), &[0x48, 0x85, 0xff, 0xc3]),
            ("realloc", placed(0x1010, 5), &[0xe9, 0xeb, 0xff, 0xff, 0xff]),
        ]);
        let probes = planned(&symbols);
        assert_eq!(probes[0].spec.flags, ProbeSpec::MAY_BE_TAIL_CALLED);
        assert!(probes[0].single_stepped, "test rdi, rdi");
        assert_eq!(probes[1].spec.flags, ProbeSpec::MAY_TAIL_CALL);
        let callers = &probes[0].spec.callers;
        let range = |at: usize| (callers[at].start, callers[at].end);
        assert_eq!([range(0), range(1), range(2)], [(1, 0x16), (1, 5), (0x11, 0x16)]);
    }

    #[test]
    fn without_jumps_nothing_is_marked() {
        let symbols = symbols(&[
            ("malloc", placed(0x1000, 1), &[0xc3]),
            ("realloc", placed(0x1010, 1), &[0xc3]),
        ]);
        assert!(planned(&symbols).iter().all(|probe| probe.spec.flags == 0));
    }
}
