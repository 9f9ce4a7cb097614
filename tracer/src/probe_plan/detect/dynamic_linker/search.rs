//! The search for the libraries of one program, breadth first, as linkers load them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{DynamicLinker, LinkedProgram, LoadedFile, load, path_of, text_of};

/// The most files that are loaded with a program. The largest ones have some hundreds.
const MAX_FILES: usize = 512;

/// The most times that a directory or a path is looked at for a program: its own texts say where,
/// and how often.
const MAX_TRIES: u32 = 1 << 16;

/// The most directories of one search path. Distributions that give each library its own have a
/// hundred.
const MAX_DIRECTORIES: usize = 512;

/// The most paths that one text stands for, by the meanings of `$LIB` and `$PLATFORM`, and the most
/// of such words in it.
const MAX_MEANINGS: usize = 16;
const MAX_WORDS: usize = 8;

/// The directories that glibc searches last, as distributions build it.
const DEFAULTS: [&str; 6] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

/// The directories that musl searches if no file names others.
const MUSL_DEFAULTS: &[u8] = b"/lib:/usr/local/lib:/usr/lib";

/// The libraries that musl has in itself (`ldso/dynlink.c`), without `lib` before and with the dot
/// behind them.
const MUSL_OWN: [&[u8]; 7] = [b"c.", b"pthread.", b"rt.", b"m.", b"dl.", b"util.", b"xnet."];

/// Meanings of `$LIB` and `$PLATFORM`, by the distribution, the C library's version and the
/// processor.
const LIB: [&[u8]; 3] = [b"lib/x86_64-linux-gnu", b"lib64", b"lib"];
const PLATFORM: [&[u8]; 2] = [b"x86_64", b"haswell"];

/// The number of the program and of its linker among the files that are loaded.
const PROGRAM: usize = 0;
const INTERPRETER: usize = 1;

/// The directories of a search path, which many libraries are looked for in.
type Directories = Rc<[PathBuf]>;

/// The search paths of a file that is loaded, as directories.
#[derive(Debug, Default)]
struct SearchPaths {
    rpath: Option<Directories>,
    runpath: Option<Directories>,
    /// The file that it was loaded for.
    loader: Option<usize>,
}

/// A directory that has been searched.
#[derive(Debug, Clone, Copy)]
struct SearchedDirectory {
    exists: bool,
    has_hwcaps: bool,
}

/// The search for a program's libraries.
pub(super) struct LibrarySearch<'a> {
    linker: &'a DynamicLinker,
    is_secure: bool,
    is_musl: bool,
    /// `LD_LIBRARY_PATH`, as directories.
    library_path: Directories,
    defaults: Directories,
    loaded: Vec<(LoadedFile, SearchPaths)>,
    /// The files that are loaded, by the names that they were asked for by or have themselves.
    names: HashMap<Vec<u8>, Option<usize>>,
    directories: HashMap<PathBuf, SearchedDirectory>,
    tries_left: u32,
}

impl<'a> LibrarySearch<'a> {
    pub(super) fn new(linker: &'a DynamicLinker, program: LinkedProgram, interpreter: LoadedFile) -> Self {
        let file_name = |path: &Path| path.file_name().unwrap_or_default().as_encoded_bytes().to_vec();
        let asked_for = file_name(&program.interpreter);
        let is_musl = asked_for.starts_with(b"ld-musl-");
        let mut search = Self {
            linker,
            is_secure: program.is_secure,
            is_musl,
            library_path: Rc::default(),
            defaults: if is_musl {
                musl_defaults(&program.interpreter)
            } else {
                // A linker that was installed elsewhere has its libraries beside it.
                let beside = interpreter.path.parent().map(Path::to_path_buf);
                DEFAULTS.iter().map(PathBuf::from).chain(beside).collect()
            },
            loaded: Vec::new(),
            names: HashMap::new(),
            directories: HashMap::new(),
            tries_left: MAX_TRIES,
        };
        if !search.is_secure {
            let origin = origin(&program.loaded.path);
            search.library_path = search.directories_of(&linker.library_path, b":;", &origin);
        }
        search.add(program.loaded, None);
        search.add(interpreter, None);
        search.names.insert(asked_for, Some(INTERPRETER));
        search
    }

