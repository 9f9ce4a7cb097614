//! Symbols of an ELF file, and the code under them.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;

use object::elf::{
    FileHeader64, PF_X, PT_INTERP, PT_LOAD, R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT, R_X86_64_RELATIVE,
    SHN_UNDEF, STT_FUNC, STT_GNU_IFUNC,
};
use object::read::elf::{ElfFile, FileHeader as _, ProgramHeader as _, Sym as _, SymbolTable};
use object::{
    Endianness, Object as _, ObjectSymbol as _, ReadCache, ReadRef, RelocationFlags, RelocationTarget,
};

/// What can be wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// It cannot be read.
    #[error("failed to read {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not an ELF file for x86-64, or a damaged one.
    #[error("{path} is not an x86-64 ELF file: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
}

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

/// What was looked for in a file.
#[derive(Debug, Clone, Default)]
pub struct Symbols {
    /// The wanted functions that the file defines, by name.
    pub functions: HashMap<String, Placed>,
    /// The bytes of each function's code, by address, as far as the file has them.
    pub code: HashMap<u64, Vec<u8>>,
    /// All code: where each segment of it begins, and its bytes. Of a file with none of the functions, nothing.
    pub text: Vec<(u64, Vec<u8>)>,
    /// The wanted functions, by the places that their addresses are put at when the file is loaded (`.got`).
    pub slots: HashMap<u64, u64>,
    /// The wanted names that the file takes from others.
    pub imports: HashSet<String>,
    /// It has the word `malloc` among its data, as what looks that up needs it.
    pub says_malloc: bool,
    /// Calls that a library makes to its own functions without its linkage table, which nobody can stand in front of: the
    /// function's address, and where the call returns to. Of programs none are told: all their calls are made so.
    pub own_calls: Vec<(u64, u64)>,
    /// The program interpreter, if the file asks for one.
    pub interpreter: Option<String>,
    /// Whether the file has any symbols at all.
    pub has_symbols: bool,
    /// Whether it has those that dynamic linking does not need (`.symtab`), or separate ones were there.
    pub has_static_symbols: bool,
    /// An allocator whose messages are in a program that has none of the functions, and no such symbols.
    pub hidden: Option<&'static str>,
}

/// What allocators write before their messages: programs that have one linked in have it among their data.
const MESSAGES: [(&[u8], &str); 3] = [
    (b"<jemalloc>: ", "jemalloc"),
    (b"mimalloc: ", "mimalloc"),
    (b"tcmalloc: ", "tcmalloc"),
];

/// What a function is looked for by.
pub type Wanted<'a> = &'a dyn Fn(&str) -> bool;

/// Finds functions by name, in the dynamic symbols and in the static ones; and takes in those that have no symbol by their
/// offsets in the file, under names. `separate`: its symbols, where they are in another file.
pub fn find_functions(
    path: &Path,
    shown: &Path,
    names: Wanted,
    offsets: &[(String, u64)],
    separate: Option<&File>,
) -> Result<Symbols, ElfError> {
    let file = File::open(path).map_err(|source| ElfError::Unreadable {
        path: shown.display().to_string(),
        source,
    })?;
    let cache = ReadCache::new(file);
    read(&cache, names, offsets, separate).map_err(|reason| ElfError::Malformed {
        path: shown.display().to_string(),
        reason,
    })
}

