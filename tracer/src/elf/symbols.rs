//! Symbols and dynamic relocations.

use object::LittleEndian as LE;
use object::ReadRef;
use object::StringTable;
use object::elf;
use object::read::elf::{Rela as _, SectionHeader as _, Sym as _};

use super::ElfError;
use super::file::{Elf, Header};

/// A kind of symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SymbolKind {
    /// A function of this file.
    Function,
    /// A function of this file that is chosen by a resolver when the file is loaded
    /// (`STT_GNU_IFUNC`).
    Indirect,
    /// A name that another file defines.
    Undefined,
    /// Data and all others.
    Other,
}

/// A symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Symbol<'data> {
    pub(crate) name: &'data [u8],
    pub(crate) kind: SymbolKind,
    pub(crate) address: u64,
    /// Its length in bytes; 0 where the file does not say.
    pub(crate) size: u64,
}

/// A table of symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SymbolTable {
    /// `.dynsym`.
    Dynamic,
    /// `.symtab`, which dynamic linking does not need.
    Static,
}

/// An entry of a table of relocations that the dynamic loader works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relocation<'data> {
    /// The address of a function by its name is put at `place`: a slot of the linkage table, or of
    /// `.got`.
    Named {
        /// The virtual address of the slot.
        place: u64,
        /// The name.
        name: &'data [u8],
    },
    /// The address `target` of this file is put there.
    Relative {
        /// The virtual address of the slot.
        place: u64,
        /// The address, without the load bias.
        target: u64,
    },
    /// The address that the resolver at `resolver` returns is put there.
    Indirect {
        /// The virtual address of the slot.
        place: u64,
        /// The address of the resolver.
        resolver: u64,
    },
}

impl<'data, R: ReadRef<'data>> Elf<'data, R> {
    /// The symbols of a table, none where the file does not have it.
    ///
    /// # Errors
    /// [`ElfError::SectionHeaders`] and [`ElfError::Symbols`].
    pub(crate) fn symbols(
        &self,
        table: SymbolTable,
    ) -> Result<impl ExactSizeIterator<Item = Symbol<'data>>, ElfError> {
        let table = self.object_symbols(table)?;
        let strings = self.names_of(&table);
        Ok(table.symbols().iter().map(move |symbol| Symbol {
            name: symbol.name(LE, strings).unwrap_or_default(),
            kind: match (symbol.st_shndx(LE), symbol.st_type()) {
                (elf::SHN_UNDEF, _) => SymbolKind::Undefined,
                (_, elf::STT_FUNC) => SymbolKind::Function,
                (_, elf::STT_GNU_IFUNC) => SymbolKind::Indirect,
                _ => SymbolKind::Other,
            },
            address: symbol.st_value(LE),
            size: symbol.st_size(LE),
        }))
    }

    /// The relocations that put addresses of functions into slots.
    pub(crate) fn relocations(&self) -> impl Iterator<Item = Relocation<'data>> {
        let names = self.object_symbols(SymbolTable::Dynamic).unwrap_or_default();
        let strings = self.names_of(&names);
        let sections = self.section_table().unwrap_or_default();
        let data = self.data;
        let tables = sections
            .iter()
            .filter_map(move |section| section.rela(LE, data).ok()?);
        tables
            .flat_map(|(relocations, _)| relocations)
            .filter_map(move |relocation| {
                let place = relocation.r_offset(LE);
                let addend = relocation.r_addend(LE).cast_unsigned();
                match relocation.r_type(LE, false) {
                    elf::R_X86_64_JUMP_SLOT | elf::R_X86_64_GLOB_DAT => {
                        let symbol = names.symbol(relocation.symbol(LE, false)?).ok()?;
                        let name = symbol.name(LE, strings).ok()?;
                        Some(Relocation::Named { place, name })
                    }
                    elf::R_X86_64_RELATIVE => Some(Relocation::Relative {
                        place,
                        target: addend,
                    }),
                    elf::R_X86_64_IRELATIVE => Some(Relocation::Indirect {
                        place,
                        resolver: addend,
                    }),
                    _ => None,
                }
            })
    }

    /// The names of a table's symbols, read at once: one by one each would be read from the file.
    fn names_of(
        &self,
        table: &object::read::elf::SymbolTable<'data, Header, R>,
    ) -> StringTable<'data, &'data [u8]> {
        let section = self.section_table().ok();
        let section = section
            .as_ref()
            .and_then(|sections| sections.section(table.string_section()).ok());
        let names = section.and_then(|section| section.data(LE, self.data).ok());
        names.map_or_else(StringTable::default, |names| {
            StringTable::new(names, 0, names.len() as u64)
        })
    }

    fn object_symbols(
        &self,
        table: SymbolTable,
    ) -> Result<object::read::elf::SymbolTable<'data, Header, R>, ElfError> {
        let section_type = match table {
            SymbolTable::Dynamic => elf::SHT_DYNSYM,
            SymbolTable::Static => elf::SHT_SYMTAB,
        };
        self.section_table()?
            .symbols(LE, self.data, section_type)
            .ok()
            .ok_or(ElfError::Symbols)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{notes, sections};
    use super::*;

    #[test]
    fn own_program_has_symbols_and_slots() {
        let bytes = std::fs::read("/proc/self/exe").expect("readable");
        let elf = Elf::parse(&*bytes).expect("an ELF file");
        let mut functions = elf.symbols(SymbolTable::Static).expect("whole");
        let main = functions.find(|symbol| symbol.name == b"main" && symbol.kind == SymbolKind::Function);
        let main = main.expect("a program has a main function");
        assert!(main.size > 0 && elf.file_offset(main.address).is_some());
        let mut dynamic = elf.symbols(SymbolTable::Dynamic).expect("whole");
        assert!(dynamic.any(|symbol| symbol.kind == SymbolKind::Undefined && symbol.name == b"malloc"));
        let mut relocations = elf.relocations();
        assert!(relocations.any(|one| matches!(one, Relocation::Named { name: b"malloc", .. })));
    }

    #[test]
    fn damaged_headers_do_no_harm() {
        let mut bytes = std::fs::read("/proc/self/exe").expect("readable");
        let sections = usize::try_from(u64::from_le_bytes(*bytes[40..].first_chunk().expect("a header")));
        let sections = sections.expect("small");
        let names = usize::from(u16::from_le_bytes(*bytes[62..].first_chunk().expect("a header")));
        // The file header, the first program headers, the first section headers, those of the
        // names.
        let headers = (0..0x200).chain(sections..sections + 0x200);
        for at in headers.chain(sections + 64 * names..sections + 64 * (names + 1)) {
            bytes[at] ^= 0xff;
            if let Ok(elf) = Elf::parse(&*bytes) {
                for table in [SymbolTable::Dynamic, SymbolTable::Static] {
                    if let Ok(symbols) = elf.symbols(table) {
                        symbols.take(100).for_each(drop);
                    }
                }
                elf.relocations().take(100).for_each(drop);
                for segment in elf.segments() {
                    assert!(elf.segment_bytes(segment).len() <= bytes.len());
                }
                assert!(notes::build_id(&elf).is_none_or(|id| id.len() < bytes.len()));
                assert!(sections::debug_link(&elf).is_none_or(|link| !link.name.contains('/')));
                assert!(
                    sections::headers(&elf).is_ok()
                        || sections::find(&elf, ".text").is_ok_and(|text| text.is_none())
                );
            }
            bytes[at] ^= 0xff;
        }
    }
}
