//! The headers of an ELF file, and its bytes by offset and by address.

use object::LittleEndian as LE;
use object::ReadRef;
use object::elf;
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionTable};

use super::ElfError;

pub(super) type Header = elf::FileHeader64<LE>;

/// A part of the file that is mapped into memory (`PT_LOAD`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadedSegment {
    /// The offset of its first byte in the file.
    pub offset: u64,
    /// Its first virtual address, before any load bias.
    pub address: u64,
    /// The number of its bytes that come from the file.
    pub file_size: u64,
    /// The number of bytes that it takes in memory.
    pub memory_size: u64,
    /// It is mapped executable.
    pub executable: bool,
}

/// A 64-bit x86-64 ELF file, or the image of one in memory where segments lie as in the file (the
/// vdso).
#[derive(Debug)]
pub struct Elf<'data, R: ReadRef<'data> = &'data [u8]> {
    pub(super) data: R,
    pub(super) header: &'data Header,
    pub(super) programs: &'data [elf::ProgramHeader64<LE>],
    segments: Vec<LoadedSegment>,
}

impl<'data, R: ReadRef<'data>> Elf<'data, R> {
    /// Reads the file header and the program headers.
    ///
    /// # Errors
    /// [`ElfError::NotElf`], [`ElfError::Architecture`] and [`ElfError::ProgramHeaders`].
    pub fn parse(data: R) -> Result<Self, ElfError> {
        let header = supported_header(data)?;
        let programs = header
            .program_headers(LE, data)
            .ok()
            .ok_or(ElfError::ProgramHeaders)?;
        let segments = programs
            .iter()
            .filter(|program| program.p_type(LE) == elf::PT_LOAD)
            .map(|program| LoadedSegment {
                offset: program.p_offset(LE),
                address: program.p_vaddr(LE),
                file_size: program.p_filesz(LE),
                memory_size: program.p_memsz(LE),
                executable: program.p_flags(LE) & elf::PF_X != 0,
            })
            .collect();
        Ok(Self {
            data,
            header,
            programs,
            segments,
        })
    }

    /// The loaded segments, in the order of the program headers.
    #[must_use]
    pub fn segments(&self) -> &[LoadedSegment] {
        &self.segments
    }

    /// Returns true for an object that is not linked yet, whose addresses mean nothing.
    pub(crate) fn is_relocatable(&self) -> bool {
        self.header.e_type(LE) == elf::ET_REL
    }

    /// Returns true if the program is loaded at the addresses that the file says (`ET_EXEC`).
    pub(crate) fn is_fixed(&self) -> bool {
        self.header.e_type(LE) == elf::ET_EXEC
    }

    /// The program interpreter, if the file asks for one.
    pub(crate) fn interpreter(&self) -> Option<String> {
        let program = self
            .programs
            .iter()
            .rfind(|program| program.p_type(LE) == elf::PT_INTERP)?;
        let name = program.data(LE, self.data).ok()?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(String::from_utf8_lossy(name).into_owned())
    }

    /// The bytes that the file has of a segment.
    pub(crate) fn segment_bytes(&self, segment: &LoadedSegment) -> &'data [u8] {
        self.file_bytes(segment.offset, segment.file_size)
    }

    /// The bytes that the file has from a virtual address to the end of its segment.
    pub(crate) fn bytes_from(&self, address: u64) -> Option<&'data [u8]> {
        self.segments.iter().find_map(|segment| {
            let skip = address
                .checked_sub(segment.address)
                .filter(|skip| *skip < segment.file_size)?;
            self.segment_bytes(segment).get(usize::try_from(skip).ok()?..)
        })
    }

    /// The offset in the file of what is loaded at a virtual address.
    pub(crate) fn file_offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let at = address.checked_sub(segment.address)?;
            (at < segment.file_size).then(|| at.checked_add(segment.offset))?
        })
    }

    /// The virtual address of the code at an offset in the file.
    pub(crate) fn code_address(&self, offset: u64) -> Option<u64> {
        let mut executable = self.segments.iter().filter(|segment| segment.executable);
        executable.find_map(|segment| {
            let at = offset.checked_sub(segment.offset)?;
            (at < segment.file_size).then(|| at.checked_add(segment.address))?
        })
    }

    /// A range of the file, cut where the file ends.
    pub(crate) fn file_bytes(&self, offset: u64, size: u64) -> &'data [u8] {
        let len = self.data.len().unwrap_or(0);
        let size = size.min(len.saturating_sub(offset));
        if size == 0 {
            return &[];
        }
        self.data.read_bytes_at(offset, size).unwrap_or_default()
    }

    /// The section headers, none where the file has none.
    pub(super) fn section_table(&self) -> Result<SectionTable<'data, Header, R>, ElfError> {
        self.header
            .sections(LE, self.data)
            .ok()
            .ok_or(ElfError::SectionHeaders)
    }
}

fn supported_header<'data, R: ReadRef<'data>>(data: R) -> Result<&'data Header, ElfError> {
    // The identification and `e_machine` lie at the same place in all ELF files.
    let start: &[u8] = data.read_bytes_at(0, 20).ok().ok_or(ElfError::NotElf)?;
    if !start.starts_with(&elf::ELFMAG) {
        return Err(ElfError::NotElf);
    }
    let (class, encoding) = (start[4], start[5]);
    let machine = u16::from_le_bytes([start[18], start[19]]);
    if class != elf::ELFCLASS64 || encoding != elf::ELFDATA2LSB || machine != elf::EM_X86_64 {
        return Err(ElfError::Architecture {
            machine,
            class,
            encoding,
        });
    }
    Header::parse(data).ok().ok_or(ElfError::NotElf)
}

#[cfg(test)]
mod tests {
    use super::super::FileCache;
    use super::*;

    #[test]
    fn a_file_and_its_bytes_are_read_alike() {
        let path = std::env::current_exe().expect("known");
        let bytes = std::fs::read(&path).expect("readable");
        let in_memory = Elf::parse(&*bytes).expect("an ELF file");
        let file = FileCache::new(std::fs::File::open(path).expect("readable"));
        let on_disk = Elf::parse(&file).expect("an ELF file");
        assert_eq!(in_memory.segments(), on_disk.segments());
        let code = in_memory.segments().iter().find(|segment| segment.executable);
        let code = code.expect("code");
        assert_eq!(in_memory.segment_bytes(code), on_disk.segment_bytes(code));
        assert_eq!(on_disk.file_offset(code.address + 7), Some(code.offset + 7));
        assert_eq!(on_disk.code_address(code.offset + 7), Some(code.address + 7));
        assert_eq!(on_disk.file_bytes(bytes.len() as u64 - 1, 9).len(), 1, "cut");
        assert_eq!(on_disk.file_bytes(u64::MAX, 9), [0u8; 0]);
    }
}
