//! Reading a file that others read too.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Reads an open file from its start, and leaves the file's own position as it is.
#[derive(Debug)]
pub(super) struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl<'a> FromStart<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        Self { file, at: 0 }
    }
}

impl io::Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read_at(buffer, self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}
