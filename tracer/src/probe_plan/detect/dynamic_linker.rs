//! The libraries that a program will be loaded with, by the rules of its dynamic linker. The rules
//! are followed here and the linker is not run: a file says itself which one is to be executed, and
//! may be nothing but an argument of the command.
//!
//! The rules are those of glibc (`ld.so(8)`, `elf/dl-load.c`) and of musl (`ldso/dynlink.c`), which
//! has shorter ones. Audit modules, filters and directories for processors of before glibc 2.33 are
//! left out. A program that asks for much is followed to a limit.

mod search;

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::linker_cache::LinkerCache;
use crate::elf::{DynamicSection, Elf, FileCache};
use crate::privileges::User;
use crate::process::foreign_files::open_here;
use search::LibrarySearch;

/// The largest text that is read of the linkers' own files.
const MAX_TEXT_BYTES: u64 = 64 << 10;

/// Everything that decides what is loaded beside the programs themselves.
#[derive(Debug)]
pub struct DynamicLinker {
    cache: LinkerCache,
    /// Directories below `glibc-hwcaps` for this processor, the best first.
    hwcaps: Vec<&'static str>,
    /// `LD_LIBRARY_PATH` and `LD_PRELOAD`.
    library_path: Vec<u8>,
    preload: Vec<u8>,
    /// `/etc/ld.so.preload`.
    system_preload: Vec<u8>,
    /// The user and the group that programs run as.
    user: (u32, u32),
}

/// A file that is loaded.
#[derive(Debug)]
struct LoadedFile {
    path: PathBuf,
    id: (u64, u64),
    dynamic: DynamicSection,
}

/// A program as it is found in its file.
struct LinkedProgram {
    loaded: LoadedFile,
    /// The dynamic linker that it asks for.
    interpreter: PathBuf,
    /// It runs with other rights than its caller's, and linkers ignore the environment.
    is_secure: bool,
}

impl DynamicLinker {
    /// Reads the settings of this machine, for programs that run as a user with memtap's
    /// environment.
    #[must_use]
    pub fn of_system(user: Option<&User>) -> Self {
        let variable = |name| std::env::var_os(name).unwrap_or_default().into_vec();
        Self {
            cache: LinkerCache::of_system(),
            hwcaps: supported_hwcaps(),
            library_path: variable("LD_LIBRARY_PATH"),
            preload: variable("LD_PRELOAD"),
            system_preload: without_comments(&text_of(Path::new("/etc/ld.so.preload"))),
            user: user.map_or_else(
                || {
                    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
                    (user.as_raw(), group.as_raw())
                },
                |user| (user.uid, user.gid),
            ),
        }
    }

    /// Lists the linker that a program asks for, and the libraries that it loads with the program;
    /// nothing for what is no program, is linked statically, or asks for what is no ELF file.
    #[must_use]
    pub fn libraries_of(&self, program: &Path) -> Vec<PathBuf> {
        let Some(program) = self.program(program) else {
            return Vec::new();
        };
        let Some(interpreter) = load(&program.interpreter) else {
            return Vec::new();
        };
        LibrarySearch::new(self, program, interpreter).run()
    }

    fn program(&self, path: &Path) -> Option<LinkedProgram> {
        // `$ORIGIN` is where the file is, not a link to it: the kernel tells the linker just that.
        let path = path.canonicalize().ok()?;
        let file = open_here(&path).ok()?;
        let data = file.metadata().ok()?;
        let cache = FileCache::new(file);
        let elf = Elf::parse(&cache).ok()?;
        Some(LinkedProgram {
            interpreter: elf.interpreter().map(PathBuf::from)?,
            is_secure: (data.mode() & 0o4000 != 0 && data.uid() != self.user.0)
                || (data.mode() & 0o2000 != 0 && data.gid() != self.user.1),
            loaded: LoadedFile {
                path,
                id: (data.dev(), data.ino()),
                dynamic: DynamicSection::read(&elf)?,
            },
        })
    }
}

/// Opens a library; nothing where there is none for this architecture.
fn load(path: &Path) -> Option<LoadedFile> {
    let file = open_here(path).ok()?;
    let data = file.metadata().ok()?;
    let cache = FileCache::new(file);
    let elf = Elf::parse(&cache).ok()?;
    if elf.is_fixed() || elf.is_relocatable() {
        return None;
    }
    Some(LoadedFile {
        path: path.to_owned(),
        id: (data.dev(), data.ino()),
        dynamic: DynamicSection::read(&elf)?,
    })
}

/// The text of a linker's own file; nothing where it cannot be read.
fn text_of(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    let read = open_here(path).and_then(|file| file.take(MAX_TEXT_BYTES).read_to_end(&mut text));
    if let Err(error) = read
        && error.kind() != std::io::ErrorKind::NotFound
    {
        log::debug!("{}: {error}", path.display());
    }
    text
}

fn without_comments(text: &[u8]) -> Vec<u8> {
    let lines = text.split(|byte| *byte == b'\n');
    let code = lines.filter_map(|line| line.split(|byte| *byte == b'#').next());
    code.collect::<Vec<_>>().join(&b' ')
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// The directories below `glibc-hwcaps` that this processor can use: the levels of the x86-64
/// supplement of the System V ABI (3.1.1, "Processor Architecture").
fn supported_hwcaps() -> Vec<&'static str> {
    macro_rules! has {
        ($($feature:tt)+) => { $(std::arch::is_x86_feature_detected!($feature))&&+ };
    }
    let second = has!("cmpxchg16b" "popcnt" "sse3" "sse4.1" "sse4.2" "ssse3");
    let third = second && has!("avx" "avx2" "bmi1" "bmi2" "f16c" "fma" "lzcnt" "movbe");
    let fourth = third && has!("avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl");
    [("x86-64-v4", fourth), ("x86-64-v3", third), ("x86-64-v2", second)]
        .into_iter()
        .filter_map(|(name, is_supported)| is_supported.then_some(name))
        .collect()
}

#[cfg(test)]
mod tests;
