//! The code of a file as it is loaded, and what is known of functions in it by their names.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use iced_x86::{Decoder, DecoderOptions, Instruction};
use object::elf::{
    ET_EXEC, FileHeader64, GNU_PROPERTY_X86_FEATURE_1_AND, GNU_PROPERTY_X86_FEATURE_1_SHSTK, PF_X, PT_LOAD,
    ProgramHeader64, R_X86_64_GLOB_DAT, R_X86_64_IRELATIVE, R_X86_64_JUMP_SLOT, SHN_UNDEF, STT_FUNC,
    STT_GNU_IFUNC,
};
use object::read::elf::{
    ElfFile, FileHeader as _, ProgramHeader as _, Rela as _, SectionHeader as _, Sym as _,
};
use object::{Endianness, ReadRef};

/// The largest file that is looked through.
const LARGEST_BYTES: u64 = 256 << 20;

/// Functions that return their first argument (ISO C17, 7.24.2 and 7.24.6): a jump to one ends a function whose result is
/// in that argument.
const RETURN_FIRST_ARGUMENT: [&[u8]; 3] = [b"memset", b"memcpy", b"memmove"];

/// A part of the file that is loaded.
#[derive(Debug, Clone)]
struct Part {
    address: u64,
    file_offset: u64,
    bytes: Vec<u8>,
    is_code: bool,
}

/// A file as it is loaded.
#[derive(Debug, Clone, Default)]
pub(in crate::probe_plan) struct Image {
    parts: Vec<Part>,
    /// Functions that return their first argument, and the words of the linkage table that hold their addresses.
    return_first: HashSet<u64>,
    /// Its code can run with a shadow stack.
    pub(super) has_shadow_stack: bool,
    /// It is loaded where it says, so that its code may hold addresses.
    is_fixed: bool,
}

impl Image {
    /// Reads a file; nothing if it is no ELF file, or a large one.
    pub(in crate::probe_plan) fn read(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let len = file.metadata().ok()?.len();
        if len > LARGEST_BYTES {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        file.read_exact_at(&mut bytes, 0).ok()?;
        Self::parse(bytes.as_slice())
    }

    fn parse<'data, R: ReadRef<'data>>(data: R) -> Option<Self> {
        let elf = ElfFile::<FileHeader64<Endianness>, R>::parse(data).ok()?;
        let endian = elf.endian();
        let mut image = Self {
            is_fixed: elf.elf_header().e_type(endian) == ET_EXEC,
            ..Self::default()
        };
        for segment in elf.elf_program_headers() {
            image.has_shadow_stack |= is_for_shadow_stack(segment, endian, data);
            if segment.p_type(endian) == PT_LOAD
                && let Ok(bytes) = segment.data(endian, data)
            {
                image.parts.push(Part {
                    address: segment.p_vaddr(endian),
                    file_offset: segment.p_offset(endian),
                    bytes: bytes.to_vec(),
                    is_code: segment.p_flags(endian) & PF_X != 0,
                });
            }
        }
        // An address that has another name beside is that function all the same.
        let mut resolvers = HashSet::new();
        for table in [elf.elf_dynamic_symbol_table(), elf.elf_symbol_table()] {
            for symbol in table.iter() {
                let is_one = symbol
                    .name(endian, table.strings())
                    .is_ok_and(|name| RETURN_FIRST_ARGUMENT.contains(&name));
                if !is_one || symbol.st_shndx(endian) == SHN_UNDEF {
                    continue;
                }
                match symbol.st_type() {
                    STT_FUNC => {
                        image.return_first.insert(symbol.st_value(endian));
                    }
                    STT_GNU_IFUNC => {
                        resolvers.insert(symbol.st_value(endian));
                    }
                    _ => {}
                }
            }
        }
        let dynamic = elf.elf_dynamic_symbol_table();
        for section in elf.elf_section_table().iter() {
            let Ok(Some((relocations, _))) = section.rela(endian, data) else {
                continue;
            };
            for relocation in relocations {
                let is_one = match relocation.r_type(endian, false) {
                    R_X86_64_IRELATIVE => resolvers.contains(&relocation.r_addend(endian).cast_unsigned()),
                    R_X86_64_JUMP_SLOT | R_X86_64_GLOB_DAT => relocation
                        .symbol(endian, false)
                        .and_then(|index| dynamic.symbol(index).ok())
                        .and_then(|symbol| symbol.name(endian, dynamic.strings()).ok())
                        .is_some_and(|name| RETURN_FIRST_ARGUMENT.contains(&name)),
                    _ => false,
                };
                if is_one {
                    image.return_first.insert(relocation.r_offset(endian));
                }
            }
        }
        Some(image)
    }

    /// An image of one piece of code.
    #[cfg(test)]
    pub(super) fn of_code(address: u64, code: &[u8]) -> Self {
        Self {
            parts: vec![Part {
                address,
                file_offset: address,
                bytes: code.to_vec(),
                is_code: true,
            }],
            return_first: HashSet::new(),
            has_shadow_stack: false,
            is_fixed: false,
        }
    }

    /// Says that its code can run with a shadow stack.
    #[cfg(test)]
    pub(super) fn with_shadow_stack(mut self) -> Self {
        self.has_shadow_stack = true;
        self
    }

    /// Says that it is loaded where it says.
    #[cfg(test)]
    pub(super) fn fixed(mut self) -> Self {
        self.is_fixed = true;
        self
    }

    /// Says that the function at an address returns its first argument.
    #[cfg(test)]
    pub(super) fn returns_first_argument_at(mut self, address: u64) -> Self {
        self.return_first.insert(address);
        self
    }

    /// The code at an address, to the end of its segment, and where it is in the file.
    fn code(&self, address: u64) -> Option<(&[u8], u64)> {
        let inside = |part: &&Part| {
            let at = address.checked_sub(part.address);
            part.is_code && at.is_some_and(|at| at < part.bytes.len() as u64)
        };
        let part = self.parts.iter().find(inside)?;
        let at = address - part.address;
        Some((&part.bytes[usize::try_from(at).ok()?..], part.file_offset + at))
    }

    /// The instruction at an address.
    pub(super) fn instruction(&self, address: u64) -> Option<Instruction> {
        let (code, _) = self.code(address)?;
        let instruction = Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode();
        (!instruction.is_invalid()).then_some(instruction)
    }

    /// The byte of code at an address.
    pub(super) fn byte(&self, address: u64) -> Option<u8> {
        self.code(address).map(|(code, _)| code[0])
    }

    /// Where in the file the code at an address is.
    pub(super) fn file_offset(&self, address: u64) -> Option<u64> {
        self.code(address).map(|(_, offset)| offset)
    }

    /// Whether a jump to this address comes back with its first argument: to such a function, or to its entry in the
    /// linkage table.
    pub(super) fn returns_first_argument(&self, address: u64) -> bool {
        self.return_first.contains(&address)
            || self
                .instruction(address)
                .filter(|first| first.mnemonic() != iced_x86::Mnemonic::Endbr64)
                .or_else(|| self.instruction(address + ENDBR64_BYTES))
                .is_some_and(|jump| self.jumps_to_first_argument(&jump))
    }

    /// The same of an indirect jump through the linkage table.
    pub(super) fn jumps_to_first_argument(&self, jump: &Instruction) -> bool {
        jump.is_jmp_near_indirect()
            && jump.is_ip_rel_memory_operand()
            && self.return_first.contains(&jump.ip_rel_memory_address())
    }

    /// What in the code refers to an address that `wanted` wants, jumps, calls and instructions that take it: (the address,
    /// where the reference is). They are looked for at every byte, since where instructions begin is not known, so that
    /// some only look like one.
    pub(super) fn references(&self, wanted: impl Fn(u64) -> bool) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        for part in self.parts.iter().filter(|part| part.is_code) {
            let mut before = [0; 2];
            for (at, word) in part.bytes.windows(4).enumerate() {
                let &[a, b, c, d] = word else { continue };
                let address = part.address + at as u64;
                let bytes = [a, b, c, d];
                if is_relative(before) {
                    let target = (address + 4).wrapping_add_signed(i32::from_le_bytes(bytes).into());
                    if wanted(target) {
                        found.push((target, address));
                    }
                }
                let absolute = u64::from(u32::from_le_bytes(bytes));
                if self.is_fixed && wanted(absolute) {
                    found.push((absolute, address));
                }
                before = [before[1], a];
            }
        }
        found
    }

