//! What the compiler needs to know of an ELF file: its segments, its code, its sections by name, its build
//! id.
//!
//! Layouts are those of the System V ABI (gABI chapter 4, "Object Files") and of its x86-64 supplement.

use std::borrow::Cow;

use object::LittleEndian as LE;
use object::elf;
use object::read::elf::{CompressionHeader, FileHeader, ProgramHeader, SectionHeader, SectionTable};
use object::read::{CompressedData, CompressionFormat};

use crate::unwind::{Code, Error};

type Header = elf::FileHeader64<LE>;

/// The most bytes that a compressed section may unpack to. The largest `.debug_frame` known is some 30 MiB.
const MAX_UNPACKED_BYTES: u64 = 512 << 20;

/// A part of the file that is mapped into memory (`PT_LOAD`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// Its first virtual address, before any load bias.
    pub address: u64,
    /// How many of its bytes come from the file.
    pub file_size: u64,
    /// How many bytes it takes in memory.
    pub memory_size: u64,
    /// Whether it is mapped executable.
    pub executable: bool,
}

/// A 64-bit x86-64 ELF file, or the image of one in memory where segments lie as in the file (the vdso).
///
/// Missing or broken section headers are no error: what is needed is found by program headers then.
#[derive(Debug)]
pub struct Elf<'data> {
    data: &'data [u8],
    header: &'data Header,
    programs: &'data [elf::ProgramHeader64<LE>],
    sections: Option<SectionTable<'data, Header>>,
    segments: Vec<Segment>,
}

/// A section's bytes, unpacked where it was compressed, and its address.
#[derive(Debug)]
pub(crate) struct Section<'data> {
    pub(crate) address: u64,
    pub(crate) bytes: Cow<'data, [u8]>,
}

impl<'data> Elf<'data> {
    /// Reads the headers.
    ///
    /// # Errors
    /// [`Error::NotElf`], [`Error::Architecture`] and [`Error::ProgramHeaders`].
    pub fn parse(data: &'data [u8]) -> Result<Self, Error> {
        let header = supported_header(data)?;
        let programs = header
            .program_headers(LE, data)
            .ok()
            .ok_or(Error::ProgramHeaders)?;
        let segments = programs
            .iter()
            .filter(|program| program.p_type(LE) == elf::PT_LOAD)
            .map(|program| Segment {
                offset: program.p_offset(LE),
                address: program.p_vaddr(LE),
                file_size: program.p_filesz(LE),
                memory_size: program.p_memsz(LE),
                executable: program.p_flags(LE) & elf::PF_X != 0,
            })
            .collect();
        let sections = header.sections(LE, data).ok();
        Ok(Self {
            data,
            header,
            programs,
            sections,
            segments,
        })
    }

