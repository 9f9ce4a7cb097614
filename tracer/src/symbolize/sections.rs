//! What a file offers for naming, told from its section headers: foreign bytes, which are checked before they are used.

use std::fs::File;
use std::io::Read as _;

use object::Endianness;
use object::elf::{CompressionHeader64, FileHeader64, SHF_COMPRESSED, SHT_NOBITS};
use object::endian::U32;
use object::read::elf::{CompressionHeader as _, FileHeader as _, SectionHeader};
use object::{ReadCache, ReadRef, SectionIndex};
use thiserror::Error;

/// What compressed sections may say that they unpack to, all of them together: a damaged header can say anything, and
/// memory is taken by it.
const MOST_UNPACKED_BYTES: u64 = 16 << 30;

/// What the small symbol table in `.gnu_debugdata` may unpack to. The largest that are shipped have a few MiB.
const MOST_MINIMAL_BYTES: u64 = 256 << 20;

/// Why a file is not used.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum Unfit {
    #[error("it is not a 64-bit ELF file")]
    NotElf,
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// `.gnu_debuglink`: the name of the file with debug information, and the checksum of that file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DebugLink {
    pub(super) name: String,
    pub(super) crc: u32,
}

/// What a file offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sections {
    /// DWARF.
    pub(super) has_debug_info: bool,
    /// A whole symbol table, in `.symtab`.
    pub(super) has_symbols: bool,
    /// A symbol table of its functions, in `.gnu_debugdata`.
    pub(super) has_minimal_symbols: bool,
    /// Where debug information is.
    pub(super) link: Option<DebugLink>,
}

impl Sections {
    /// Reads the headers of a file, and fails where they contradict the file.
    pub(super) fn of(file: &File) -> Result<Self, Unfit> {
        let len = file.metadata().map_err(|_unreadable| Unfit::NotElf)?.len();
        let data = &ReadCache::new(file);
        let header = FileHeader64::<Endianness>::parse(data).map_err(|_error| Unfit::NotElf)?;
        let endian = header.endian().map_err(|_error| Unfit::NotElf)?;
        let table = header
            .sections(endian, data)
            .map_err(|_error| Unfit::Damaged("its section headers cannot be read"))?;
        let mut found = Self::default();
        let mut unpacked_bytes = 0u64;
        for (index, section) in table.enumerate() {
            if index == SectionIndex(0) || section.sh_type(endian) == SHT_NOBITS {
                continue;
            }
            let end = section.sh_offset(endian).checked_add(section.sh_size(endian));
            if end.is_none_or(|end| end > len) {
                return Err(Unfit::Damaged("a section runs past its end"));
            }
            if section.sh_flags(endian) & u64::from(SHF_COMPRESSED) != 0 {
                let packed: &CompressionHeader64<Endianness> = data
                    .read_at(section.sh_offset(endian))
                    .map_err(|()| Unfit::Damaged("a compressed section has no header"))?;
                unpacked_bytes = unpacked_bytes.saturating_add(packed.ch_size(endian));
                if unpacked_bytes > MOST_UNPACKED_BYTES {
                    return Err(Unfit::Damaged("its compressed sections say that they are huge"));
                }
            }
            let name = table.section_name(endian, section).unwrap_or_default();
            let is_empty = section.sh_size(endian) == 0;
            match name {
                b".debug_info" => found.has_debug_info = !is_empty,
                b".symtab" => found.has_symbols = !is_empty,
                b".gnu_debugdata" if !is_empty => {
                    let packed = section
                        .data(endian, data)
                        .map_err(|_error| Unfit::Damaged("its small symbol table cannot be read"))?;
                    unpack(packed)?;
                    found.has_minimal_symbols = true;
                }
                b".gnu_debuglink" => {
                    found.link = section
                        .data(endian, data)
                        .ok()
                        .and_then(|data| debug_link(data, endian));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Whether there is anything to name functions by that dynamic linking does not need.
    pub(super) fn has_names(&self) -> bool {
        self.has_debug_info || self.has_symbols || self.has_minimal_symbols
    }
}

/// Fails unless a small symbol table can be unpacked in reasonable memory.
fn unpack(packed: &[u8]) -> Result<(), Unfit> {
    let mut unpacked = xz2::read::XzDecoder::new(packed).take(MOST_MINIMAL_BYTES + 1);
    match std::io::copy(&mut unpacked, &mut std::io::sink()) {
        Ok(bytes) if bytes <= MOST_MINIMAL_BYTES => Ok(()),
        Ok(_) => Err(Unfit::Damaged("its small symbol table is huge")),
        Err(_) => Err(Unfit::Damaged("its small symbol table cannot be unpacked")),
    }
}

/// A name that ends in NUL, padding to four bytes, and a checksum in the byte order of the file. The name is one of a
/// file, not a path: others are not followed.
fn debug_link(data: &[u8], endian: Endianness) -> Option<DebugLink> {
    let len = data.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(&data[..len]).ok()?;
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return None;
    }
    let at = (len + 1).next_multiple_of(4);
    let sum: [u8; 4] = data.get(at..at + 4)?.try_into().ok()?;
    let crc = object::pod::from_bytes::<U32<Endianness>>(&sum)
        .ok()?
        .0
        .get(endian);
    Some(DebugLink {
        name: name.to_owned(),
        crc,
    })
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
    fn debug_link_is_read_with_its_padding() {
        let little = |data: &[u8]| debug_link(data, Endianness::Little);
        let link = little(b"a.debug\0\x01\x02\x03\x04").expect("whole");
        assert_eq!((link.name.as_str(), link.crc), ("a.debug", 0x0403_0201));
        let padded = little(b"ab.debug\0\0\0\0\x01\0\0\0").expect("whole");
        assert_eq!((padded.name.as_str(), padded.crc), ("ab.debug", 1));
        assert_eq!(
            debug_link(b"abc\0\0\0\0\x07", Endianness::Big)
                .expect("whole")
                .crc,
            7
        );
    }

    #[test]
    fn damaged_debug_links_are_none() {
        for damaged in [
            &b""[..],
            b"a.debug",
            b"a.debug\0",
            b"a.debug\0\x01\x02\x03",
            b"\0\0\0\0\x01\x02\x03\x04",
            b"../a\0\0\0\0\x01\x02\x03\x04",
            b"..\0\0\x01\x02\x03\x04",
            b"\xff\xfe\0\0\x01\x02\x03\x04",
        ] {
            assert_eq!(debug_link(damaged, Endianness::Little), None, "{damaged:?}");
        }
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

    #[test]
    fn small_symbol_table_must_unpack() {
        assert!(matches!(unpack(b"no xz"), Err(Unfit::Damaged(_))));
        let mut packed = Vec::new();
        std::io::Read::read_to_end(&mut xz2::read::XzEncoder::new(&[7u8; 1000][..], 1), &mut packed)
            .expect("packs");
        assert_eq!(unpack(&packed), Ok(()));
        assert!(unpack(&packed[..packed.len() - 9]).is_err());
    }
}
