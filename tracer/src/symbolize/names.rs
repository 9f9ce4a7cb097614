//! Frames of files, from the names that are read in a process of its own.

use std::path::PathBuf;
use std::sync::Arc;

use super::debug_file::DebugFile;
use super::resolved::{ResolvedFrame, ResolvedLine, ResolvedName};
use super::worker::{FileTask, NameReader, NameReading, NamedFrame, Names, OwnSymbols, ReaderTask};
use crate::process::files::MappedFile;

/// The addresses of one file to symbolize.
#[derive(Debug)]
pub(super) struct SymbolizeJob<'a> {
    pub(super) file: &'a MappedFile,
    /// Its separate debug information.
    pub(super) debug: Option<&'a DebugFile>,
    /// The use of its own contents.
    pub(super) own: OwnSymbols,
    /// The places, as offsets in the file: what is shown, and what is looked up.
    pub(super) places: Vec<(u64, u64)>,
    /// Directories with debug information, for what that refers to itself.
    pub(super) directories: &'a [PathBuf],
}

impl SymbolizeJob<'_> {
    /// Returns true if there is anything to be read.
    fn has_sources(&self) -> bool {
        self.file.contents.segments.is_some() && (self.own != OwnSymbols::Nothing || self.debug.is_some())
    }

    /// The virtual address that is looked up for a place, as the file itself has it.
    fn address(&self, looked_up: u64) -> Option<u64> {
        self.file.contents.segments.as_ref()?.address(looked_up)
    }

    fn reading(&self) -> NameReading<'_> {
        let debug = self.debug.map(|debug| &debug.file);
        let debug_bytes = debug.map_or(0, |file| file.metadata().map_or(0, |metadata| metadata.len()));
        let addresses = self
            .places
            .iter()
            .filter_map(|(_, looked_up)| self.address(*looked_up));
        NameReading {
            task: ReaderTask::File(FileTask {
                own: self.own,
                addresses: addresses.collect(),
                directories: self.directories.to_vec(),
            }),
            file: self.file.file(),
            debug,
            shown: &self.file.path,
            size_bytes: self.file.key.size_bytes + debug_bytes,
        }
    }

    /// The frames of every place, from the outermost to the innermost, in the order of the places.
    fn frames(&self, names: Option<Names>) -> Vec<Arc<[ResolvedFrame]>> {
        let names = names.unwrap_or_default();
        let strings: Vec<Arc<str>> = names.strings.into_iter().map(Arc::from).collect();
        let mut answers = names.frames.iter();
        let frames = self.places.iter().map(|(offset, looked_up)| {
            // Places without an address were not asked for.
            let frames = self.address(*looked_up).and_then(|_asked| answers.next());
            match frames {
                Some(frames) if !frames.is_empty() => resolved(frames, &strings),
                _ => [unnamed(self.file, *offset)].into(),
            }
        });
        frames.collect()
    }
}

fn resolved(frames: &[NamedFrame], strings: &[Arc<str>]) -> Arc<[ResolvedFrame]> {
    let string = |index: u32| Arc::clone(&strings[index as usize]);
    let frames = frames.iter().enumerate().map(|(depth, frame)| ResolvedFrame {
        name: ResolvedName::Symbol(string(frame.name)),
        source: frame.line.map(|(file, line)| ResolvedLine {
            file: string(file),
            line,
        }),
        inlined: depth > 0,
    });
    frames.collect()
}

/// A frame that has no name: the file's, and the place in it.
pub(super) fn unnamed(file: &MappedFile, offset: u64) -> ResolvedFrame {
    let segments = file.contents.segments.as_ref();
    ResolvedFrame {
        name: ResolvedName::Offset {
            module: file.base_name().into(),
            // A file whose headers cannot be read has no better address than the offset.
            address: segments
                .and_then(|segments| segments.address(offset))
                .unwrap_or(offset),
        },
        source: None,
        inlined: false,
    }
}

/// Does jobs. One whose file cannot be read has no names.
pub(super) fn do_all(jobs: &[SymbolizeJob<'_>], reader: &mut NameReader) -> Vec<Vec<Arc<[ResolvedFrame]>>> {
    let asked: Vec<usize> = (0..jobs.len()).filter(|at| jobs[*at].has_sources()).collect();
    let readings: Vec<NameReading<'_>> = asked.iter().map(|at| jobs[*at].reading()).collect();
    let mut names: Vec<Option<Names>> = jobs.iter().map(|_| None).collect();
    for (at, read) in asked.into_iter().zip(reader.read(&readings)) {
        names[at] = read;
    }
    let jobs = jobs.iter().zip(names);
    jobs.map(|(job, names)| job.frames(names)).collect()
}
