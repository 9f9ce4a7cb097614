//! The results of symbolization.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A frame of a program.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ResolvedFrame {
    /// Its name.
    pub name: ResolvedName,
    /// The line of source, where there is debug information.
    pub source: Option<ResolvedLine>,
    /// True if it was inlined into the frame outside it.
    pub inlined: bool,
}

/// The name of a frame.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ResolvedName {
    /// A function, demangled.
    Symbol(Arc<str>),
    /// A place in a file that has no symbol for it.
    Offset {
        /// The file's base name.
        module: Arc<str>,
        /// The virtual address inside the file.
        address: u64,
    },
    /// An address that belongs to no known mapping.
    Unmapped(u64),
}

/// A line of source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ResolvedLine {
    /// The file, as the debug information names it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
}

/// A program or library, and the source of its names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResolvedFile {
    /// Its path, as the process that mapped it first saw it.
    pub path: PathBuf,
    /// Its build ID in hexadecimal, where it has one.
    pub build_id: Option<String>,
    /// The file with its debug information, where that was another one.
    pub debug: Option<PathBuf>,
    /// True if the debug information came from a server, now or before.
    pub was_fetched: bool,
    /// True if it has names of functions beside the symbols that dynamic linking needs.
    pub has_names: bool,
    /// True if it was overwritten after it was mapped.
    pub has_changed: bool,
    /// The number of distinct places in it.
    pub frames: u64,
    /// The number of places that have no name.
    pub unnamed: u64,
}

/// Returns the frame of an address in memory without a file, or in a file that could not be kept.
#[must_use]
pub(crate) fn outside_files(path: &Path, offset: u64, address: u64) -> ResolvedFrame {
    let text = path.to_string_lossy();
    let name = match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        // `[vdso]` and its like
        Some(name) => ResolvedName::Offset {
            module: name.into(),
            address: offset,
        },
        None if text.is_empty() => ResolvedName::Unmapped(address),
        None => {
            let base = PathBuf::from(path);
            let base = base
                .file_name()
                .map_or_else(|| text.clone(), |name| name.to_string_lossy());
            ResolvedName::Offset {
                module: base.as_ref().into(),
                address: offset,
            }
        }
    };
    ResolvedFrame {
        name,
        source: None,
        inlined: false,
    }
}