    /// Words in the file, whether in its data or in its tables of relocations and symbols, that are such an address.
    pub(super) fn words(&self, wanted: impl Fn(u64) -> bool) -> Vec<u64> {
        let mut found = Vec::new();
        for part in &self.parts {
            let skipped = part.address.next_multiple_of(8) - part.address;
            let bytes = part
                .bytes
                .get(usize::try_from(skipped).unwrap_or(0)..)
                .unwrap_or(&[]);
            let words = bytes.as_chunks::<8>().0.iter();
            found.extend(
                words
                    .map(|word| u64::from_le_bytes(*word))
                    .filter(|word| wanted(*word)),
            );
        }
        found
    }
}

/// Whether a note says that the code can run with a shadow stack (System V AMD64 ABI, 2.1.4).
fn is_for_shadow_stack<'data, R: ReadRef<'data>>(
    segment: &ProgramHeader64<Endianness>,
    endian: Endianness,
    data: R,
) -> bool {
    let Ok(Some(mut notes)) = segment.notes(endian, data) else {
        return false;
    };
    while let Ok(Some(note)) = notes.next() {
        let Some(mut properties) = note.gnu_properties(endian) else {
            continue;
        };
        while let Ok(Some(property)) = properties.next() {
            let features = property.data_u32(endian).unwrap_or(u32::MAX);
            if property.pr_type() == GNU_PROPERTY_X86_FEATURE_1_AND
                && features & GNU_PROPERTY_X86_FEATURE_1_SHSTK != 0
            {
                return true;
            }
        }
    }
    false
}

const ENDBR64_BYTES: u64 = 4;

/// Whether a distance of 32 bits follows these two bytes: `call rel32`, `jmp rel32`, `jcc rel32`, `lea disp32(%rip)` (Intel
/// SDM, volume 2).
const fn is_relative(before: [u8; 2]) -> bool {
    matches!(
        before,
        [_, 0xe8 | 0xe9]
            | [0x0f, 0x80..=0x8f]
            | [0x8d, 0x05 | 0x0d | 0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d]
    )
}
