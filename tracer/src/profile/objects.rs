//! The programs and libraries that frames are in.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::text;

/// A program or library that frames are in.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ObjectFile {
    /// Its path, as the process that mapped it first saw it.
    #[serde(with = "text::path")]
    pub path: PathBuf,
    /// Its build id in hexadecimal, where it has one.
    pub build_id: Option<String>,
    /// The file with its debug information, where that was another one.
    #[serde(with = "text::optional_path")]
    pub debug: Option<PathBuf>,
    /// True if the debug information came from a server, now or before.
    pub was_fetched: bool,
    /// True if it has names of functions beside the symbols that dynamic linking needs.
    pub has_names: bool,
    /// True if it was overwritten after it was mapped.
    pub has_changed: bool,
    /// Distinct places in it that are in stacks.
    pub frames: u64,
    /// The number of places that have no name.
    pub unnamed: u64,
}