    /// The loaded segments, in the order of the program headers.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The `NT_GNU_BUILD_ID` note's bytes, found by program headers or else by sections.
    #[must_use]
    pub fn build_id(&self) -> Option<&'data [u8]> {
        let by_program = self
            .programs
            .iter()
            .filter_map(|program| program.notes(LE, self.data).ok()?);
        let by_section = self.sections.iter().flat_map(SectionTable::iter);
        let by_section = by_section.filter_map(|section| section.notes(LE, self.data).ok()?);
        by_program
            .chain(by_section)
            .flat_map(|notes| notes.filter_map(Result::ok))
            .find(|note| note.n_type(LE) == elf::NT_GNU_BUILD_ID && note.name() == elf::ELF_NOTE_GNU)
            .map(|note| note.desc())
            .filter(|id| !id.is_empty())
    }

    /// The executable bytes.
    ///
    /// # Errors
    /// [`Error::NoCode`] and [`Error::TooLarge`].
    pub(crate) fn code(&self) -> Result<Code<'data>, Error> {
        // Linkers resolve what refers to a discarded function to 0 (or 1), and where the first segment is
        // executable that is an address inside the file's own header, which is never code.
        let header_bytes = size_of::<Header>() as u64;
        let executable = self.segments.iter().filter(|segment| segment.executable);
        Code::new(executable.filter_map(|segment| {
            let skip = header_bytes.saturating_sub(segment.offset);
            let bytes = self.file_bytes(segment.offset, segment.file_size);
            Some((
                segment.address.checked_add(skip)?,
                bytes.get(usize::try_from(skip).ok()?..)?,
            ))
        }))
    }

    /// The section of that name, with its bytes; not one that has none in the file, as in split-off debug
    /// files.
    ///
    /// # Errors
    /// [`Error::Compression`].
    pub(crate) fn section(&self, name: &str) -> Result<Option<Section<'data>>, Error> {
        let Some((_, section)) = self
            .sections
            .and_then(|all| all.section_by_name(LE, name.as_bytes()))
        else {
            return Ok(None);
        };
        let address = section.sh_addr(LE);
        if section.sh_flags(LE) & u64::from(elf::SHF_COMPRESSED) != 0 {
            let bytes = self.unpack(section).ok_or(Error::Compression)?;
            return Ok(Some(Section { address, bytes }));
        }
        let bytes = section.data(LE, self.data).ok().filter(|bytes| !bytes.is_empty());
        Ok(bytes.map(|bytes| Section {
            address,
            bytes: Cow::Borrowed(bytes),
        }))
    }

    /// The address of a section, 0 where there is none.
    pub(crate) fn section_address(&self, name: &str) -> u64 {
        self.sections
            .and_then(|all| all.section_by_name(LE, name.as_bytes()))
            .map_or(0, |(_, section)| section.sh_addr(LE))
    }

    /// The bytes that `PT_GNU_EH_FRAME` names, with their address: `.eh_frame_hdr` (Linux Standard Base,
    /// Core, section 10.6.2).
    pub(crate) fn eh_frame_header(&self) -> Option<Section<'data>> {
        let program = self
            .programs
            .iter()
            .find(|program| program.p_type(LE) == elf::PT_GNU_EH_FRAME)?;
        let bytes = self.file_bytes(program.p_offset(LE), program.p_filesz(LE));
        (!bytes.is_empty()).then_some(Section {
            address: program.p_vaddr(LE),
            bytes: Cow::Borrowed(bytes),
        })
    }

    /// What the file holds from a virtual address to the end of its segment.
    pub(crate) fn bytes_from(&self, address: u64) -> Option<&'data [u8]> {
        self.segments.iter().find_map(|segment| {
            let skip = address
                .checked_sub(segment.address)
                .filter(|skip| *skip < segment.file_size)?;
            self.file_bytes(segment.offset, segment.file_size)
                .get(usize::try_from(skip).ok()?..)
        })
    }

    /// A range of the file, cut where the file ends.
    fn file_bytes(&self, offset: u64, size: u64) -> &'data [u8] {
        let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(self.data.len());
        self.data
            .get(clamp(offset)..clamp(offset.saturating_add(size)))
            .unwrap_or_default()
    }

    fn unpack(&self, section: &'data elf::SectionHeader64<LE>) -> Option<Cow<'data, [u8]>> {
        let (header, offset, size) = section.compression(LE, self.data).ok()??;
        let uncompressed_size = header.ch_size(LE);
        // Not zstd: its decoder has no bound on what it writes, and these bytes are not to be trusted.
        if header.ch_type(LE) != elf::ELFCOMPRESS_ZLIB || uncompressed_size > MAX_UNPACKED_BYTES {
            return None;
        }
        let data = self.file_bytes(offset, size);
        CompressedData {
            format: CompressionFormat::Zlib,
            data,
            uncompressed_size,
        }
        .decompress()
        .ok()
    }

    /// Whether this is an object that is not linked yet, whose addresses mean nothing.
    pub(crate) fn is_relocatable(&self) -> bool {
        self.header.e_type(LE) == elf::ET_REL
    }
}

fn supported_header(data: &[u8]) -> Result<&Header, Error> {
    // The identification and `e_machine` lie at the same place in all ELF files.
    let ident = data
        .get(..elf::ELFMAG.len())
        .filter(|magic| **magic == elf::ELFMAG);
    let (Some(_), Some(&class), Some(&encoding), Some(&machine)) = (
        ident,
        data.get(4),
        data.get(5),
        data.get(18..).and_then(|rest| rest.first_chunk()),
    ) else {
        return Err(Error::NotElf);
    };
    let machine = u16::from_le_bytes(machine);
    if class != elf::ELFCLASS64 || encoding != elf::ELFDATA2LSB || machine != elf::EM_X86_64 {
        return Err(Error::Architecture {
            machine,
            class,
            encoding,
        });
    }
    Header::parse(data).ok().ok_or(Error::NotElf)
}
