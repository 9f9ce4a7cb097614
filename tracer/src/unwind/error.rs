//! The reasons for which no table can be made of a file.

/// A reason for which no table can be made of a file. A fault inside a single function is no error:
/// it is counted in the table's [`Statistics`](super::CompileStatistics).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not an ELF file, or a damaged one.
    #[error(transparent)]
    Elf(#[from] crate::elf::ElfError),
    /// No segment with bytes in the file is executable.
    #[error("no executable segment")]
    NoCode,
    /// The executable segments are spread over more address space than a row can express.
    #[error("executable segments span {0:#x} bytes, more than the 4 GiB that a table can cover")]
    TooLarge(u64),
    /// The file has neither `.eh_frame` nor `.debug_frame`, or nothing is in them.
    #[error("no unwind information (.eh_frame or .debug_frame)")]
    NoUnwindInfo,
}
