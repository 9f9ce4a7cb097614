//! The reader of ELF files: segments, sections, symbols, relocations, notes, the dynamic section,
//! the debug link.
//!
//! [`Elf`] reads from bytes in memory or, by a [`FileCache`], from a file: headers at once,
//! everything else where it is asked for. Its bytes are foreign: every offset and size is checked
//! against what the file has before it is used, and no input makes it panic. Missing section
//! headers are no error; what they would have told is then absent.
//!
//! Layouts are those of the System V ABI (gABI chapter 4, "Object Files") and of its x86-64
//! supplement.

mod debug_link;
mod dynamic;
mod file;
mod file_cache;
pub mod notes;
pub(crate) mod sections;
mod symbols;

pub use object::ReadRef;

pub use debug_link::DebugLink;
pub(crate) use dynamic::DynamicSection;
pub use file::{Elf, LoadedSegment};
pub use file_cache::FileCache;
pub use notes::BuildId;
pub(crate) use symbols::{Relocation, SymbolKind, SymbolTable};

/// The reason why bytes are not read as an ELF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// The bytes do not begin with a whole ELF header.
    #[error("not an ELF file")]
    NotElf,
    /// The file is for another architecture, or is not 64-bit little-endian.
    #[error("not an x86-64 program (ELF machine {machine}, class {class}, data encoding {encoding})")]
    Architecture {
        /// `e_machine`, as a little-endian number.
        machine: u16,
        /// `EI_CLASS`: 1 is 32-bit, 2 is 64-bit.
        class: u8,
        /// `EI_DATA`: 1 is little-endian, 2 is big-endian.
        encoding: u8,
    },
    /// The program headers lie outside the file.
    #[error("the program headers are malformed")]
    ProgramHeaders,
    /// The section headers, or the names of sections, lie outside the file.
    #[error("the section headers are malformed")]
    SectionHeaders,
    /// A symbol table lies outside the file.
    #[error("the symbol table is malformed")]
    Symbols,
    /// A section is compressed with another algorithm than zlib, is damaged, or would unpack to too
    /// many bytes.
    #[error("a section is compressed in a way that cannot be read")]
    Compression,
}

/// A file that cannot be read as an ELF file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file is not an ELF file for x86-64, or is damaged.
    #[error("{path} is not an x86-64 ELF file: {source}")]
    Malformed {
        /// The file, as a user knows it.
        path: String,
        /// The reason.
        source: ElfError,
    },
}
