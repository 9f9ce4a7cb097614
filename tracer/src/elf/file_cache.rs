//! Reading a file piece by piece, each piece once, and not without limit.
//!
//! Pieces are read into memory of our own: a mapped file that is truncated meanwhile would end the
//! process (SIGBUS), while a read of it fails.

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use object::ReadRef;
use object::read::{ReadCache, ReadCacheOps};

/// Bytes that are read of one file at most. The largest programs that are shipped have a quarter of
/// that in code, and half of it in symbols.
const MAX_READ_BYTES: u64 = 1 << 30;

/// Bytes that a string counts as: the longest one that is read.
const STRING_BYTES: u64 = 4096;

/// The pieces of a file that were read.
#[derive(Debug)]
pub struct FileCache<F: Borrow<File>> {
    pieces: ReadCache<PositionedFile<F>>,
    /// Offsets and sizes of the pieces; strings have size 0.
    read: RefCell<HashSet<(u64, u64)>>,
    /// Bytes that may still be read.
    left: Cell<u64>,
}

impl<F: Borrow<File>> FileCache<F> {
    /// Returns an empty cache of an open file, whose position is left alone.
    pub fn new(file: F) -> Self {
        let len = file.borrow().metadata().map_or(0, |metadata| metadata.len());
        Self {
            pieces: ReadCache::new(PositionedFile { file, len, at: 0 }),
            read: RefCell::default(),
            // Pieces of a sound file overlap where a section is read beside its segment.
            left: Cell::new(len.saturating_mul(2).saturating_add(1 << 20).min(MAX_READ_BYTES)),
        }
    }

    /// Counts a piece that was not read before; fails where it is too much.
    fn charge(&self, piece: (u64, u64), bytes: u64) -> Result<(), ()> {
        if self.read.borrow_mut().insert(piece) {
            self.left.set(self.left.get().checked_sub(bytes).ok_or(())?);
        }
        Ok(())
    }
}

impl<'a, F: Borrow<File>> ReadRef<'a> for &'a FileCache<F> {
    fn len(self) -> Result<u64, ()> {
        (&self.pieces).len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        self.charge((offset, size), size)?;
        self.pieces.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        self.charge(
            (range.start, 0),
            STRING_BYTES.min(range.end.saturating_sub(range.start)),
        )?;
        self.pieces.read_bytes_at_until(range, delimiter)
    }
}

/// A file with a position of its own: others may read it at the same time.
#[derive(Debug)]
struct PositionedFile<F> {
    file: F,
    len: u64,
    at: u64,
}

impl<F: Borrow<File>> ReadCacheOps for PositionedFile<F> {
    fn len(&mut self) -> Result<u64, ()> {
        Ok(self.len)
    }

    fn seek(&mut self, position: u64) -> Result<u64, ()> {
        self.at = position;
        Ok(position)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, ()> {
        let len = self.file.borrow().read_at(bytes, self.at).ok().ok_or(())?;
        self.at += len as u64;
        Ok(len)
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), ()> {
        self.file.borrow().read_exact_at(bytes, self.at).ok().ok_or(())?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_once_and_not_without_limit() {
        let file = tempfile::tempfile().expect("room");
        file.set_len(1 << 20).expect("room");
        let cache = FileCache::new(&file);
        for _ in 0..100 {
            assert_eq!((&cache).read_bytes_at(0, 1 << 20).map(<[u8]>::len), Ok(1 << 20));
        }
        let pieces = (1..100).map(|offset| (&cache).read_bytes_at(offset, (1 << 20) - offset));
        assert_eq!(pieces.flatten().count(), 2, "three times the length");
    }

    #[test]
    fn truncated_file_is_an_error() {
        let file = tempfile::tempfile().expect("room");
        file.set_len(100).expect("room");
        let cache = FileCache::new(&file);
        file.set_len(10).expect("room");
        assert_eq!((&cache).read_bytes_at(20, 10), Err(()));
        assert_eq!((&cache).read_bytes_at(0, 10), Ok(&[0; 10][..]));
        assert_eq!((&cache).read_bytes_at(u64::MAX, 10), Err(()));
    }
}
