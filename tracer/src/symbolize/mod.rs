//! Names for addresses: files and offsets in, frames out, with inlined functions, demangled, with
//! source lines where there is debug information.
//!
//! A file is named by its own debug information and symbols, or by separate debug information that
//! was found to fit (`debug_file`), or fetched (`debuginfod`); code that was compiled at run time
//! by its compiler's perf map (`perf_map`). All of these are foreign bytes, and are read in a
//! process of its own (`worker`); this one looks at headers alone. A file that was overwritten
//! since it was mapped names nothing: only separate debug information of the build that was mapped
//! still does.

mod cache;
mod debug_file;
mod debuginfod;
mod names;
mod perf_map;
mod reader;
mod resolved;
mod sections;
pub(crate) mod worker;

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::process::files::MappedFile;
use crate::process::root::Root;
use crate::settings::SymbolSettings;
use debug_file::DebugFile;
pub(crate) use debug_file::debug_file_of;
use debuginfod::DebuginfodClient;
use names::SymbolizeJob;
pub(crate) use resolved::{ResolvedFile, ResolvedFrame, ResolvedName, outside_files};
use sections::Sections;
use worker::{MapTask, NameReader, NameReading, OwnSymbols, ReaderTask};

/// A code address, as a place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Location {
    /// An index that the caller has for the file.
    pub file: usize,
    /// The offset in the file.
    pub offset: u64,
    /// True for a return address: the call before it is what is looked up, which may be in another
    /// line, or even in another function.
    pub is_return: bool,
}

impl Location {
    fn looked_up(&self) -> u64 {
        self.offset - u64::from(self.is_return && self.offset > 0)
    }
}

/// The result of a symbolization.
#[derive(Debug, Default)]
pub(crate) struct Symbolized {
    /// The frames of each location, from the outermost to the innermost: more than one where
    /// functions were inlined.
    pub frames: HashMap<Location, Arc<[ResolvedFrame]>>,
    /// The files, in the order in which they were given.
    pub files: Vec<ResolvedFile>,
}

/// A symbolizer of places in files, with a cache: interim reports ask for the same places again.
#[derive(Debug)]
pub(crate) struct Namer {
    settings: SymbolSettings,
    known: Mutex<KnownFiles>,
    reader: Mutex<NameReader>,
}

#[derive(Debug, Default)]
struct KnownFiles {
    /// The files by the address of the open file, which is kept open.
    files: HashMap<usize, Arc<FileNames>>,
    host: Option<Arc<Root>>,
    client: Option<DebuginfodClient>,
}

/// The sources of one file's names, and the names found so far.
#[derive(Debug)]
struct FileNames {
    file: Arc<MappedFile>,
    own: OwnSymbols,
    has_names: bool,
    has_changed: bool,
    debug: Option<DebugFile>,
    was_fetched: bool,
    frames: Mutex<FramesByPlace>,
}

/// The frames of places in a file: by offset, and by whether it is a return address.
type FramesByPlace = HashMap<(u64, bool), Arc<[ResolvedFrame]>>;

impl Namer {
    /// Makes one that looks where `settings` say.
    #[must_use]
    pub(crate) fn new(settings: SymbolSettings) -> Self {
        Self {
            settings,
            known: Mutex::default(),
            reader: Mutex::default(),
        }
    }

    /// Gives names to locations. `files` are what their indices stand for. Servers are asked only
    /// if `may_fetch`.
    #[must_use]
    pub(crate) fn name(
        &self,
        files: &[Arc<MappedFile>],
        locations: &[Location],
        may_fetch: bool,
    ) -> Symbolized {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted: Vec<Vec<&Location>> = vec![Vec::new(); files.len()];
        for location in locations {
            wanted[location.file].push(location);
        }
        let about: Vec<Arc<FileNames>> = files
            .iter()
            .map(|file| known.about(file, &self.settings, may_fetch))
            .collect();
        let mut jobs = Vec::new();
        let mut asked = Vec::new();
        for (about, wanted) in about.iter().zip(&wanted) {
            let frames = about.frames.lock().unwrap_or_else(PoisonError::into_inner);
            let new = wanted
                .iter()
                .filter(|location| !frames.contains_key(&key(location)));
            let new: Vec<&Location> = new.copied().collect();
            if new.is_empty() {
                continue;
            }
            jobs.push(SymbolizeJob {
                file: &about.file,
                debug: about.debug.as_ref(),
                own: about.own,
                places: new
                    .iter()
                    .map(|location| (location.offset, location.looked_up()))
                    .collect(),
                directories: &self.settings.debug_directories,
            });
            asked.push((about, new));
        }
        let found = names::do_all(
            &jobs,
            &mut self.reader.lock().unwrap_or_else(PoisonError::into_inner),
        );
        for ((about, new), found) in asked.into_iter().zip(found) {
            let mut frames = about.frames.lock().unwrap_or_else(PoisonError::into_inner);
            frames.extend(new.into_iter().map(key).zip(found));
        }

        let mut named = Symbolized::default();
        for (about, wanted) in about.iter().zip(wanted) {
            let frames = about.frames.lock().unwrap_or_else(PoisonError::into_inner);
            let mut resolved = about.resolved();
            for location in wanted {
                let Some(frames) = frames.get(&key(location)) else {
                    continue;
                };
                resolved.frames += 1;
                resolved.unnamed += u64::from(matches!(
                    frames.first(),
                    Some(ResolvedFrame {
                        name: ResolvedName::Offset { .. },
                        ..
                    })
                ));
                named.frames.insert(location.clone(), Arc::clone(frames));
            }
            named.files.push(resolved);
        }
        named
    }

