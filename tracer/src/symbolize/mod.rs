//! Names for addresses: files and offsets in, frames out, with inlined functions, demangled, with source lines
//! where there is debug information.

mod segments;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Symbolized, Symbolizer};

use crate::profile::{self, Frame, FrameName};
use crate::target::files::MappedFile;
use segments::Segments;

/// A code address, as a place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Location {
    /// An index that the caller has for the file.
    pub file: usize,
    /// The offset in the file.
    pub offset: u64,
    /// Whether it is a return address: the call before it is what is looked up, which may be in another line,
    /// or even in another function.
    pub is_return: bool,
}

impl Location {
    fn looked_up(&self) -> u64 {
        self.offset - u64::from(self.is_return && self.offset > 0)
    }
}

/// Addresses that one file is asked for at once: bounds the memory of the answer.
const BATCH: usize = 4096;

/// Gives names to locations. `files` are what their indices stand for. Each location gets its frames from the
/// outermost to the innermost: more than one where functions were inlined.
#[must_use]
pub fn symbolize(files: &[Arc<MappedFile>], locations: &[Location]) -> HashMap<Location, Vec<Frame>> {
    let symbolizer = Symbolizer::builder().enable_auto_reload(false).build();
    let mut named = HashMap::new();
    for (index, file) in files.iter().enumerate() {
        let wanted: Vec<&Location> = locations
            .iter()
            .filter(|location| location.file == index)
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let segments = Segments::read(&file.open_path());
        let source = Source::Elf(Elf::new(file.open_path()));
        for batch in wanted.chunks(BATCH) {
            let offsets: Vec<u64> = batch.iter().map(|location| location.looked_up()).collect();
            let answers = ask(&symbolizer, file, &source, &offsets);
            let mut answers = answers.into_iter();
            for location in batch {
                let frames = match answers.next() {
                    Some(Symbolized::Sym(symbol)) => frames_of(symbol),
                    _ => vec![unnamed(file, &segments, location.offset)],
                };
                named.insert((*location).clone(), frames);
            }
        }
    }
    named
}

/// Asks with debug information, and without it where that cannot be read.
fn ask<'a>(
    symbolizer: &'a Symbolizer,
    file: &MappedFile,
    source: &Source<'_>,
    offsets: &[u64],
) -> Vec<Symbolized<'a>> {
    let error = match symbolizer.symbolize(source, Input::FileOffset(offsets)) {
        Ok(answers) => return answers,
        Err(error) => error,
    };
    log::debug!(
        "{}: debug information is left out: {error:#}",
        file.path.display()
    );
    let plain = Source::Elf(Elf {
        debug_syms: false,
        ..Elf::new(file.open_path())
    });
    symbolizer
        .symbolize(&plain, Input::FileOffset(offsets))
        .unwrap_or_else(|error| {
            log::debug!("{}: no symbols: {error:#}", file.path.display());
            Vec::new()
        })
}

fn frames_of(symbol: blazesym::symbolize::Sym<'_>) -> Vec<Frame> {
    let mut frames = vec![Frame {
        name: FrameName::Symbol(symbol.name.into()),
        source: symbol.code_info.as_deref().and_then(source_of),
        inlined: false,
    }];
    frames.extend(symbol.inlined.iter().map(|inlined| Frame {
        name: FrameName::Symbol(inlined.name.as_ref().into()),
        source: inlined.code_info.as_ref().and_then(source_of),
        inlined: true,
    }));
    frames
}

fn source_of(info: &CodeInfo<'_>) -> Option<profile::Source> {
    Some(profile::Source {
        file: info.to_path().to_string_lossy().into(),
        line: info.line?,
    })
}

fn unnamed(file: &MappedFile, segments: &Segments, offset: u64) -> Frame {
    let name = FrameName::Offset {
        module: file.base_name().into(),
        // A file whose headers cannot be read has no better address than the offset.
        address: segments.address(offset).unwrap_or(offset),
    };
    Frame {
        name,
        source: None,
        inlined: false,
    }
}

/// A frame for an address in memory without a file, or in a file that could not be kept.
#[must_use]
pub fn outside_files(path: &Path, offset: u64, address: u64) -> Frame {
    let text = path.to_string_lossy();
    let name = match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        // `[vdso]` and its like
        Some(name) => FrameName::Offset {
            module: name.into(),
            address: offset,
        },
        None if text.is_empty() => FrameName::Unmapped(address),
        None => {
            let base = PathBuf::from(path);
            let base = base
                .file_name()
                .map_or_else(|| text.clone(), |name| name.to_string_lossy());
            FrameName::Offset {
                module: base.as_ref().into(),
                address: offset,
            }
        }
    };
    Frame {
        name,
        source: None,
        inlined: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::files::Files;

    #[test]
    fn own_function_is_named_with_its_line() {
        let executable = std::env::current_exe().expect("known");
        let file = Files::default().of_path(&executable).expect("opens");
        let here = own_function_is_named_with_its_line as fn() as usize as u64;
        let mappings = crate::target::maps::executable_mappings(std::process::id()).expect("readable");
        let mapping = mappings
            .iter()
            .find(|mapping| mapping.start <= here && here < mapping.end)
            .expect("mapped");
        let offset = here - mapping.start + mapping.file_offset;
        let location = Location {
            file: 0,
            offset,
            is_return: false,
        };
        let named = symbolize(&[file], std::slice::from_ref(&location));
        let FrameName::Symbol(name) = &named[&location][0].name else {
            panic!("no symbol")
        };
        assert!(name.contains("own_function_is_named_with_its_line"), "{name}");
        assert!(named[&location][0].source.is_some());
    }

    #[test]
    fn file_without_symbols_gives_its_own_address() {
        let file = Files::default()
            .of_path(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")))
            .expect("opens");
        let location = Location {
            file: 0,
            offset: 0x10,
            is_return: true,
        };
        let named = symbolize(&[file], std::slice::from_ref(&location));
        let expected = FrameName::Offset {
            module: "Cargo.toml".into(),
            address: 0x10,
        };
        assert_eq!(named[&location][0].name, expected);
    }
}
