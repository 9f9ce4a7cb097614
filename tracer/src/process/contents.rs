//! The facts of a file's contents from the moment that it was opened: enough to place an address in
//! it, and to tell later if it is still the file that was mapped.

use std::fmt;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;

use object::Endianness;
use object::elf::{ELF_NOTE_GNU, FileHeader64, NT_GNU_BUILD_ID, PT_LOAD, PT_NOTE, SHT_NOTE};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader as _, SectionHeader as _};
use object::{ReadCache, ReadRef};

/// The bytes of notes that are read at most; a build id is among the first few hundred.
const MAX_NOTE_BYTES: u64 = 1 << 20;

/// The bytes of a build id at most. Linkers make 8 to 32.
const MAX_ID_BYTES: usize = 64;

/// The build ID that the linker gave a program or a library, the same in its separate debug
/// information.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(Box<[u8]>);

impl BuildId {
    /// Makes a build ID of these bytes; nothing where they are too few or too many.
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

    /// Reads the build ID of a file, by its sections, or by its segments where it has no sections.
    #[must_use]
    pub fn read(file: &File) -> Option<Self> {
        let data = &ReadCache::new(file);
        let header = FileHeader64::<Endianness>::parse(data).ok()?;
        let endian = header.endian().ok()?;
        // The segments of separate debug information keep their old offsets, at which other bytes
        // are.
        Self::in_sections(header, endian, data).or_else(|| Self::in_segments(header, endian, data))
    }

    fn in_sections<'data, R: ReadRef<'data>>(
        header: &FileHeader64<Endianness>,
        endian: Endianness,
        data: R,
    ) -> Option<Self> {
        let sections = header.section_headers(endian, data).ok()?;
        let notes = sections.iter().filter(|section| {
            section.sh_type(endian) == SHT_NOTE && section.sh_size(endian) <= MAX_NOTE_BYTES
        });
        notes
            .filter_map(|section| section.notes(endian, data).ok()?)
            .find_map(|notes| Self::among(endian, notes))
    }

    fn in_segments<'data, R: ReadRef<'data>>(
        header: &FileHeader64<Endianness>,
        endian: Endianness,
        data: R,
    ) -> Option<Self> {
        let segments = header.program_headers(endian, data).ok()?;
        let notes = segments.iter().filter(|segment| {
            segment.p_type(endian) == PT_NOTE && segment.p_filesz(endian) <= MAX_NOTE_BYTES
        });
        notes
            .filter_map(|segment| segment.notes(endian, data).ok()?)
            .find_map(|notes| Self::among(endian, notes))
    }

    fn among(endian: Endianness, mut notes: NoteIterator<'_, FileHeader64<Endianness>>) -> Option<Self> {
        while let Ok(Some(note)) = notes.next() {
            if note.name() == ELF_NOTE_GNU && note.n_type(endian) == NT_GNU_BUILD_ID {
                return Self::new(note.desc());
            }
        }
        None
    }
}

/// Writes hexadecimal digits, as tools print the ID and debug directories are laid out by it.
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

/// The loadable segments of a file: (offset, length, virtual address).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segments(Box<[(u64, u64, u64)]>);

impl Segments {
    /// Reads them; nothing where the file is not ELF.
    fn read(file: &File) -> Option<Self> {
        let data = &ReadCache::new(file);
        let header = FileHeader64::<Endianness>::parse(data).ok()?;
        let endian = header.endian().ok()?;
        let segments = header.program_headers(endian, data).ok()?;
        let loadable = segments
            .iter()
            .filter(|segment| segment.p_type(endian) == PT_LOAD);
        let extents = loadable.map(|segment| {
            (
                segment.p_offset(endian),
                segment.p_filesz(endian),
                segment.p_vaddr(endian),
            )
        });
        Some(Self(extents.collect()))
    }

    /// The virtual address at an offset.
    #[must_use]
    pub fn address(&self, offset: u64) -> Option<u64> {
        let (start, _, address) = self
            .0
            .iter()
            .find(|(start, len, _)| *start <= offset && offset - start < *len)?;
        (offset - start).checked_add(*address)
    }
}

