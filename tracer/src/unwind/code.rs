//! The executable bytes of a file, by address.

use crate::elf::{Elf, ReadRef};
use crate::unwind::Error;
use crate::unwind::layout::{MAPPED_PAGE_BYTES, PAGE_BYTES};

/// The executable bytes of a file: sorted ranges that do not overlap. Addresses inside are relative
/// to the base, so that they fit 32 bits.
#[derive(Debug)]
pub(crate) struct Code<'data> {
    base: u64,
    ranges: Vec<Range<'data>>,
}

#[derive(Debug, Clone, Copy)]
struct Range<'data> {
    start: u32,
    end: u32,
    bytes: &'data [u8],
}

impl<'data> Code<'data> {
    /// The executable bytes of an ELF file.
    pub(crate) fn of<R: ReadRef<'data>>(elf: &Elf<'data, R>) -> Result<Self, Error> {
        // Linkers resolve what refers to a discarded function to 0 (or 1), and where the first
        // segment is executable that is an address inside the file's own header, which is never
        // code.
        const HEADER_BYTES: u64 = 64;
        let executable = elf.segments().iter().filter(|segment| segment.executable);
        Self::new(executable.filter_map(|segment| {
            let skip = HEADER_BYTES.saturating_sub(segment.offset);
            Some((
                segment.address.checked_add(skip)?,
                elf.segment_bytes(segment).get(usize::try_from(skip).ok()?..)?,
            ))
        }))
    }

    /// Of pairs (virtual address, bytes), in any order. The base is the lowest address, rounded
    /// down to a page of the machine.
    pub(crate) fn new(pieces: impl IntoIterator<Item = (u64, &'data [u8])>) -> Result<Self, Error> {
        let mut pieces: Vec<_> = pieces
            .into_iter()
            .filter(|(_, bytes)| !bytes.is_empty())
            .collect();
        pieces.sort_by_key(|(address, _)| *address);
        let first = pieces.first().ok_or(Error::NoCode)?.0;
        let base = first - first % u64::from(MAPPED_PAGE_BYTES);
        let mut ranges: Vec<Range<'data>> = Vec::with_capacity(pieces.len());
        for (address, bytes) in pieces {
            let start = address - base;
            let end = start.saturating_add(bytes.len() as u64);
            // The last page must fit too, and the end of the last range be a number of 32 bits.
            if end > u64::from(u32::MAX - PAGE_BYTES) {
                return Err(Error::TooLarge(end));
            }
            let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(end)) else {
                return Err(Error::TooLarge(end));
            };
            if ranges.last().is_none_or(|last| last.end <= start) {
                ranges.push(Range { start, end, bytes });
            }
        }
        Ok(Self { base, ranges })
    }

    /// The virtual address that relative addresses count from: the start of the first page of the
    /// machine with code.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Returns the end of the code, relative to the base.
    pub(crate) fn end(&self) -> u32 {
        self.ranges.last().map_or(0, |range| range.end)
    }

    /// The relative address of a virtual address in code, and where its range ends.
    pub(crate) fn locate(&self, address: u64) -> Option<(u32, u32)> {
        let relative = u32::try_from(address.checked_sub(self.base)?).ok()?;
        let range = self.range_of(relative)?;
        Some((relative, range.end))
    }

    /// Returns true if there is code at an address relative to the base.
    pub(crate) fn contains(&self, relative: u32) -> bool {
        self.range_of(relative).is_some()
    }

    /// The bytes from `from` up to `to`, cut where the range that holds `from` ends; empty where
    /// there is no code.
    pub(crate) fn bytes(&self, from: u32, to: u32) -> &'data [u8] {
        let Some(range) = self.range_of(from) else {
            return &[];
        };
        let to = to.clamp(from, range.end);
        range
            .bytes
            .get((from - range.start) as usize..(to - range.start) as usize)
            .unwrap_or_default()
    }

    /// All pieces of code between two addresses: (relative address, bytes).
    pub(crate) fn pieces(&self, from: u32, to: u32) -> impl Iterator<Item = (u32, &'data [u8])> {
        let first = self.ranges.partition_point(|range| range.end <= from);
        let ranges = self.ranges.get(first..).unwrap_or_default().iter();
        ranges
            .take_while(move |range| range.start < to)
            .map(move |range| {
                let start = range.start.max(from);
                (start, self.bytes(start, to))
            })
    }

    fn range_of(&self, relative: u32) -> Option<&Range<'data>> {
        let after = self.ranges.partition_point(|range| range.start <= relative);
        self.ranges
            .get(after.checked_sub(1)?)
            .filter(|range| relative < range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_found_and_cut() {
        let code = Code::new([(0x3000, &[3u8; 16][..]), (0x1010, &[1u8; 32][..])]).unwrap();
        assert_eq!((code.base(), code.end()), (0x1000, 0x2010));
        assert_eq!(code.locate(0x1010), Some((0x10, 0x30)));
        assert_eq!(
            (code.locate(0x100f), code.locate(0x1030), code.locate(0)),
            (None, None, None)
        );
        assert_eq!(code.bytes(0x20, 0x2000).len(), 0x10);
        let pieces: Vec<_> = code
            .pieces(0, u32::MAX)
            .map(|(at, bytes)| (at, bytes.len()))
            .collect();
        assert_eq!(pieces, [(0x10, 32), (0x2000, 16)]);
        assert_eq!(
            code.pieces(0x28, 0x2004)
                .map(|(_, bytes)| bytes.len())
                .collect::<Vec<_>>(),
            [8, 4]
        );
    }

    #[test]
    fn overlaps_are_dropped_and_spans_are_bounded() {
        let code = Code::new([(0x1000, &[1u8; 32][..]), (0x1010, &[2u8; 64][..])]).unwrap();
        assert_eq!(code.end(), 0x20);
        let far = Code::new([(0, &[1u8; 1][..]), (1 << 32, &[2u8; 1][..])]);
        assert!(matches!(far, Err(Error::TooLarge(_))));
        assert!(matches!(Code::new([(0, &[][..])]), Err(Error::NoCode)));
    }
}
