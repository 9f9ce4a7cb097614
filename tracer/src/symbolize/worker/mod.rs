//! The process that names are read in.
//!
//! The readers of debug information map files of others into memory and unpack what they hold. A
//! file that is truncated meanwhile, or was made to be read for ever or to take all memory, ends
//! whoever reads it. So they run in a process of their own, without rights and with limits
//! ([`sandbox`]), which gets open files and addresses and gives back names. When it ends early, the
//! recording stands: the file that ended it has no names, and a new process reads the others.
//!
//! It is this program again, executed by `/proc/self/exe` under a hidden subcommand. A fork without
//! exec would have to be made before the recording has threads, and with it all descriptors and
//! mappings of the recording; and it could be made once only.

mod client;
mod components;
mod covering_symbols;
mod demangle;
mod dwarf_names;
mod elf_names;
mod name_table;
mod process;
mod protocol;
mod sandbox;
mod server;
mod unpacked;
mod whole_names;

pub(super) use client::{NameReader, NameReading};
pub(super) use protocol::{FileTask, MapTask, NamedFrame, Names, OwnSymbols, ReaderTask};
pub(crate) use server::run;

/// The hidden subcommand that the process is started by.
pub(crate) const SUBCOMMAND: &str = "symbolize-worker";
