//! Conversion of the results of symbolization to frames and files of a profile.

use crate::profile::{Frame, FrameName, ObjectFile, SourceLine};
use crate::symbolize::{ResolvedFile, ResolvedFrame, ResolvedName};

impl From<&ResolvedFrame> for Frame {
    fn from(frame: &ResolvedFrame) -> Self {
        Self {
            name: match &frame.name {
                ResolvedName::Symbol(name) => FrameName::Symbol(name.clone()),
                ResolvedName::Offset { module, address } => FrameName::Offset {
                    module: module.clone(),
                    address: *address,
                },
                ResolvedName::Unmapped(address) => FrameName::Unmapped(*address),
            },
            source: frame.source.as_ref().map(|source| SourceLine {
                file: source.file.clone(),
                line: source.line,
            }),
            inlined: frame.inlined,
        }
    }
}

impl From<ResolvedFile> for ObjectFile {
    fn from(file: ResolvedFile) -> Self {
        Self {
            path: file.path,
            build_id: file.build_id,
            debug: file.debug,
            was_fetched: file.was_fetched,
            has_names: file.has_names,
            has_changed: file.has_changed,
            frames: file.frames,
            unnamed: file.unnamed,
        }
    }
}
