//! The contents of a file at the moment that it was opened, as far as they are remembered: enough
//! to place an address in it, and to tell later whether it is still what was mapped.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;

use crate::elf::{BuildId, Elf, FileCache, notes};

/// The loadable segments of a file: (offset, length, virtual address).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segments(Box<[(u64, u64, u64)]>);

impl Segments {
    fn of<'data, R: crate::elf::ReadRef<'data>>(elf: &Elf<'data, R>) -> Self {
        let segments = elf.segments().iter();
        Self(
            segments
                .map(|segment| (segment.offset, segment.file_size, segment.address))
                .collect(),
        )
    }

    /// Reads them; `None` where the file is not ELF.
    fn read(file: &File) -> Option<Self> {
        Some(Self::of(&Elf::parse(&FileCache::new(file)).ok()?))
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

/// The size and time of change of a file, by which a write to it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    size_bytes: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl Stamp {
    /// The stamp of what `stat` says of a file.
    #[must_use]
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            size_bytes: metadata.len(),
            modified_s: metadata.mtime(),
            modified_ns: metadata.mtime_nsec(),
        }
    }
}

/// The contents of a file when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Its build id, if it has one.
    pub build_id: Option<BuildId>,
    /// Its segments; nothing where it is not ELF.
    pub segments: Option<Segments>,
    stamp: Stamp,
}

impl Contents {
    /// Reads the contents of a file.
    #[must_use]
    pub fn read(file: &File, metadata: &Metadata) -> Self {
        let cache = FileCache::new(file);
        let elf = Elf::parse(&cache).ok();
        Self {
            build_id: elf.as_ref().and_then(|elf| BuildId::new(notes::build_id(elf)?)),
            segments: elf.as_ref().map(Segments::of),
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
}
