//! The probes of a file.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use tracer_ebpf::{CodeRange, Function, MAX_CODE_RANGES, ProbeSpec};

use super::dataflow::{AddressSet, ReachedCode, TracedFunctions};
use super::detect::allocators::{find, forwarders, names, stands_in_front};
use super::detect::functions::{
    ASAN_MARK, FunctionRow, FunctionTable, GLIBC_MARK, LIBC_ALIASES, LIBC_MARK, LOADER_MARK, LOOKUPS, Set,
    Throws,
};
use super::detect::symbols::{self, FileFunctions, Placed};
use super::placement::callers::put_callers;
use super::placement::entry::{ProbePlace, places};
use super::placement::tail_calls::TailCalls;
use super::roles::Roles;
use crate::elf::FileError;
use crate::process::files::MappedFile;

/// A probe to be attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedProbe {
    /// The function that calls count as.
    pub function: Function,
    /// The symbol.
    pub symbol: String,
    /// The roles of the function's arguments.
    pub roles: Roles,
    /// The address in the file of the function's first instruction.
    pub address: u64,
    /// Bytes from there to the probe.
    pub offset: u64,
    /// The probe's offset in the file.
    pub file_offset: u64,
    /// The description for the kernel side.
    pub spec: ProbeSpec,
    /// The kernel must single-step the instruction there, which makes a hit much dearer.
    pub single_stepped: bool,
    /// Other places for it, the best first, should another tracer hold that one.
    pub others: Vec<PlannedProbe>,
}

impl PlannedProbe {
    /// Returns true if the return address is on top of the stack at the probe, where the kernel
    /// takes it for that of a return probe.
    #[must_use]
    pub const fn is_at_return_address(&self) -> bool {
        self.spec.operands.cfa_bytes == RETURN_ADDRESS_BYTES
    }
}

/// The bytes below the CFA that hold the return address.
const RETURN_ADDRESS_BYTES: u32 = 8;

/// A file that has an allocator, and the probes that trace it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The file.
    pub file: Arc<MappedFile>,
    /// The allocators in it, by name.
    pub allocators: Vec<String>,
    /// The functions and prefixes that the user named and that are there, as they were given.
    pub asked_for: Vec<String>,
    /// The probes, in the order of the table of functions.
    pub probes: Vec<PlannedProbe>,
}

