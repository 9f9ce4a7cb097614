//! The functions of a file by their symbols, and the code under them.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;

use crate::elf::{self, Elf, FileCache, FileError, ReadRef, Relocation, SymbolKind, SymbolTable};
use crate::probe_plan::dataflow::{AddressMap, AddressSet, CodePart, MachineCode};

/// The largest file whose code is looked through as a whole.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Functions that return their first argument (ISO C17, 7.24.2 and 7.24.6): a jump to one ends a
/// function whose result is in that argument.
const RETURN_FIRST_ARGUMENT: [&[u8]; 3] = [b"memset", b"memcpy", b"memmove"];

/// A function's place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its virtual address.
    pub address: u64,
    /// Its length in bytes; 0 where the file does not say.
    pub len: u64,
    /// Its offset in the file: what a uprobe is attached to.
    pub file_offset: u64,
}

/// The functions that were looked for in a file, and the code of the file.
#[derive(Debug, Clone, Default)]
pub struct FileFunctions {
    /// The wanted functions that the file defines, by name.
    pub functions: HashMap<String, Placed>,
    /// The functions that other files may call: the address and the length of each.
    pub(in crate::probe_plan) exported: Vec<(u64, u64)>,
    /// The code; empty where the file has none of the functions.
    pub(in crate::probe_plan) code: MachineCode,
    /// The wanted names that the file takes from others.
    pub imports: HashSet<String>,
    /// It has the word `malloc` among its data, as what looks that up needs it.
    pub says_malloc: bool,
    /// Calls that a library makes to its own functions without its linkage table, which nobody can
    /// stand in front of: the function's address, and the address that the call returns to. Of
    /// programs there are none here: all their calls are made so.
    pub own_calls: Vec<(u64, u64)>,
    /// The program interpreter, if the file asks for one.
    pub interpreter: Option<String>,
    /// The file has symbols.
    pub has_symbols: bool,
    /// The file has symbols that dynamic linking does not need (`.symtab`), or separate ones were
    /// there.
    pub has_static_symbols: bool,
    /// An allocator whose messages are in a program that has none of the functions, and no such
    /// symbols.
    pub hidden: Option<&'static str>,
}

/// The beginnings of allocators' messages: programs that have one linked in have it among their
/// data.
const MESSAGES: [(&[u8], &str); 3] = [
    (b"<jemalloc>: ", "jemalloc"),
    (b"mimalloc: ", "mimalloc"),
    (b"tcmalloc: ", "tcmalloc"),
];

/// A predicate that chooses functions by their names.
pub type NamePredicate<'a> = &'a dyn Fn(&str) -> bool;

/// Finds functions by name, in the dynamic symbols and in the static ones; and takes in those that
/// have no symbol by their offsets in the file, under names. `separate`: its symbols, where they
/// are in another file.
///
/// # Errors
/// Those of a file that cannot be read, or is no ELF file; they name it as `shown`.
pub fn find_functions(
    file: &File,
    shown: &Path,
    names: NamePredicate,
    offsets: &[(String, u64)],
    separate: Option<&File>,
) -> Result<FileFunctions, FileError> {
    let cache = FileCache::new(file);
    read(&cache, names, offsets, separate).map_err(|source| FileError::Malformed {
        path: shown.display().to_string(),
        source,
    })
}

fn read<'data, R: ReadRef<'data>>(
    data: R,
    names: NamePredicate,
    offsets: &[(String, u64)],
    separate: Option<&File>,
) -> Result<FileFunctions, elf::ElfError> {
    let elf = Elf::parse(data)?;
    let mut found = FileFunctions {
        interpreter: elf.interpreter(),
        ..FileFunctions::default()
    };
    let has_dynamic = found.collect(&elf, &elf, SymbolTable::Dynamic, names)?;
    let dynamic: AddressSet = found.functions.values().map(|placed| placed.address).collect();
    found.has_static_symbols = found.collect(&elf, &elf, SymbolTable::Static, names)?;
    if let Some(file) = separate {
        let cache = FileCache::new(file);
        let debug = Elf::parse(&cache)?;
        found.has_static_symbols |= found.collect(&debug, &elf, SymbolTable::Static, names)?;
    }
    for (name, file_offset) in offsets {
        if let Some(address) = elf.code_address(*file_offset) {
            // Nothing tells how long it is.
            let placed = Placed {
                address,
                len: 0,
                file_offset: *file_offset,
            };
            found.functions.insert(name.clone(), placed);
        }
    }
    if found.functions.is_empty() {
        let is_program = found.interpreter.is_some() || !has_dynamic;
        if is_program && !found.has_static_symbols {
            found.hidden = hidden(&elf);
        }
        return Ok(found);
    }
    found.code = code(&elf, false);
    found.code.functions = found.functions.values().map(|placed| placed.address).collect();
    found.code.slots = slots(&elf, &found.functions);
    found.own_calls = found.code.calls_to(|target| dynamic.contains(&target));
    found.says_malloc = elf.segments().iter().any(|segment| {
        let bytes = elf.segment_bytes(segment);
        memchr::memmem::find(bytes, b"\0malloc\0").is_some()
    });
    Ok(found)
}

