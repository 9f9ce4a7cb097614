//! The dynamic section: what a file tells the dynamic linker (System V ABI, chapter 5, "Dynamic
//! Section"; `DT_FLAGS_1` is the linkers' own, as in `elf.h` of the C library).

use object::LittleEndian as LE;
use object::ReadRef;
use object::elf;
use object::pod::slice_from_bytes;
use object::read::elf::ProgramHeader as _;

use super::file::Elf;

/// The most entries that are read. Programs have some tens.
const MAX_ENTRIES: u64 = 4096;

/// The longest text that is read: a path of the kernel's `PATH_MAX`.
const MAX_TEXT_BYTES: u64 = 4096;

/// The most bytes of names of libraries that are kept. A program with 500 has some ten thousand.
const MAX_NAMES_BYTES: usize = 64 << 10;

/// The names and search paths of the libraries that a file is to be loaded with, as they are
/// written in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DynamicSection {
    /// Names of libraries, or paths of them (`DT_NEEDED`), in their order.
    pub(crate) needed: Vec<Vec<u8>>,
    /// The name of the file itself as a library.
    pub(crate) soname: Option<Vec<u8>>,
    /// The older search path, which holds for libraries of libraries too. A file with a newer one
    /// has none.
    pub(crate) rpath: Option<Vec<u8>>,
    /// The newer search path, for the file's own libraries alone.
    pub(crate) runpath: Option<Vec<u8>>,
    /// Default directories are not searched for its libraries (`DF_1_NODEFLIB`).
    pub(crate) skips_defaults: bool,
}

impl DynamicSection {
    /// Reads the section; nothing of a file without one, which is not linked dynamically. Entries
    /// that point outside of the file are left out.
    pub(crate) fn read<'data, R: ReadRef<'data>>(file: &Elf<'data, R>) -> Option<Self> {
        let program = file
            .programs
            .iter()
            .find(|program| program.p_type(LE) == elf::PT_DYNAMIC)?;
        let entry_bytes = size_of::<elf::Dyn64<LE>>() as u64;
        let size = program.p_filesz(LE).min(MAX_ENTRIES * entry_bytes);
        let bytes = file.file_bytes(program.p_offset(LE), size);
        let count = bytes.len() / size_of::<elf::Dyn64<LE>>();
        let (entries, _) = slice_from_bytes::<elf::Dyn64<LE>>(bytes, count).ok()?;
        let entries: Vec<(i64, u64)> = entries
            .iter()
            .map(|entry| (entry.d_tag.get(LE), entry.d_val.get(LE)))
            .take_while(|(tag, _)| *tag != elf::DT_NULL)
            .collect();
        let value = |wanted| {
            entries
                .iter()
                .find(|(tag, _)| *tag == wanted)
                .map(|entry| entry.1)
        };
        let strings = value(elf::DT_STRTAB)?;
        let text = |offset: u64| {
            let at = file.file_offset(strings.checked_add(offset)?)?;
            let bytes = file.file_bytes(at, MAX_TEXT_BYTES);
            let len = bytes.iter().position(|byte| *byte == 0)?;
            Some(bytes[..len].to_vec())
        };
        let mut room = MAX_NAMES_BYTES;
        let needed = entries
            .iter()
            .filter(|(tag, _)| *tag == elf::DT_NEEDED)
            .filter_map(|(_, offset)| text(*offset))
            .take_while(|name| {
                let rest = room.checked_sub(name.len());
                room = rest.unwrap_or(0);
                rest.is_some()
            })
            .collect();
        let runpath = value(elf::DT_RUNPATH).and_then(text);
        Some(Self {
            needed,
            soname: value(elf::DT_SONAME).and_then(text),
            rpath: value(elf::DT_RPATH).and_then(text).filter(|_| runpath.is_none()),
            runpath,
            skips_defaults: value(elf::DT_FLAGS_1)
                .is_some_and(|flags| flags & u64::from(elf::DF_1_NODEFLIB) != 0),
        })
    }
}