/// The outcome of looking for allocators in a file.
#[derive(Debug, Clone)]
pub enum Found {
    /// It has an allocator.
    Allocator(Plan),
    /// It is a statically linked program without symbols: it may have one that cannot be found.
    StaticWithoutSymbols,
    /// It is a program that has this allocator linked in, and no symbols by which its functions
    /// could be found.
    Hidden(&'static str),
    /// It has functions of an allocator that forward every call to another file's: that one's
    /// probes see them.
    Forwards,
    /// It has none.
    Nothing,
}

/// Looks for allocators in a file: a library's, or one that is linked into a program.
///
/// # Errors
/// Those of a file that cannot be read, or is no ELF file.
pub fn examine(file: &Arc<MappedFile>, table: &FunctionTable) -> Result<Found, FileError> {
    let marks = [LIBC_MARK, GLIBC_MARK, LOADER_MARK, ASAN_MARK];
    let table = table.for_file(&file.path);
    let wanted = |name: &str| {
        table.has(name) || marks.contains(&name) || LOOKUPS.contains(&name) || LIBC_ALIASES.contains(&name)
    };
    let read = |separate: Option<&File>| {
        symbols::find_functions(file.file(), &file.path, &wanted, table.offsets(), separate)
    };
    let mut symbols = read(None)?;
    let is_static = symbols.interpreter.is_none() && !symbols.has_symbols;
    if symbols.functions.is_empty()
        && (symbols.hidden.is_some() || is_static)
        && let Some(separate) = table.separate_symbols(file)
    {
        symbols = read(Some(&separate))?;
    }
    let has = |name: &str| symbols.functions.contains_key(name);
    let mut found = if has(LOADER_MARK) && !has(LIBC_MARK) {
        Vec::new()
    } else {
        find(&symbols, &table)
    };
    let forwards = stands_in_front(&symbols) && !found.is_empty();
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

fn probes(symbols: &FileFunctions, mut found: Vec<(&FunctionRow, Placed)>) -> Vec<PlannedProbe> {
    let is_libc = symbols.functions.contains_key(LIBC_MARK);
    let throws = Throwing::of(symbols, &found);
    let all = found.iter().map(|(_, placed)| (placed.address, placed.len));
    let functions = TracedFunctions::new(&symbols.code, all, symbols.exported.iter().copied());
    let forwarders = forwarders(&functions, &found, &|row| throws.may(row));
    // A forwarder is still code that calls the others, but needs no probe of its own.
    let callers: Vec<Placed> = found
        .iter()
        .filter(|(_, placed)| !forwarders.contains(&placed.address))
        .map(|(_, placed)| *placed)
        .collect();
    let reached: HashMap<u64, ReachedCode> = found
        .iter()
        .map(|(_, placed)| {
            (
                placed.address,
                functions.reach(placed.address, &AddressSet::default()),
            )
        })
        .collect();
    found.retain(|(_, placed)| !forwarders.contains(&placed.address));
    let tail_calls = TailCalls::new(&found, &reached);
    let mut own_calls = functions.own_calls(reached.values());
    if is_libc {
        own_calls.extend(&symbols.own_calls);
    }
    tail_calls.propagate(&mut own_calls);
    found
        .iter()
        .filter_map(|(row, placed)| {
            let mut flags = tail_calls.flags(row, placed, is_libc) | row.roles.result_flags();
            if symbols.functions.contains_key(GLIBC_MARK) && row.set == Set::Prefix(String::new()) {
                flags |= ProbeSpec::GLIBC_CHUNKS;
            }
            if throws.may(row) {
                flags |= ProbeSpec::ENTRY_ONLY;
            }
            if row.frees_on_failure {
                flags |= ProbeSpec::FREES_ON_FAILURE;
            }
            let probe_at = |place: ProbePlace| {
                let mut spec = ProbeSpec {
                    operands: place.operands,
                    function: row.function.number(),
                    flags,
                    callers_len: 0,
                    index: 0,
                    reserved: 0,
                    caller_distance: 0,
                    callers: [CodeRange::default(); MAX_CODE_RANGES],
                };
                put_callers(&mut spec, placed, place.offset, &callers, &own_calls);
                PlannedProbe {
                    function: row.function,
                    symbol: row.symbol.clone(),
                    roles: row.roles,
                    address: placed.address,
                    offset: place.offset,
                    file_offset: placed.file_offset + place.offset,
                    spec,
                    single_stepped: place.single_stepped,
                    others: Vec::new(),
                }
            };
            let places = places(&symbols.code, placed.address, placed.len, &row.roles);
            let mut probes = places.into_iter().map(probe_at);
            let best = probes.next();
            let others = probes.collect();
            best.map(|best| PlannedProbe { others, ..best })
        })
        .collect()
}

/// The functions of a file that an exception may pass through.
struct Throwing {
    /// Those with `std::nothrow` catch what a new-handler throws.
    catches: bool,
}

impl Throwing {
    fn of(symbols: &FileFunctions, found: &[(&FunctionRow, Placed)]) -> Self {
        Self {
            catches: symbols.functions.contains_key("tc_malloc")
                || found.iter().any(|(row, _)| row.function == Function::Mallocx),
        }
    }

    fn may(&self, row: &FunctionRow) -> bool {
        match row.throws {
            Throws::Never => false,
            Throws::Nothrow => !self.catches,
            Throws::May => true,
        }
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
    use super::super::dataflow::MachineCode;
    use super::*;

    fn planned(symbols: &FileFunctions) -> Vec<PlannedProbe> {
        let table = FunctionTable::default();
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

    fn symbols(functions: &[(&str, Placed, &[u8])]) -> FileFunctions {
        let mut symbols = FileFunctions::default();
        for (name, placed, code) in functions {
            symbols.functions.insert((*name).to_owned(), *placed);
            symbols.code.functions.insert(placed.address);
            symbols
                .code
                .parts
                .extend(MachineCode::of_bytes(placed.address, code).parts);
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