fn read<'data, R: ReadRef<'data>>(
    data: R,
    names: Wanted,
    offsets: &[(String, u64)],
    separate: Option<&File>,
) -> Result<Symbols, String> {
    let elf = ElfFile::<FileHeader64<Endianness>, R>::parse(data).map_err(|error| error.to_string())?;
    let endian = elf.endian();
    if elf.elf_header().e_machine(endian) != object::elf::EM_X86_64 {
        return Err("it is for another machine".to_owned());
    }
    let mut found = Symbols::default();
    let segments = elf.elf_program_headers();
    for segment in segments {
        if segment.p_type(endian) == PT_INTERP
            && let Ok(name) = segment.data(endian, data)
        {
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            found.interpreter = Some(String::from_utf8_lossy(name).into_owned());
        }
    }
    let to_file = |address: u64| {
        segments.iter().find_map(|segment| {
            let start = segment.p_vaddr(endian);
            let inside = segment.p_type(endian) == PT_LOAD
                && start <= address
                && address - start < segment.p_filesz(endian);
            inside.then(|| address - start + segment.p_offset(endian))
        })
    };
    collect(
        elf.elf_dynamic_symbol_table(),
        endian,
        names,
        &to_file,
        &mut found,
    );
    let dynamic: HashSet<u64> = found.functions.values().map(|placed| placed.address).collect();
    collect(elf.elf_symbol_table(), endian, names, &to_file, &mut found);
    found.has_static_symbols = !elf.elf_symbol_table().is_empty();
    if let Some(file) = separate {
        let cache = ReadCache::new(file);
        let elf = ElfFile::<FileHeader64<Endianness>, _>::parse(&cache).map_err(|error| error.to_string())?;
        collect(elf.elf_symbol_table(), endian, names, &to_file, &mut found);
        found.has_static_symbols |= !elf.elf_symbol_table().is_empty();
    }
    for (name, file_offset) in offsets {
        let address = segments.iter().find_map(|segment| {
            let at = file_offset.checked_sub(segment.p_offset(endian))?;
            let is_code = segment.p_type(endian) == PT_LOAD && segment.p_flags(endian) & PF_X != 0;
            (is_code && at < segment.p_filesz(endian)).then(|| segment.p_vaddr(endian) + at)
        });
        let Some(address) = address else { continue };
        // How long it is nobody says.
        let placed = Placed {
            address,
            len: 0,
            file_offset: *file_offset,
        };
        found.functions.insert(name.clone(), placed);
    }
    if found.functions.is_empty() {
        let is_program = found.interpreter.is_some() || elf.elf_dynamic_symbol_table().is_empty();
        if is_program && !found.has_static_symbols {
            found.hidden = hidden(&elf);
        }
        return Ok(found);
    }
    let loaded = segments
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD);
    for segment in loaded {
        let Ok(bytes) = segment.data(endian, data) else {
            continue;
        };
        if segment.p_flags(endian) & PF_X != 0 {
            own_calls(bytes, segment.p_vaddr(endian), &dynamic, &mut found.own_calls);
            found.text.push((segment.p_vaddr(endian), bytes.to_vec()));
        }
        found.says_malloc |= memchr::memmem::find(bytes, b"\0malloc\0").is_some();
    }
    slots(&elf, &mut found);
    for placed in found.functions.values() {
        let len = if placed.len == 0 { START_BYTES } else { placed.len };
        if let Ok(code) = data.read_bytes_at(placed.file_offset, len) {
            found.code.insert(placed.address, code.to_vec());
        }
    }
    Ok(found)
}

/// The allocator that a program's data tell of.
fn hidden<'data, R: ReadRef<'data>>(
    elf: &ElfFile<'data, FileHeader64<Endianness>, R>,
) -> Option<&'static str> {
    let endian = elf.endian();
    let segments = elf.elf_program_headers().iter();
    segments
        .filter(|segment| segment.p_type(endian) == PT_LOAD)
        .filter_map(|segment| segment.data(endian, elf.data()).ok())
        .find_map(|bytes| {
            MESSAGES
                .iter()
                .find_map(|(message, allocator)| memchr::memmem::find(bytes, message).map(|_at| *allocator))
        })
}

/// Bytes of code that are taken of a function of unknown length: what a place for a probe is looked for in.
const START_BYTES: u64 = 64;