/// The facts that change when a file is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    size_bytes: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl Stamp {
    /// The facts from `stat` that change when a file is written to.
    #[must_use]
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            size_bytes: metadata.len(),
            modified_s: metadata.mtime(),
            modified_ns: metadata.mtime_nsec(),
        }
    }
}

/// The facts read from a file when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Its build id, if it has one.
    pub build_id: Option<BuildId>,
    /// Its segments; nothing where it is not ELF.
    pub segments: Option<Segments>,
    stamp: Stamp,
}

impl Contents {
    /// Reads what is to be remembered.
    #[must_use]
    pub fn read(file: &File, metadata: &Metadata) -> Self {
        let segments = Segments::read(file);
        Self {
            build_id: segments.as_ref().and_then(|_| BuildId::read(file)),
            segments,
            stamp: Stamp::of(metadata),
        }
    }

    /// Returns true if the file has been written to since; a file that cannot be asked has.
    #[must_use]
    pub fn was_written_to(&self, file: &File) -> bool {
        !file
            .metadata()
            .is_ok_and(|metadata| Stamp::of(&metadata) == self.stamp)
    }

    /// Returns true if the file is another one by now: it was written to, and does not have the
    /// build id that it had. One that never had one is taken for another.
    #[must_use]
    pub fn has_changed(&self, file: &File) -> bool {
        self.was_written_to(file)
            && !(self.build_id.is_some()
                && self.build_id == BuildId::read(file)
                && self.segments == Segments::read(file))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    fn own() -> Vec<u8> {
        std::fs::read("/proc/self/exe").expect("readable")
    }

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("room");
        file
    }

    fn contents_of(file: &File) -> Contents {
        Contents::read(file, &file.metadata().expect("open"))
    }

    #[test]
    fn offsets_have_addresses_in_their_segments_alone() {
        let segments = Segments([(0x1000, 0x200, 0x40_1000), (0x2000, 0x10, u64::MAX - 4)].into());
        assert_eq!(segments.address(0x1004), Some(0x40_1004));
        assert_eq!(segments.address(0x1200), None);
        assert_eq!(segments.address(0xfff), None);
        assert_eq!(segments.address(0x2008), None, "an address beyond all");
    }

    #[test]
    fn damaged_files_have_no_contents_and_do_no_harm() {
        let whole = own();
        assert!(contents_of(&file_of(&whole)).segments.is_some());
        assert_eq!(contents_of(&file_of(b"no ELF file")).segments, None);
        assert_eq!(contents_of(&file_of(b"")).build_id, None);
        for len in [4, 16, 63, 64, 65, 120, 400] {
            let cut = contents_of(&file_of(&whole[..len]));
            assert_eq!(cut.build_id, None, "{len} bytes");
        }
        // Every byte of the header, turned over, one after another.
        let file = file_of(&whole);
        for (at, byte) in (0..64).zip(&whole) {
            file.write_all_at(&[byte ^ 0xff], at).expect("ours");
            contents_of(&file);
            file.write_all_at(&[*byte], at).expect("ours");
        }
        assert!(contents_of(&file).segments.is_some());
    }

    #[test]
    fn written_file_is_another_unless_its_build_id_is_the_same() {
        let mut file = file_of(&own());
        let contents = contents_of(&file);
        assert!(!contents.has_changed(&file));
        std::thread::sleep(std::time::Duration::from_millis(20));
        file.write_all(b"one more byte").expect("room");
        assert!(contents.was_written_to(&file));
        assert_eq!(contents.has_changed(&file), contents.build_id.is_none());
        file.set_len(0).expect("a file of ours");
        assert!(contents.has_changed(&file));
    }

    #[test]
    fn build_ids_are_hexadecimal() {
        let id = BuildId::new(&[0x0a, 0xff, 0x00]).expect("long enough");
        assert_eq!(id.to_string(), "0aff00");
        assert_eq!(BuildId::new(&[1]), None);
        assert_eq!(BuildId::new(&[0; 65]), None);
    }
}