    /// Lists the linker and the libraries.
    pub(super) fn run(mut self) -> Vec<PathBuf> {
        let separates = |byte: &u8| byte.is_ascii_whitespace() || *byte == b':';
        let linker = self.linker;
        let preload = (!self.is_secure).then_some(linker.preload.as_slice());
        let system_preload = (!self.is_musl).then_some(linker.system_preload.as_slice());
        for names in preload.into_iter().chain(system_preload) {
            for name in names.split(separates).filter(|name| !name.is_empty()) {
                self.take(name, PROGRAM);
            }
        }
        let mut at = 0;
        while at < self.loaded.len() {
            let needed = std::mem::take(&mut self.loaded[at].0.dynamic.needed);
            for name in &needed {
                self.take(name, at);
            }
            at += 1;
        }
        if self.tries_left == 0 || self.loaded.len() >= MAX_FILES {
            let program = self.loaded[PROGRAM].0.path.display();
            log::debug!("{program} asks for more libraries than are looked for before they are mapped");
        }
        let files = self.loaded.into_iter().skip(INTERPRETER);
        files.map(|(file, _)| file.path).collect()
    }

    /// Loads a library by its name or path, for a file that is loaded.
    fn take(&mut self, name: &[u8], loader: usize) {
        if self.names.contains_key(name) || self.loaded.len() >= MAX_FILES {
            return;
        }
        let found = if self.is_musl && is_own_of_musl(name) {
            Some(INTERPRETER)
        } else {
            let file = if name.contains(&b'/') {
                self.at_path(name, loader)
            } else {
                self.by_name(name, loader)
            };
            file.map(|file| self.add(file, Some(loader)))
        };
        self.names.insert(name.to_vec(), found);
    }

    /// Adds a file, unless it is there under another name. Returns its number.
    fn add(&mut self, file: LoadedFile, loader: Option<usize>) -> usize {
        if let Some(known) = self.loaded.iter().position(|(known, _)| known.id == file.id) {
            return known;
        }
        let number = self.loaded.len();
        if let Some(name) = &file.dynamic.soname {
            self.names.entry(name.clone()).or_insert(Some(number));
        }
        let origin = origin(&file.path);
        let directories = |text: &Option<Vec<u8>>| {
            let text = text.as_ref()?;
            Some(self.directories_of(text, b":", &origin))
        };
        let paths = SearchPaths {
            rpath: directories(&file.dynamic.rpath),
            runpath: directories(&file.dynamic.runpath),
            loader,
        };
        self.loaded.push((file, paths));
        number
    }

    fn at_path(&mut self, name: &[u8], loader: usize) -> Option<LoadedFile> {
        let origin = origin(&self.loaded[loader].0.path);
        let paths = meanings(name, &origin, self.is_secure);
        paths.iter().find_map(|path| self.attempt(&path_of(path)))
    }

    fn by_name(&mut self, name: &[u8], loader: usize) -> Option<LoadedFile> {
        self.tries_left = self.tries_left.checked_sub(1)?;
        let name_path = path_of(name);
        for directories in self.directories_before_cache(loader) {
            if let Some(found) = self.in_directories(&name_path, &directories) {
                return Some(found);
            }
        }
        let skips_defaults = !self.is_musl && self.loaded[loader].0.dynamic.skips_defaults;
        if !self.is_musl {
            let linker = self.linker;
            for path in linker.cache.paths(name, &linker.hwcaps) {
                let is_default = self.defaults.iter().any(|directory| path.starts_with(directory));
                if !(skips_defaults && is_default)
                    && let Some(found) = self.attempt(path)
                {
                    return Some(found);
                }
            }
        }
        if skips_defaults {
            return None;
        }
        let defaults = self.defaults.clone();
        self.in_directories(&name_path, &defaults)
    }

    /// The directories that are searched for the libraries of a file before the cache and the
    /// defaults.
    fn directories_before_cache(&self, loader: usize) -> Vec<Directories> {
        let paths = |number: usize| &self.loaded[number].1;
        let ancestors = std::iter::successors(Some(loader), |number| paths(*number).loader);
        let mut found = Vec::new();
        if self.is_musl {
            found.push(self.library_path.clone());
            for ancestor in ancestors {
                let own = paths(ancestor).runpath.iter().chain(&paths(ancestor).rpath);
                found.extend(own.cloned());
            }
        } else {
            if paths(loader).runpath.is_none() {
                found.extend(ancestors.filter_map(|ancestor| paths(ancestor).rpath.clone()));
            }
            found.push(self.library_path.clone());
            found.extend(paths(loader).runpath.clone());
        }
        found
    }

    fn in_directories(&mut self, name: &Path, directories: &[PathBuf]) -> Option<LoadedFile> {
        directories
            .iter()
            .find_map(|directory| self.in_directory(name, directory))
    }

