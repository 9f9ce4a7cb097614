//! The reasons for which a file cannot be read.

use super::document::SCHEMA;
use crate::message::escape::one_line;

/// The reasons for which a file cannot be read. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PprofError {
    /// There is nothing in it.
    #[error("the file is empty; was memtap stopped before it wrote it? record again")]
    Empty,
    /// It is something else.
    #[error("the file is no pprof profile, but {0}; memtap reads what `record -o FILE.pb.gz` writes")]
    OtherFormat(&'static str),
    /// It is cut off.
    #[error("the file ends early; copy it again, or record again")]
    Truncated,
    /// It is not what was written.
    #[error("the file is damaged ({0}); copy it again, or record again")]
    Damaged(String),
    /// It would take too much memory.
    #[error(
        "the file is larger than memtap reads ({0}); record with a larger --sample or a smaller --max-stacks"
    )]
    TooLarge(&'static str),
    /// A memtap of another version has written it.
    #[error("the file was written as {} by another version of memtap; this one reads {SCHEMA}; use that version", one_line(.0))]
    Version(String),
    /// Its samples are of something else.
    #[error("the file has no figures of memory, but {}; memtap reads alloc_space, inuse_space and the like", one_line(.0))]
    NoMemory(String),
    /// Its figures are differences.
    #[error("the file has negative figures: it is the difference of two profiles; give memtap diff the two")]
    Difference,
}

impl PprofError {
    /// Damage in words.
    pub(super) fn damaged(what: &str) -> Self {
        Self::Damaged(what.to_owned())
    }
}

/// The most characters of a file's text in a message.
const MAX_SHOWN: usize = 200;

/// A text of a file as a message has it: no longer than a line.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}
