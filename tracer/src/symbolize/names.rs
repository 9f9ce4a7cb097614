//! Frames of one file, from the files that name them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolizer};

use super::debug_file::{DebugFile, GLOBAL_DIRECTORY};
use super::resolved::{ResolvedFrame, ResolvedLine, ResolvedName};
use crate::process::files::{MappedFile, open_path};

/// Addresses that one file is asked for at once: bounds the memory of the answer.
const BATCH: usize = 4096;

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

/// The use of a mapped file's contents for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnSymbols {
    /// Nothing: it is another file by now, or no whole one.
    Nothing,
    /// Symbol tables.
    Symbols,
    /// Debug information too.
    DebugInfo,
}

impl SymbolizeJob<'_> {
    /// The frames of every place, from the outermost to the innermost, in the order of the places.
    pub(super) fn frames(&self) -> Vec<Arc<[ResolvedFrame]>> {
        let mut named: Vec<Option<Arc<[ResolvedFrame]>>> = vec![None; self.places.len()];
        let directories = self.directories.iter().cloned();
        let directories = directories.chain([PathBuf::from(GLOBAL_DIRECTORY)]);
        let symbolizer = Symbolizer::builder()
            .enable_auto_reload(false)
            .set_debug_dirs(Some(directories))
            .build();
        if let Some(debug) = self.debug {
            self.ask(&symbolizer, &Elf::new(open_path(&debug.file)), &mut named);
        }
        let plain = Elf {
            debug_syms: false,
            ..Elf::new(self.file.open_path())
        };
        if self.own == OwnSymbols::DebugInfo {
            self.ask(&symbolizer, &Elf::new(self.file.open_path()), &mut named);
        }
        if self.own != OwnSymbols::Nothing {
            self.ask(&symbolizer, &plain, &mut named);
        }
        let shown = self.places.iter().map(|(offset, _)| *offset);
        named
            .into_iter()
            .zip(shown)
            .map(|(frames, offset)| frames.unwrap_or_else(|| [self.unnamed(offset)].into()))
            .collect()
    }

    /// Asks a file for those that have no name yet.
    fn ask(&self, symbolizer: &Symbolizer, elf: &Elf, named: &mut [Option<Arc<[ResolvedFrame]>>]) {
        let without: Vec<(usize, u64)> = named
            .iter()
            .enumerate()
            .filter(|(_, frames)| frames.is_none())
            .filter_map(|(index, _)| Some((index, self.address(self.places[index].1)?)))
            .collect();
        let source = Source::Elf(elf.clone());
        for batch in without.chunks(BATCH) {
            let addresses: Vec<u64> = batch.iter().map(|(_, address)| *address).collect();
            // Debug information has the addresses of the file that was mapped, and segments at
            // other offsets.
            let answers = match symbolizer.symbolize(&source, Input::VirtOffset(&addresses)) {
                Ok(answers) => answers,
                Err(error) => {
                    log::debug!(
                        "{}: names are left out: {error:#} ({})",
                        self.file.path.display(),
                        elf.path.display()
                    );
                    return;
                }
            };
            for ((index, _), answer) in batch.iter().zip(answers) {
                if let blazesym::symbolize::Symbolized::Sym(symbol) = answer {
                    named[*index] = Some(frames_of(symbol));
                }
            }
        }
    }

    /// The virtual address at an offset, as the file itself has it.
    fn address(&self, offset: u64) -> Option<u64> {
        self.file.contents.segments.as_ref()?.address(offset)
    }

    fn unnamed(&self, offset: u64) -> ResolvedFrame {
        unnamed(self.file, offset)
    }
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

fn frames_of(symbol: Sym<'_>) -> Arc<[ResolvedFrame]> {
    let mut frames = vec![ResolvedFrame {
        name: ResolvedName::Symbol(symbol.name.into()),
        source: symbol.code_info.as_deref().and_then(source_of),
        inlined: false,
    }];
    frames.extend(symbol.inlined.iter().map(|inlined| ResolvedFrame {
        name: ResolvedName::Symbol(inlined.name.as_ref().into()),
        source: inlined.code_info.as_ref().and_then(source_of),
        inlined: true,
    }));
    frames.into()
}

fn source_of(info: &CodeInfo<'_>) -> Option<ResolvedLine> {
    Some(ResolvedLine {
        file: info.to_path().to_string_lossy().into(),
        line: info.line?,
    })
}

/// Does jobs on every CPU, the largest first. A job that panics, on a file that was made to, has no
/// names.
pub(super) fn do_all(jobs: &[SymbolizeJob<'_>]) -> Vec<Vec<Arc<[ResolvedFrame]>>> {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    let weight = |job: &SymbolizeJob<'_>| job.file.key.size_bytes + 1024 * job.places.len() as u64;
    order.sort_by_key(|index| std::cmp::Reverse(weight(&jobs[*index])));
    let next = std::sync::atomic::AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut done: HashMap<usize, Vec<Arc<[ResolvedFrame]>>> = HashMap::new();
        while let Some(index) = order.get(next.fetch_add(1, std::sync::atomic::Ordering::SeqCst)) {
            let job = &jobs[*index];
            let started = std::time::Instant::now();
            let frames = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job.frames()));
            let frames = frames.unwrap_or_else(|_panic| {
                log::warn!("{}: its names cannot be read", job.file.path.display());
                let places = job.places.iter();
                places.map(|(offset, _)| [job.unnamed(*offset)].into()).collect()
            });
            log::debug!(
                "{}: {} places named in {} ms",
                job.file.path.display(),
                frames.len(),
                started.elapsed().as_millis()
            );
            done.insert(*index, frames);
        }
        done
    };
    let mut done = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads.min(jobs.len())).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for helper in helpers {
            done.extend(helper.join().unwrap_or_default());
        }
        done
    });
    (0..jobs.len())
        .map(|index| done.remove(&index).unwrap_or_default())
        .collect()
}