    fn in_directory(&mut self, name: &Path, directory: &Path) -> Option<LoadedFile> {
        self.tries_left = self.tries_left.checked_sub(1)?;
        let searched = if let Some(searched) = self.directories.get(directory) {
            *searched
        } else {
            let exists = directory.is_dir();
            let searched = SearchedDirectory {
                exists,
                has_hwcaps: exists && !self.is_musl && directory.join("glibc-hwcaps").is_dir(),
            };
            self.directories.insert(directory.to_owned(), searched);
            searched
        };
        if !searched.exists {
            return None;
        }
        if searched.has_hwcaps {
            let linker = self.linker;
            for hwcaps in &linker.hwcaps {
                let path = directory.join("glibc-hwcaps").join(hwcaps).join(name);
                if let Some(found) = self.attempt(&path) {
                    return Some(found);
                }
            }
        }
        self.attempt(&directory.join(name))
    }

    fn attempt(&mut self, path: &Path) -> Option<LoadedFile> {
        self.tries_left = self.tries_left.checked_sub(1)?;
        load(&std::path::absolute(path).ok()?)
    }

    /// The directories of a search path. An empty one is the working directory.
    fn directories_of(&self, text: &[u8], separators: &[u8], origin: &Path) -> Directories {
        if text.is_empty() {
            return Rc::default();
        }
        text.split(|byte| separators.contains(byte))
            .flat_map(|element| match element {
                b"" => vec![b".".to_vec()],
                _ => meanings(element, origin, self.is_secure),
            })
            .map(|path| path_of(&path))
            .take(MAX_DIRECTORIES)
            .collect()
    }
}

/// The directory of a file.
fn origin(path: &Path) -> PathBuf {
    path.parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// The paths that a text may stand for: `$ORIGIN`, `$LIB` and `$PLATFORM` are replaced, with or
/// without braces. A program with other rights than its caller's must not trust where it is.
pub(super) fn meanings(text: &[u8], origin: &Path, is_secure: bool) -> Vec<Vec<u8>> {
    if text.split(|byte| *byte == b'$').skip(1).count() > MAX_WORDS {
        return Vec::new();
    }
    let Some(at) = text.iter().position(|byte| *byte == b'$') else {
        return vec![text.to_vec()];
    };
    let (before, rest) = text.split_at(at);
    let origin_bytes = [origin.as_os_str().as_encoded_bytes()];
    let tokens: [(&[u8], &[&[u8]]); 3] = [
        (b"ORIGIN", &origin_bytes),
        (b"LIB", &LIB),
        (b"PLATFORM", &PLATFORM),
    ];
    let found = tokens.into_iter().find_map(|(name, values)| {
        let braced = rest
            .strip_prefix(b"${")
            .and_then(|rest| rest.strip_prefix(name)?.strip_prefix(b"}"));
        let plain = || rest.strip_prefix(b"$")?.strip_prefix(name);
        Some((name, values, braced.or_else(plain)?))
    });
    let (values, rest): (&[&[u8]], _) = match found {
        Some((b"ORIGIN", _, _)) if is_secure => return Vec::new(),
        Some((_, values, rest)) => (values, rest),
        // Linkers leave other words as they are.
        None => (&[b"$"], &rest[1..]),
    };
    let rests = meanings(rest, origin, is_secure);
    let each = values
        .iter()
        .flat_map(|value| rests.iter().map(move |rest| [before, value, rest].concat()));
    each.take(MAX_MEANINGS).collect()
}

fn is_own_of_musl(name: &[u8]) -> bool {
    name.strip_prefix(b"lib")
        .is_some_and(|rest| MUSL_OWN.iter().any(|own| rest.starts_with(own)))
}

/// The directories that musl searches last: those that `/etc/ld-musl-ARCHITECTURE.path` lists, from
/// the directory above the linker's on.
fn musl_defaults(interpreter: &Path) -> Directories {
    let prefix = interpreter
        .parent()
        .and_then(Path::parent)
        .unwrap_or(Path::new("/"));
    let name = interpreter.file_stem().unwrap_or_default();
    // `ld-musl-x86_64.so.1`
    let architecture = Path::new(name).file_stem().unwrap_or(name);
    let list = prefix.join("etc").join(architecture).with_extension("path");
    let text = text_of(&list);
    let text = if text.is_empty() { MUSL_DEFAULTS } else { &text };
    text.split(|byte| matches!(byte, b':' | b'\n'))
        .filter(|directory| !directory.is_empty())
        .map(path_of)
        .collect()
}