    /// The names of code that was compiled at run time, by address, from the perf maps of a
    /// process: its own first, then those of the processes that it was made by.
    #[must_use]
    pub(crate) fn compiled(&self, maps: &[File], mut wanted: Vec<u64>) -> HashMap<u64, Arc<str>> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut named = HashMap::new();
        wanted.sort_unstable();
        wanted.dedup();
        for map in maps {
            let reading = NameReading {
                task: ReaderTask::Map(MapTask {
                    addresses: wanted.clone(),
                }),
                file: map,
                debug: None,
                shown: Path::new("a perf map"),
                size_bytes: map.metadata().map_or(0, |metadata| metadata.len()),
            };
            for names in reader.read(&[reading]).into_iter().flatten() {
                let strings: Vec<Arc<str>> = names.strings.into_iter().map(Arc::from).collect();
                let frames = wanted.iter().zip(names.frames);
                let found = frames.filter_map(|(address, frames)| {
                    let name = frames.first()?.name;
                    Some((*address, Arc::clone(&strings[name as usize])))
                });
                named.extend(found);
            }
            wanted.retain(|address| !named.contains_key(address));
        }
        named
    }
}

const fn key(location: &Location) -> (u64, bool) {
    (location.offset, location.is_return)
}

impl KnownFiles {
    /// Returns the sources of a file's names: looked for once, again if it was overwritten
    /// meanwhile, and once more when servers may be asked.
    fn about(
        &mut self,
        file: &Arc<MappedFile>,
        settings: &SymbolSettings,
        may_fetch: bool,
    ) -> Arc<FileNames> {
        let pointer = Arc::as_ptr(file).addr();
        let known = self.files.get(&pointer);
        if known.is_none_or(|about| !about.has_changed && file.has_changed()) {
            let about = FileNames::look(file, settings, &mut self.host);
            self.files.insert(pointer, Arc::new(about));
        }
        let about = &self.files[&pointer];
        if may_fetch
            && let Some(servers) = &settings.debuginfod
            && about.lacks_debug_info()
            && let Some(id) = &file.contents.build_id
        {
            let client = self.client.get_or_insert_with(|| DebuginfodClient::new(servers));
            if client.has_servers()
                && let Some(debug) = client.fetch(id, &file.path)
            {
                let fetched = FileNames {
                    file: Arc::clone(file),
                    own: about.own,
                    has_names: true,
                    has_changed: about.has_changed,
                    debug: Some(debug),
                    was_fetched: true,
                    frames: Mutex::default(),
                };
                self.files.insert(pointer, Arc::new(fetched));
            }
        }
        Arc::clone(&self.files[&pointer])
    }
}

impl FileNames {
    fn look(file: &Arc<MappedFile>, settings: &SymbolSettings, host: &mut Option<Arc<Root>>) -> Self {
        let has_changed = file.has_changed();
        let shown = file.path.display();
        let sections = if has_changed {
            log::warn!(
                "{shown} was overwritten since it was mapped: its own names are not those of what ran"
            );
            None
        } else if file.contents.segments.is_none() {
            None
        } else {
            Sections::of(file.file())
                .inspect_err(|error| log::debug!("{shown}: its names are not used: {error}"))
                .ok()
        };
        let own = match &sections {
            None => OwnSymbols::Nothing,
            Some(sections) if sections.has_debug_info => OwnSymbols::DebugInfo,
            Some(_) => OwnSymbols::Symbols,
        };
        if host.is_none() {
            *host = debug_file::host_root();
        }
        let link = sections.as_ref().and_then(|sections| sections.link.as_ref());
        let debug = match host.as_deref() {
            Some(host) if own != OwnSymbols::DebugInfo && file.contents.segments.is_some() => {
                debug_file::find(file, link, &settings.debug_directories, host)
            }
            _ => None,
        };
        if debug.is_none() {
            let what = match (own, &sections) {
                (OwnSymbols::DebugInfo, _) => "its own debug information",
                (_, Some(sections)) if sections.has_symbols => "its own symbols",
                (_, Some(sections)) if sections.has_minimal_symbols => "its own small symbol table",
                (OwnSymbols::Symbols, _) => "its dynamic symbols alone",
                _ => "nothing",
            };
            log::debug!("{shown}: named by {what}");
        }
        Self {
            file: Arc::clone(file),
            own,
            has_names: debug.is_some() || sections.is_some_and(|sections| sections.has_names()),
            has_changed,
            debug,
            was_fetched: false,
            frames: Mutex::default(),
        }
    }

