//! From offsets in a file to the virtual addresses that the file itself uses.

use std::path::Path;

use object::Endianness;
use object::ReadCache;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

/// The loadable segments of a file: (offset, length, virtual address).
#[derive(Debug, Default)]
pub(super) struct Segments(Vec<(u64, u64, u64)>);

impl Segments {
    /// Reads them; none where the file has none, or is not ELF.
    pub(super) fn read(path: &Path) -> Self {
        let Ok(file) = std::fs::File::open(path) else {
            return Self::default();
        };
        let cache = ReadCache::new(file);
        let Ok(header) = FileHeader64::<Endianness>::parse(&cache) else {
            return Self::default();
        };
        let Ok(endian) = header.endian() else {
            return Self::default();
        };
        let Ok(segments) = header.program_headers(endian, &cache) else {
            return Self::default();
        };
        let loadable = segments
            .iter()
            .filter(|segment| segment.p_type(endian) == PT_LOAD);
        Self(
            loadable
                .map(|segment| {
                    (
                        segment.p_offset(endian),
                        segment.p_filesz(endian),
                        segment.p_vaddr(endian),
                    )
                })
                .collect(),
        )
    }

    /// The virtual address at an offset.
    pub(super) fn address(&self, offset: u64) -> Option<u64> {
        let (start, _, address) = self
            .0
            .iter()
            .find(|(start, len, _)| *start <= offset && offset - start < *len)?;
        Some(offset - start + address)
    }
}
