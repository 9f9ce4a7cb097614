//! Archives that the kernel unpacks as its first file system.
//!
//! Layout: `Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel, the format
//! "newc".

use std::io::Write as _;

use anyhow::{Context as _, Result};

/// An archive in memory that is being put together.
pub(super) struct Archive {
    bytes: Vec<u8>,
    next_inode: u32,
}

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;

impl Archive {
    /// An archive with nothing in it.
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            next_inode: 1,
        }
    }

    /// Adds a directory; its parent must have been added before.
    pub(super) fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(name, DIRECTORY, &[])
    }

    /// Adds a file, executable; its directory must have been added before.
    pub(super) fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.entry(name, EXECUTABLE, content)
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let size =
            u32::try_from(content.len()).with_context(|| format!("failed to archive {name}: too large"))?;
        let name_size = u32::try_from(name.len() + 1)
            .with_context(|| format!("failed to archive {name}: a name too long"))?;
        // Inode, mode, owner, group, links, time, size, four numbers of devices, length of the
        // name, checksum.
        let fields = [self.next_inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.next_inode += 1;
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            write!(self.bytes, "{field:08x}").context("failed to write to memory")?;
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    /// Names and contents end at multiples of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn layout() {
        let mut archive = Archive::new();
        archive.directory("bin").expect("a short name");
        archive.file("bin/sh", b"hello").expect("a short name");
        let bytes = archive.finish().expect("a short name");
        let text = String::from_utf8(bytes).expect("headers are text");
        let directory = "070701\
            00000001000041ed00000000000000000000000100000000\
            0000000000000000000000000000000000000000\
            0000000400000000bin\0\0\0";
        let file = "070701\
            00000002000081ed00000000000000000000000100000000\
            0000000500000000000000000000000000000000\
            0000000700000000bin/sh\0\0\0\0hello\0\0\0";
        assert_eq!(&text[..directory.len()], directory);
        assert_eq!(&text[directory.len()..][..file.len()], file);
        assert!(text[directory.len() + file.len()..].contains("TRAILER!!!"));
        assert_eq!(text.len() % 4, 0);
    }
}
