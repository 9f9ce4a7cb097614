//! pprof files (`.pb.gz`): the form that a profile is kept in, and that other tools read.
//!
//! | in pprof's own tables | where |
//! | --- | --- |
//! | figures by metric | sample types, Go's four first |
//! | callers, the innermost first, without what was called | locations; inlined are further lines |
//! | process (`comm`, `pid`, `image`), function, end of an incomplete stack | labels |
//! | a stack that is not whole | an outermost location `[truncated]` or `[stack lost]` |
//! | programs and libraries, their build ids | mappings |
//!
//! Everything else that a [`Profile`](crate::profile::Profile) and its
//! [`Session`](crate::profile::Session) have is in one comment ([`document`]), so that reading a
//! file gives the profile that was written, to the last unit. A file of another program, or one
//! that another program has changed, is read as far as its tables go.

mod difference;
mod document;
mod error;
mod figures;
mod foreign;
mod limits;
mod messages;
mod read_tables;
mod reader;
mod sample_types;
mod saved;
mod tables;
mod unpack;
mod writer;

pub(crate) use difference::write_difference;
pub(crate) use reader::read;
pub(crate) use saved::{SavedOrigin, SavedProfile};
pub(crate) use writer::write;

/// The label of a sample's process name.
const PROCESS: &str = "comm";

/// The label of a sample's process id.
const PID: &str = "pid";

/// The label of a sample's process image: an index into the document's, from 1.
const IMAGE: &str = "image";

/// The label of the function that was called.
const FUNCTION: &str = "function";

/// The label of the end of a walk; a sample without it has a complete stack.
const STACK_END: &str = "stack_end";

/// The value of [`STACK_END`] of a stack that was lost.
const LOST: &str = "lost";

#[cfg(test)]
mod tests;
