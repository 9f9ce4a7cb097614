//! The symbols and debug information of a file, as its section headers announce them: foreign
//! bytes, which are checked before they are used.

use std::fs::File;

use thiserror::Error;

use crate::elf::{DebugLink, Elf, FileCache, sections};

/// A reason for not using a file.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum Unfit {
    #[error("it is not a 64-bit ELF file")]
    NotElf,
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// The symbols and debug information of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sections {
    /// DWARF.
    pub(super) has_debug_info: bool,
    /// A whole symbol table, in `.symtab`.
    pub(super) has_symbols: bool,
    /// A symbol table of its functions, in `.gnu_debugdata`.
    pub(super) has_minimal_symbols: bool,
    /// The file with debug information.
    pub(super) link: Option<DebugLink>,
}

impl Sections {
    /// Reads the headers of a file, and fails where they contradict the file.
    pub(super) fn of(file: &File) -> Result<Self, Unfit> {
        let len = file.metadata().map_err(|_unreadable| Unfit::NotElf)?.len();
        let cache = FileCache::new(file);
        let elf = Elf::parse(&cache).map_err(|_error| Unfit::NotElf)?;
        let headers =
            sections::headers(&elf).map_err(|_error| Unfit::Damaged("its section headers cannot be read"))?;
        let mut found = Self {
            link: sections::debug_link(&elf),
            ..Self::default()
        };
        for section in headers {
            let end = section.offset.checked_add(section.size);
            if end.is_none_or(|end| end > len) {
                return Err(Unfit::Damaged("a section runs past its end"));
            }
            if section.compressed.is_err() {
                return Err(Unfit::Damaged("a compressed section has no header"));
            }
            let is_empty = section.size == 0;
            match section.name {
                b".debug_info" => found.has_debug_info = !is_empty,
                b".symtab" => found.has_symbols = !is_empty,
                b".gnu_debugdata" => found.has_minimal_symbols = !is_empty,
                _ => {}
            }
        }
        Ok(found)
    }

    /// Returns true if there is anything to name functions by that dynamic linking does not need.
    pub(super) fn has_names(&self) -> bool {
        self.has_debug_info || self.has_symbols || self.has_minimal_symbols
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("room");
        file
    }

    #[test]
    fn own_sections_are_found() {
        let own = File::open("/proc/self/exe").expect("readable");
        let sections = Sections::of(&own).expect("whole");
        assert!(sections.has_symbols && sections.has_names());
    }

    #[test]
    fn files_that_contradict_their_headers_are_unfit() {
        assert_eq!(Sections::of(&file_of(b"text")), Err(Unfit::NotElf));
        assert_eq!(Sections::of(&file_of(b"")), Err(Unfit::NotElf));
        let whole = std::fs::read("/proc/self/exe").expect("readable");
        let file = file_of(&whole);
        for (at, byte) in (0..64).zip(&whole) {
            file.write_all_at(&[byte ^ 0xff], at).expect("ours");
            // Whatever it is: it says so, or it is whole.
            if let Ok(sections) = Sections::of(&file) {
                assert!(
                    sections.has_symbols || sections == Sections::default(),
                    "byte {at}"
                );
            }
            file.write_all_at(&[*byte], at).expect("ours");
        }
        assert!(Sections::of(&file).is_ok());
        file.set_len(whole.len() as u64 / 2).expect("ours");
        let half = Sections::of(&file);
        assert!(matches!(half, Err(Unfit::Damaged(_))), "{half:?}");
    }
}