    fn lacks_debug_info(&self) -> bool {
        self.own != OwnSymbols::DebugInfo && self.debug.is_none()
    }

    fn resolved(&self) -> ResolvedFile {
        ResolvedFile {
            path: self.file.path.clone(),
            build_id: self.file.contents.build_id.as_ref().map(ToString::to_string),
            debug: self.debug.as_ref().map(|debug| debug.path.clone()),
            was_fetched: self.was_fetched,
            has_names: self.has_names,
            has_changed: self.has_changed,
            frames: 0,
            unnamed: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::process::files::Files;

    fn name(file: &Arc<MappedFile>, location: &Location) -> (Arc<[ResolvedFrame]>, ResolvedFile) {
        let namer = Namer::new(SymbolSettings::default());
        let files = [Arc::clone(file)];
        let first = namer.name(&files, std::slice::from_ref(location), false);
        let again = namer.name(&files, std::slice::from_ref(location), false);
        assert_eq!(first.frames[location], again.frames[location]);
        (Arc::clone(&first.frames[location]), first.files[0].clone())
    }

    #[test]
    fn own_function_is_named_with_its_line() {
        let executable = std::env::current_exe().expect("known");
        let file = Files::default().of_path(&executable).expect("opens");
        let here = own_function_is_named_with_its_line as fn() as usize as u64;
        let mappings = crate::process::maps::executable_mappings(std::process::id()).expect("readable");
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
        let (frames, object) = name(&file, &location);
        let ResolvedName::Symbol(name) = &frames[0].name else {
            panic!("no symbol")
        };
        assert!(name.contains("own_function_is_named_with_its_line"), "{name}");
        assert!(frames[0].source.is_some());
        assert_eq!((object.frames, object.unnamed), (1, 0));
    }

    #[test]
    fn file_that_is_overwritten_between_two_reports_names_nothing_any_more() {
        let copy = tempfile::NamedTempFile::new().expect("room");
        std::fs::copy("/proc/self/exe", copy.path()).expect("room");
        let file = Files::default().of_path(copy.path()).expect("opens");
        let segments = file.contents.segments.as_ref().expect("ELF");
        let offset = (0..file.key.size_bytes)
            .step_by(4096)
            .find(|offset| segments.address(*offset).is_some())
            .expect("a segment");
        let location = Location {
            file: 0,
            offset,
            is_return: false,
        };
        let namer = Namer::new(SymbolSettings::default());
        let ask = || namer.name(&[Arc::clone(&file)], std::slice::from_ref(&location), false);
        assert!(!ask().files[0].has_changed && ask().files[0].has_names);
        copy.as_file().set_len(64).expect("ours");
        let after = ask();
        assert!(after.files[0].has_changed && !after.files[0].has_names);
        assert_eq!(after.files[0].unnamed, 1);
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
        let (frames, object) = name(&file, &location);
        let expected = ResolvedName::Offset {
            module: "Cargo.toml".into(),
            address: 0x10,
        };
        assert_eq!(frames[0].name, expected);
        assert_eq!((object.frames, object.unnamed), (1, 1));
    }

    #[test]
    fn map_of_the_process_itself_comes_before_its_parents() {
        let map = |text: &str| {
            let file = tempfile::tempfile().expect("room");
            std::io::Write::write_all(&mut &file, text.as_bytes()).expect("room");
            file
        };
        let maps = [map("10 8 own\n"), map("10 8 inherited\n20 8 older\n")];
        let names = Namer::new(SymbolSettings::default()).compiled(&maps, vec![0x30, 0x10, 0x20, 0x10]);
        assert_eq!(names[&0x10].as_ref(), "own");
        assert_eq!(names[&0x20].as_ref(), "older");
        assert_eq!(names.len(), 2);
    }
}