impl FileFunctions {
    /// Takes in the symbols of a table: whether it has any. `elf`: the file whose code they name.
    fn collect<'data, 'other, R: ReadRef<'data>, S: ReadRef<'other>>(
        &mut self,
        symbols: &Elf<'other, S>,
        elf: &Elf<'data, R>,
        table: SymbolTable,
        names: NamePredicate,
    ) -> Result<bool, elf::ElfError> {
        let symbols = symbols.symbols(table)?;
        let has_any = symbols.len() > 0;
        for symbol in symbols {
            self.has_symbols |= symbol.size > 0;
            if symbol.kind == SymbolKind::Other {
                continue;
            }
            if table == SymbolTable::Dynamic && symbol.kind != SymbolKind::Undefined {
                self.exported.push((symbol.address, symbol.size));
            }
            let name = std::str::from_utf8(symbol.name).ok();
            let Some(name) = name.filter(|name| names(name)) else {
                continue;
            };
            if symbol.kind == SymbolKind::Undefined {
                self.imports.insert(name.to_owned());
                continue;
            }
            let Some(file_offset) = elf.file_offset(symbol.address) else {
                continue;
            };
            let placed = Placed {
                address: symbol.address,
                len: symbol.size,
                file_offset,
            };
            // The dynamic symbols come first: they are what other objects call.
            self.functions.entry(name.to_owned()).or_insert(placed);
        }
        Ok(has_any)
    }
}

/// The allocator whose messages are among a program's data.
fn hidden<'data, R: ReadRef<'data>>(elf: &Elf<'data, R>) -> Option<&'static str> {
    let segments = elf.segments().iter();
    segments
        .map(|segment| elf.segment_bytes(segment))
        .find_map(|bytes| {
            MESSAGES
                .iter()
                .find_map(|(message, allocator)| memchr::memmem::find(bytes, message).map(|_at| *allocator))
        })
}

/// The code of a file, and its data too where that is wanted.
fn code<'data, R: ReadRef<'data>>(elf: &Elf<'data, R>, with_data: bool) -> MachineCode {
    let segments = elf.segments().iter();
    let wanted = segments.filter(|segment| segment.executable || with_data);
    let parts = wanted.map(|segment| CodePart {
        address: segment.address,
        file_offset: segment.offset,
        bytes: elf.segment_bytes(segment).to_vec(),
        is_code: segment.executable,
    });
    MachineCode {
        parts: parts.collect(),
        has_shadow_stack: elf::notes::supports_shadow_stack(elf),
        is_fixed: elf.is_fixed(),
        ..MachineCode::default()
    }
}

/// The slots that the loader puts the addresses of functions into: for the file's own calls through
/// the linkage table, and for code that was compiled without one.
fn slots<'data, R: ReadRef<'data>>(
    elf: &Elf<'data, R>,
    functions: &HashMap<String, Placed>,
) -> AddressMap<u64> {
    let starts: AddressSet = functions.values().map(|placed| placed.address).collect();
    let slot = |relocation| match relocation {
        Relocation::Named { place, name } => {
            let placed = functions.get(std::str::from_utf8(name).ok()?)?;
            Some((place, placed.address))
        }
        Relocation::Relative { place, target } => starts.contains(&target).then_some((place, target)),
        Relocation::Indirect { .. } => None,
    };
    elf.relocations().filter_map(slot).collect()
}

/// Reads the code and the data of a file, with the functions that return their first argument;
/// `None` if it is no ELF file, or a large one.
pub(in crate::probe_plan) fn whole_code(file: &File) -> Option<MachineCode> {
    if file.metadata().ok()?.len() > MAX_FILE_BYTES {
        return None;
    }
    let cache = FileCache::new(file);
    let elf = Elf::parse(&cache).ok()?;
    let mut code = code(&elf, true);
    // An address that has another name beside is that function all the same.
    let mut resolvers = HashSet::new();
    for table in [SymbolTable::Dynamic, SymbolTable::Static] {
        let symbols = elf.symbols(table).ok()?;
        for symbol in symbols.filter(|symbol| RETURN_FIRST_ARGUMENT.contains(&symbol.name)) {
            match symbol.kind {
                SymbolKind::Function => code.return_first.insert(symbol.address),
                SymbolKind::Indirect => resolvers.insert(symbol.address),
                SymbolKind::Undefined | SymbolKind::Other => false,
            };
        }
    }
    for relocation in elf.relocations() {
        match relocation {
            Relocation::Named { place, name } if RETURN_FIRST_ARGUMENT.contains(&name) => {
                code.return_first.insert(place);
            }
            Relocation::Indirect { place, resolver } if resolvers.contains(&resolver) => {
                code.return_first.insert(place);
            }
            _ => {}
        }
    }
    Some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_libc_has_its_allocator() {
        let mappings = crate::process::maps::executable_mappings(std::process::id()).expect("readable");
        let libc = mappings
            .iter()
            .find(|mapping| mapping.path.to_string_lossy().contains("libc"))
            .expect("tests are linked to a libc");
        let symbols = find_functions(
            &File::open(&libc.path).expect("readable"),
            &libc.path,
            &|name| ["malloc", "realloc", "no_such_function"].contains(&name),
            &[],
            None,
        )
        .expect("ELF");
        let malloc = symbols.functions["malloc"];
        assert!(malloc.len > 0 && symbols.code.byte(malloc.address).is_some());
        assert!(!symbols.functions.contains_key("no_such_function"));
        let realloc = symbols.functions["realloc"].address;
        assert!(
            symbols.code.slots.values().any(|address| *address == realloc),
            "a libc calls its own realloc through its linkage table"
        );
    }

    #[test]
    fn other_files_are_errors() {
        let path = Path::new("/proc/self/status");
        assert!(matches!(
            find_functions(&File::open(path).expect("ours"), path, &|_| false, &[], None),
            Err(FileError::Malformed { .. })
        ));
    }
}
