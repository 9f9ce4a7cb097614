//! A file's unwind information, and the places of its frame description entries (FDEs).

use std::borrow::Cow;

use gimli::{BaseAddresses, EhFrameHdr, LittleEndian, Pointer};

use crate::elf::sections::{self, Section};
use crate::elf::{Elf, ReadRef};
use crate::unwind::Error;

/// The two sections that hold call frame information.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CfiSection {
    /// `.eh_frame` (Linux Standard Base, Core, section 10.6).
    EhFrame,
    /// `.debug_frame` (DWARF 5 section 6.4).
    DebugFrame,
}

/// A file's unwind information.
#[derive(Debug)]
pub(crate) struct Frames<'data> {
    pub(crate) source: CfiSection,
    pub(crate) bytes: Cow<'data, [u8]>,
    pub(crate) bases: BaseAddresses,
    /// The offsets of FDEs, in the order of the section. Their entries do not overlap, which bounds
    /// the work.
    pub(crate) entries: Vec<usize>,
    /// Entries that could not be delimited.
    pub(crate) malformed: u32,
}

impl<'data> Frames<'data> {
    /// `.eh_frame` by its section, else by the program header, else `.debug_frame`.
    pub(crate) fn find<R: ReadRef<'data>>(elf: &Elf<'data, R>) -> Result<Self, Error> {
        // A section that cannot be read must not hide one that can.
        let section = sections::find(elf, ".eh_frame").unwrap_or_default();
        let found = section.and_then(|section| Self::from_section(elf, CfiSection::EhFrame, section));
        if let Some(found) = found.or_else(|| Self::from_program_header(elf)) {
            return Ok(found);
        }
        let section = sections::find(elf, ".debug_frame")?;
        section
            .and_then(|section| Self::from_section(elf, CfiSection::DebugFrame, section))
            .ok_or(Error::NoUnwindInfo)
    }

    fn from_section<R: ReadRef<'data>>(
        elf: &Elf<'data, R>,
        source: CfiSection,
        section: Section<'data>,
    ) -> Option<Self> {
        let mut scan = Scan::new(source, &section.bytes);
        let entries: Vec<usize> = scan.by_ref().collect();
        let malformed = scan.malformed;
        let bases = bases(elf, section.address);
        (!entries.is_empty()).then_some(Self {
            source,
            bytes: section.bytes,
            bases,
            entries,
            malformed,
        })
    }

    /// Stripped section headers leave `PT_GNU_EH_FRAME`, which says where `.eh_frame` begins but
    /// not where it ends. Its search table names every FDE; without one the terminator ends the
    /// section.
    fn from_program_header<R: ReadRef<'data>>(elf: &Elf<'data, R>) -> Option<Self> {
        let source = CfiSection::EhFrame;
        let header = sections::eh_frame_header(elf)?;
        let bases = bases(elf, 0).set_eh_frame_hdr(header.address);
        let parsed = EhFrameHdr::new(&header.bytes, LittleEndian)
            .parse(&bases, 8)
            .ok()?;
        let Pointer::Direct(address) = parsed.eh_frame_ptr() else {
            return None;
        };
        let bytes = elf.bytes_from(address)?;
        let table = parsed.table().map(|table| {
            let pairs = table.iter(&bases).map_while(Result::ok);
            let offsets = pairs.filter_map(|(_, fde)| fde.direct().ok()?.checked_sub(address));
            let mut offsets: Vec<usize> = offsets
                .filter_map(|offset| usize::try_from(offset).ok())
                .collect();
            offsets.sort_unstable();
            offsets.dedup();
            offsets
        });
        let (mut entries, mut malformed) = (Vec::new(), 0);
        if let Some(offsets) = table.filter(|offsets| !offsets.is_empty()) {
            let mut after = 0;
            for offset in offsets {
                match entry_at(source, bytes, offset) {
                    Some(entry) if entry.is_fde && offset >= after => {
                        entries.push(offset);
                        after = entry.end;
                    }
                    _ => malformed += 1,
                }
            }
        } else {
            entries = Scan {
                ends_at_terminator: true,
                ..Scan::new(source, bytes)
            }
            .collect();
        }
        let bases = bases.set_eh_frame(address);
        (!entries.is_empty()).then_some(Self {
            source,
            bytes: Cow::Borrowed(bytes),
            bases,
            entries,
            malformed,
        })
    }

    /// The length of the entry at an offset, in bytes.
    pub(crate) fn entry_len(&self, at: usize) -> Option<usize> {
        Some(entry_at(self.source, &self.bytes, at)?.end - at)
    }
}

