//! Notes: the build id, and the properties of the code.

use std::fmt;
use std::fs::File;

use object::LittleEndian as LE;
use object::ReadRef;
use object::elf;
use object::read::elf::{NoteIterator, ProgramHeader as _, SectionHeader as _};

use super::FileCache;
use super::file::{Elf, Header};

/// The most bytes of notes that are read; a build id is among the first few hundred.
const MAX_NOTE_BYTES: u64 = 1 << 20;

/// The most bytes of a build id. Linkers make 8 to 32.
const MAX_ID_BYTES: usize = 64;

/// The identity that a linker gives a program or a library, the same in its separate debug
/// information.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(Box<[u8]>);

impl BuildId {
    /// An id of these bytes; `None` where they are too few or too many to be an id.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (2..=MAX_ID_BYTES)
            .contains(&bytes.len())
            .then(|| Self(bytes.into()))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the id of a file.
    #[must_use]
    pub fn read(file: &File) -> Option<Self> {
        Self::new(build_id(&Elf::parse(&FileCache::new(file)).ok()?)?)
    }
}

/// In hexadecimal, as tools print it and debug directories are laid out by it.
impl fmt::Display for BuildId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "BuildId({self})")
    }
}

/// The bytes of the `NT_GNU_BUILD_ID` note, found by sections, or by segments where there are no
/// sections.
#[must_use]
pub fn build_id<'data, R: ReadRef<'data>>(elf: &Elf<'data, R>) -> Option<&'data [u8]> {
    // The segments of separate debug information keep their old offsets, at which other bytes are.
    let by_section = || {
        let table = elf.section_table().ok()?;
        let mut notes = table
            .iter()
            .filter(|section| section.sh_type(LE) == elf::SHT_NOTE && section.sh_size(LE) <= MAX_NOTE_BYTES);
        notes.find_map(|section| id_among(section.notes(LE, elf.data).ok()??))
    };
    let by_segment = || {
        let mut notes = note_segments(elf);
        notes.find_map(|program| id_among(program.notes(LE, elf.data).ok()??))
    };
    by_section().or_else(by_segment)
}

/// Returns true if a note says that the code can run with a shadow stack (System V AMD64 ABI,
/// 2.1.4).
pub(crate) fn supports_shadow_stack<'data, R: ReadRef<'data>>(elf: &Elf<'data, R>) -> bool {
    let has_property = |mut notes: NoteIterator<'data, Header>| {
        while let Ok(Some(note)) = notes.next() {
            let Some(mut properties) = note.gnu_properties(LE) else {
                continue;
            };
            while let Ok(Some(property)) = properties.next() {
                // A value that cannot be read is taken for one with all features.
                let features = property.data_u32(LE).unwrap_or(u32::MAX);
                if property.pr_type() == elf::GNU_PROPERTY_X86_FEATURE_1_AND
                    && features & elf::GNU_PROPERTY_X86_FEATURE_1_SHSTK != 0
                {
                    return true;
                }
            }
        }
        false
    };
    let mut notes = elf.programs.iter().filter_map(|program| {
        let is_small = program.p_filesz(LE) <= MAX_NOTE_BYTES;
        is_small.then(|| program.notes(LE, elf.data).ok())??
    });
    notes.any(has_property)
}

fn note_segments<'data, R: ReadRef<'data>>(
    elf: &Elf<'data, R>,
) -> impl Iterator<Item = &'data elf::ProgramHeader64<LE>> {
    elf.programs
        .iter()
        .filter(|program| program.p_type(LE) == elf::PT_NOTE && program.p_filesz(LE) <= MAX_NOTE_BYTES)
}

fn id_among(mut notes: NoteIterator<'_, Header>) -> Option<&[u8]> {
    while let Ok(Some(note)) = notes.next() {
        if note.name() == elf::ELF_NOTE_GNU && note.n_type(LE) == elf::NT_GNU_BUILD_ID {
            return Some(note.desc()).filter(|id| !id.is_empty());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_ids_are_hexadecimal() {
        let id = BuildId::new(&[0x0a, 0xff, 0x00]).expect("long enough");
        assert_eq!(id.to_string(), "0aff00");
        assert_eq!(BuildId::new(&[1]), None);
        assert_eq!(BuildId::new(&[0; 65]), None);
    }
}
