//! Errors of the compiler.

/// The reasons for which a file has no table. What is wrong inside single functions is no error: it
/// is counted in the table's [`CompileStatistics`](super::CompileStatistics).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes do not begin with a whole ELF header.
    #[error("not an ELF file")]
    NotElf,
    /// The file is for another architecture, or is not 64-bit little-endian.
    #[error("not an x86-64 program (ELF machine {machine}, class {class}, data encoding {encoding})")]
    Architecture {
        /// `e_machine`, as a little-endian number.
        machine: u16,
        /// `EI_CLASS`: 1 is 32-bit, 2 is 64-bit.
        class: u8,
        /// `EI_DATA`: 1 is little-endian, 2 is big-endian.
        encoding: u8,
    },
    /// The program headers lie outside the file.
    #[error("the program headers are malformed")]
    ProgramHeaders,
    /// No segment with bytes in the file is executable.
    #[error("no executable segment")]
    NoCode,
    /// The executable segments are spread over more address space than a row can express.
    #[error("executable segments span {0:#x} bytes, more than the 4 GiB that a table can cover")]
    TooLarge(u64),
    /// The file has neither `.eh_frame` nor `.debug_frame`, or nothing is in them.
    #[error("no unwind information (.eh_frame or .debug_frame)")]
    NoUnwindInfo,
    /// The only unwind information is compressed in a way that cannot be read: neither zlib nor
    /// sound, or too large.
    #[error("the unwind information is compressed in a way that cannot be read")]
    Compression,
}