/// Where the addresses of the found functions are put by the loader: for its own calls through the linkage table, and
/// for code that was compiled without one.
fn slots<'data, R: ReadRef<'data>>(elf: &ElfFile<'data, FileHeader64<Endianness>, R>, found: &mut Symbols) {
    let starts: HashSet<u64> = found.functions.values().map(|placed| placed.address).collect();
    let Some(relocations) = elf.dynamic_relocations() else {
        return;
    };
    for (slot, relocation) in relocations {
        let RelocationFlags::Elf { r_type } = relocation.flags() else {
            continue;
        };
        let address = match (r_type, relocation.target()) {
            (R_X86_64_JUMP_SLOT | R_X86_64_GLOB_DAT, RelocationTarget::Symbol(index)) => elf
                .dynamic_symbol_table()
                .and_then(|table| object::ObjectSymbolTable::symbol_by_index(&table, index).ok())
                .and_then(|symbol| found.functions.get(symbol.name().ok()?))
                .map(|placed| placed.address),
            (R_X86_64_RELATIVE, _) => {
                Some(relocation.addend().cast_unsigned()).filter(|it| starts.contains(it))
            }
            _ => None,
        };
        if let Some(address) = address {
            found.slots.insert(slot, address);
        }
    }
}

/// Looks for `call` with a relative target, byte by byte: what only looks like one does not hit a function's first byte.
fn own_calls(code: &[u8], address: u64, functions: &HashSet<u64>, found: &mut Vec<(u64, u64)>) {
    const CALL: u8 = 0xe8;
    const LEN: usize = 5;
    for (at, window) in code.windows(LEN).enumerate() {
        let &[CALL, a, b, c, d] = window else { continue };
        let next = address.wrapping_add((at + LEN) as u64);
        let target = next.wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into());
        if functions.contains(&target) {
            found.push((target, next));
        }
    }
}

fn collect<'data, R: ReadRef<'data>>(
    table: &SymbolTable<'data, FileHeader64<Endianness>, R>,
    endian: Endianness,
    names: Wanted,
    to_file: &impl Fn(u64) -> Option<u64>,
    found: &mut Symbols,
) {
    for symbol in table.iter() {
        found.has_symbols |= symbol.st_size(endian) > 0;
        let is_undefined = symbol.st_shndx(endian) == SHN_UNDEF;
        // What is taken from others may have no type.
        if !is_undefined && !matches!(symbol.st_type(), STT_FUNC | STT_GNU_IFUNC) {
            continue;
        }
        let name = symbol
            .name(endian, table.strings())
            .ok()
            .and_then(|name| std::str::from_utf8(name).ok());
        let Some(name) = name.filter(|name| names(name)) else {
            continue;
        };
        if is_undefined {
            found.imports.insert(name.to_owned());
            continue;
        }
        let address = symbol.st_value(endian);
        let Some(file_offset) = to_file(address) else {
            continue;
        };
        let placed = Placed {
            address,
            len: symbol.st_size(endian),
            file_offset,
        };
        // The dynamic symbols come first: they are what other objects call.
        found.functions.entry(name.to_owned()).or_insert(placed);
    }
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
            &libc.path,
            &libc.path,
            &|name| ["malloc", "realloc", "no_such_function"].contains(&name),
            &[],
            None,
        )
        .expect("ELF");
        let malloc = symbols.functions["malloc"];
        assert!(malloc.len > 0 && symbols.code[&malloc.address].len() as u64 == malloc.len);
        assert!(!symbols.functions.contains_key("no_such_function"));
        let realloc = symbols.functions["realloc"].address;
        assert!(
            symbols.slots.values().any(|address| *address == realloc),
            "a libc calls its own realloc through its linkage table"
        );
    }

    #[test]
    fn other_files_are_errors() {
        let path = Path::new("/proc/self/status");
        assert!(matches!(
            find_functions(path, path, &|_| false, &[], None),
            Err(ElfError::Malformed { .. })
        ));
        let path = Path::new("/no/such/file");
        assert!(matches!(
            find_functions(path, path, &|_| false, &[], None),
            Err(ElfError::Unreadable { .. })
        ));
    }
}