fn bases<'data, R: ReadRef<'data>>(elf: &Elf<'data, R>, section: u64) -> BaseAddresses {
    BaseAddresses::default()
        .set_eh_frame(section)
        .set_text(sections::address_of(elf, ".text"))
        .set_got(sections::address_of(elf, ".got"))
}

/// Goes over a section entry by entry, and yields where FDEs begin.
struct Scan<'a> {
    source: CfiSection,
    bytes: &'a [u8],
    at: usize,
    ends_at_terminator: bool,
    malformed: u32,
}

impl<'a> Scan<'a> {
    fn new(source: CfiSection, bytes: &'a [u8]) -> Self {
        Self {
            source,
            bytes,
            at: 0,
            ends_at_terminator: false,
            malformed: 0,
        }
    }
}

impl Iterator for Scan<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.at < self.bytes.len() {
            let at = self.at;
            if self.bytes.get(at..at + 4) == Some(&[0; 4]) {
                // Linkers leave terminators of single objects in the middle of a section.
                self.at = if self.ends_at_terminator {
                    self.bytes.len()
                } else {
                    at + 4
                };
                continue;
            }
            let Some(entry) = entry_at(self.source, self.bytes, at) else {
                // Nothing after an entry of unknown length can be found.
                self.malformed += u32::from(!self.ends_at_terminator);
                self.at = self.bytes.len();
                break;
            };
            self.at = entry.end;
            if entry.is_fde {
                return Some(at);
            }
        }
        None
    }
}

struct Entry {
    end: usize,
    is_fde: bool,
}

/// The entry at an offset: its length, 4 bytes, or 12 if the first 4 are all ones; then what tells
/// a CIE from an FDE: 0 in `.eh_frame` (always 4 bytes), all ones in `.debug_frame` (4 or 8 bytes,
/// as the length).
fn entry_at(source: CfiSection, bytes: &[u8], at: usize) -> Option<Entry> {
    let word = |at: usize| {
        bytes
            .get(at..)?
            .first_chunk()
            .map(|word| u32::from_le_bytes(*word))
    };
    let long = |at: usize| {
        bytes
            .get(at..)?
            .first_chunk()
            .map(|word| u64::from_le_bytes(*word))
    };
    let short_length = word(at)?;
    let is_long = short_length == u32::MAX;
    let (length, id_at) = if is_long {
        (long(at + 4)?, at + 12)
    } else {
        (u64::from(short_length), at + 4)
    };
    let end = id_at.checked_add(usize::try_from(length).ok()?)?;
    let is_fde = match source {
        CfiSection::EhFrame => word(id_at)? != 0,
        CfiSection::DebugFrame if is_long => long(id_at)? != u64::MAX,
        CfiSection::DebugFrame => word(id_at)? != u32::MAX,
    };
    (end > id_at && end <= bytes.len()).then_some(Entry { end, is_fde })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u32, body: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(body + 4).unwrap().to_le_bytes().to_vec();
        bytes.extend(id.to_le_bytes());
        bytes.resize(bytes.len() + body, 0);
        bytes
    }

    #[test]
    fn terminators_in_the_middle_are_passed() {
        let bytes = [entry(0, 8), entry(16, 8), vec![0; 4], entry(9, 4), vec![0; 4]].concat();
        let mut scan = Scan::new(CfiSection::EhFrame, &bytes);
        assert_eq!(scan.by_ref().collect::<Vec<_>>(), [16, 36]);
        assert_eq!(scan.malformed, 0);
        let first_only = Scan {
            ends_at_terminator: true,
            ..Scan::new(CfiSection::EhFrame, &bytes)
        };
        assert_eq!(first_only.collect::<Vec<_>>(), [16]);
    }

    #[test]
    fn an_entry_longer_than_the_section_ends_it() {
        let mut bytes = [entry(0, 8), entry(16, 8)].concat();
        bytes.extend([0xf0, 0, 0, 0, 1, 0, 0, 0]);
        let mut scan = Scan::new(CfiSection::EhFrame, &bytes);
        assert_eq!(scan.by_ref().count(), 1);
        assert_eq!(scan.malformed, 1);
    }

    #[test]
    fn debug_frame_marks_cies_with_ones() {
        let bytes = [entry(u32::MAX, 8), entry(0, 8)].concat();
        assert_eq!(
            Scan::new(CfiSection::DebugFrame, &bytes).collect::<Vec<_>>(),
            [16]
        );
        let mut long = u32::MAX.to_le_bytes().to_vec();
        long.extend(16u64.to_le_bytes());
        long.extend(u64::MAX.to_le_bytes());
        long.extend([0; 8]);
        assert!(!entry_at(CfiSection::DebugFrame, &long, 0).unwrap().is_fde);
    }
}
