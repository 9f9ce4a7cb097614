//! Sections by name, unpacked where they are compressed.

use std::borrow::Cow;

use object::LittleEndian as LE;
use object::ReadRef;
use object::elf;
use object::read::elf::{CompressionHeader as _, ProgramHeader as _, SectionHeader as _};
use object::read::{CompressedData, CompressionFormat};

use super::file::Elf;
use super::{DebugLink, ElfError};

/// The most bytes that a compressed section may unpack to. The largest `.debug_frame` known is some
/// 30 MiB.
const MAX_UNPACKED_BYTES: u64 = 128 << 20;

/// The most that a section may unpack to for each of its bytes: beyond a few KiB, what compilers
/// write packs to a third, and a run of equal bytes to a thousandth.
const MAX_EXPANSION: u64 = 64;

/// Bytes that any compressed section may unpack to.
const MIN_UNPACKED_BYTES: u64 = 1 << 20;

/// The most bytes that a compressed section of this size may unpack to.
#[must_use]
pub(crate) const fn max_unpacked_bytes(packed_bytes: u64) -> u64 {
    packed_bytes
        .saturating_mul(MAX_EXPANSION)
        .saturating_add(MIN_UNPACKED_BYTES)
}

/// A section's bytes, unpacked where it was compressed, and its address.
#[derive(Debug)]
pub(crate) struct Section<'data> {
    pub(crate) address: u64,
    pub(crate) bytes: Cow<'data, [u8]>,
}

/// The header of a section that has bytes in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SectionHeader<'data> {
    pub(crate) name: &'data [u8],
    pub(crate) offset: u64,
    /// The bytes in the file; the file may have fewer.
    pub(crate) size: u64,
    /// Its compression, if it is compressed.
    pub(crate) compressed: Result<Option<CompressedSection>, ElfError>,
}

/// The header of compressed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompressedSection {
    pub(crate) kind: Compression,
    /// The bytes that it says to unpack to.
    pub(crate) unpacked_bytes: u64,
    /// The size of this header.
    pub(crate) header_bytes: u64,
}

/// A way of compressing a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Zlib,
    Zstd,
    /// Another one, by its number.
    Other(u32),
}

/// The headers of the sections that have bytes in the file, in their order.
///
/// # Errors
/// [`ElfError::SectionHeaders`].
pub(crate) fn headers<'data, R: ReadRef<'data>>(
    elf: &Elf<'data, R>,
) -> Result<Vec<SectionHeader<'data>>, ElfError> {
    let table = elf.section_table()?;
    let with_bytes = table.iter().skip(1);
    let with_bytes = with_bytes.filter(|section| section.sh_type(LE) != elf::SHT_NOBITS);
    Ok(with_bytes
        .map(|section| {
            let is_compressed = section.sh_flags(LE) & u64::from(elf::SHF_COMPRESSED) != 0;
            let compressed = || {
                let header = elf
                    .data
                    .read_at::<elf::CompressionHeader64<LE>>(section.sh_offset(LE));
                let header = header.ok().ok_or(ElfError::Compression)?;
                Ok(CompressedSection {
                    kind: match header.ch_type(LE) {
                        elf::ELFCOMPRESS_ZLIB => Compression::Zlib,
                        elf::ELFCOMPRESS_ZSTD => Compression::Zstd,
                        other => Compression::Other(other),
                    },
                    unpacked_bytes: header.ch_size(LE),
                    header_bytes: size_of::<elf::CompressionHeader64<LE>>() as u64,
                })
            };
            SectionHeader {
                name: table.section_name(LE, section).unwrap_or_default(),
                offset: section.sh_offset(LE),
                size: section.sh_size(LE),
                compressed: is_compressed.then(compressed).transpose(),
            }
        })
        .collect())
}

/// The section of that name, with its bytes; not one that has none in the file, as in split-off
/// debug files.
///
/// # Errors
/// [`ElfError::Compression`].
pub(crate) fn find<'data, R: ReadRef<'data>>(
    elf: &Elf<'data, R>,
    name: &str,
) -> Result<Option<Section<'data>>, ElfError> {
    let Some(section) = header_of(elf, name) else {
        return Ok(None);
    };
    let address = section.sh_addr(LE);
    if section.sh_flags(LE) & u64::from(elf::SHF_COMPRESSED) != 0 {
        let bytes = unpack(elf, section).ok_or(ElfError::Compression)?;
        return Ok(Some(Section { address, bytes }));
    }
    let bytes = section.data(LE, elf.data).ok().filter(|bytes| !bytes.is_empty());
    Ok(bytes.map(|bytes| Section {
        address,
        bytes: Cow::Borrowed(bytes),
    }))
}

/// The address of a section, 0 where there is none.
pub(crate) fn address_of<'data, R: ReadRef<'data>>(elf: &Elf<'data, R>, name: &str) -> u64 {
    header_of(elf, name).map_or(0, |section| section.sh_addr(LE))
}

/// The debug link, where it is sound.
pub(crate) fn debug_link<'data, R: ReadRef<'data>>(elf: &Elf<'data, R>) -> Option<DebugLink> {
    let section = header_of(elf, ".gnu_debuglink")?;
    DebugLink::parse(section.data(LE, elf.data).ok()?)
}

/// The bytes that `PT_GNU_EH_FRAME` names, with their address: `.eh_frame_hdr` (Linux Standard
/// Base, Core, section 10.6.2).
pub(crate) fn eh_frame_header<'data, R: ReadRef<'data>>(elf: &Elf<'data, R>) -> Option<Section<'data>> {
    let program = elf
        .programs
        .iter()
        .find(|program| program.p_type(LE) == elf::PT_GNU_EH_FRAME)?;
    let bytes = elf.file_bytes(program.p_offset(LE), program.p_filesz(LE));
    (!bytes.is_empty()).then_some(Section {
        address: program.p_vaddr(LE),
        bytes: Cow::Borrowed(bytes),
    })
}

fn header_of<'data, R: ReadRef<'data>>(
    elf: &Elf<'data, R>,
    name: &str,
) -> Option<&'data elf::SectionHeader64<LE>> {
    let table = elf.section_table().ok()?;
    let (_, section) = table.section_by_name(LE, name.as_bytes())?;
    Some(section)
}

fn unpack<'data, R: ReadRef<'data>>(
    elf: &Elf<'data, R>,
    section: &'data elf::SectionHeader64<LE>,
) -> Option<Cow<'data, [u8]>> {
    let (header, offset, size) = section.compression(LE, elf.data).ok()??;
    let uncompressed_size = header.ch_size(LE);
    // Not zstd: its decoder has no bound on what it writes, and these bytes are not to be
    // trusted.
    if header.ch_type(LE) != elf::ELFCOMPRESS_ZLIB
        || uncompressed_size > MAX_UNPACKED_BYTES.min(max_unpacked_bytes(size))
    {
        return None;
    }
    CompressedData {
        format: CompressionFormat::Zlib,
        data: elf.file_bytes(offset, size),
        uncompressed_size,
    }
    .decompress()
    .ok()
}
