//! The cache of the dynamic linker: `/etc/ld.so.cache`, in which `ldconfig` writes down the
//! libraries of the system's directories.
//!
//! The layout is that of glibc 2.2 and later (`sysdeps/generic/dl-cache.h`: `cache_file_new`,
//! `file_entry_new`, `cache_extension`), in native byte order: a header of 48 bytes, entries of 24
//! bytes, strings. Up to glibc 2.31 an older table may stand before it. Offsets of strings count
//! from the header.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::process::foreign_files::open_here;

/// The largest cache that is read. One of 5,000 libraries takes half a megabyte.
const MAX_CACHE_BYTES: u64 = 16 << 20;

/// The beginning of the older table, whose entries take 12 bytes from offset 16 on.
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";

/// The beginning of the table, with its version.
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";

const HEADER_BYTES: usize = 48;
const ENTRY_BYTES: usize = 24;

/// The flags of a library for the x86-64 C library: `FLAG_ELF_LIBC6 | FLAG_X8664_LIB64`.
const X86_64: u32 = 0x0303;

/// The beginning of the extensions, and the one that names the directories below `glibc-hwcaps`.
const EXTENSION_MAGIC: u32 = 0xeaa4_2174;
const EXTENSION_HWCAPS: u32 = 1;

/// The upper half of an entry's hardware capabilities, without the level of the instruction set in
/// its lower ten bits, where the lower half is the number of a directory below `glibc-hwcaps`.
const IS_EXTENSION: u32 = 1 << 30;
const ISA_LEVEL: u32 = (1 << 10) - 1;

/// A library in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CachedLibrary {
    path: PathBuf,
    /// The directory below `glibc-hwcaps` that it is in, if it is for some processors alone.
    hwcaps: Option<Vec<u8>>,
}

/// The libraries of this machine's C library that the cache knows, by name.
#[derive(Debug, Default)]
pub(super) struct LinkerCache {
    libraries: HashMap<Vec<u8>, Vec<CachedLibrary>>,
}

impl LinkerCache {
    /// Reads the system's cache. One that cannot be read has no libraries.
    pub(super) fn of_system() -> Self {
        let mut bytes = Vec::new();
        let read = open_here(Path::new("/etc/ld.so.cache"))
            .and_then(|file| file.take(MAX_CACHE_BYTES).read_to_end(&mut bytes));
        if let Err(error) = read {
            log::debug!("/etc/ld.so.cache: {error}");
        }
        Self::parse(&bytes).unwrap_or_default()
    }

    /// Reads a cache; nothing of what has no header of one. Entries that point outside of it are
    /// left out.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = match bytes.strip_prefix(OLD_MAGIC) {
            Some(_) => {
                let count = usize::try_from(number(bytes, 12)?).ok()?;
                let end = count.checked_mul(12)?.checked_add(16)?;
                bytes.get(end.checked_next_multiple_of(8)?..)?
            }
            None => bytes,
        };
        if !bytes.starts_with(MAGIC) {
            return None;
        }
        let count = usize::try_from(number(bytes, 20)?).ok()?;
        let hwcaps = hwcaps_names(bytes).unwrap_or_default();
        let entries = bytes.get(HEADER_BYTES..)?.chunks_exact(ENTRY_BYTES).take(count);
        let mut libraries: HashMap<_, Vec<_>> = HashMap::new();
        for entry in entries {
            if let Some((name, library)) = library(bytes, entry, &hwcaps) {
                libraries.entry(name).or_default().push(library);
            }
        }
        Some(Self { libraries })
    }

    /// The paths of a library, the best first. `hwcaps`: the directories below `glibc-hwcaps` that
    /// this processor can use, the best first.
    pub(super) fn paths(&self, name: &[u8], hwcaps: &[&str]) -> Vec<&Path> {
        let mut found: Vec<(usize, &Path)> = self
            .libraries
            .get(name)
            .into_iter()
            .flatten()
            .filter_map(|library| {
                let rank = match &library.hwcaps {
                    Some(hwcap) => hwcaps.iter().position(|known| known.as_bytes() == hwcap)?,
                    None => hwcaps.len(),
                };
                Some((rank, library.path.as_path()))
            })
            .collect();
        found.sort_by_key(|(rank, _)| *rank);
        found.into_iter().map(|(_, path)| path).collect()
    }

    /// The paths of all libraries.
    pub(super) fn all(&self) -> impl Iterator<Item = &Path> {
        self.libraries
            .values()
            .flatten()
            .map(|library| library.path.as_path())
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn text(bytes: &[u8], at: u32) -> Option<&[u8]> {
    let rest = bytes.get(usize::try_from(at).ok()?..)?;
    rest.split(|byte| *byte == 0)
        .next()
        .filter(|text| !text.is_empty())
}

/// Reads an entry: flags, name, path, a kernel's version, hardware capabilities.
fn library(bytes: &[u8], entry: &[u8], hwcaps: &[Vec<u8>]) -> Option<(Vec<u8>, CachedLibrary)> {
    if number(entry, 0)? != X86_64 {
        return None;
    }
    let (name, path) = (text(bytes, number(entry, 4)?)?, text(bytes, number(entry, 8)?)?);
    let (low, high) = (number(entry, 16)?, number(entry, 20)?);
    let hwcaps = match high & !ISA_LEVEL {
        IS_EXTENSION => Some(hwcaps.get(usize::try_from(low).ok()?)?.clone()),
        0 if low == 0 => None,
        // Names of processors of before glibc 2.33.
        _ => return None,
    };
    let path = PathBuf::from(OsStr::from_bytes(path));
    Some((name.to_vec(), CachedLibrary { path, hwcaps }))
}

/// Reads the names of the directories below `glibc-hwcaps`, in the order of their numbers.
fn hwcaps_names(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let extensions = usize::try_from(number(bytes, 32)?).ok()?;
    if extensions == 0 || number(bytes, extensions)? != EXTENSION_MAGIC {
        return None;
    }
    let count = number(bytes, extensions.checked_add(4)?)?;
    let sections = bytes.get(extensions.checked_add(8)?..)?.chunks_exact(16);
    let section = sections
        .take(usize::try_from(count).ok()?)
        .find(|section| number(section, 0) == Some(EXTENSION_HWCAPS))?;
    let start = usize::try_from(number(section, 8)?).ok()?;
    let len = usize::try_from(number(section, 12)?).ok()?;
    let offsets = bytes.get(start..start.checked_add(len)?)?.chunks_exact(4);
    offsets
        .map(|offset| Some(text(bytes, number(offset, 0)?)?.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache of libraries: flags, name, path, capabilities; and names below `glibc-hwcaps`.
    fn cache(libraries: &[(u32, &str, &str, u64)], hwcaps: &[&str]) -> Vec<u8> {
        let strings_at = HEADER_BYTES + ENTRY_BYTES * libraries.len();
        let mut strings = Vec::new();
        let mut put = |text: &str| {
            let at = u32::try_from(strings_at + strings.len()).expect("short");
            strings.extend(text.bytes().chain([0]));
            at
        };
        let mut entries = Vec::new();
        for (flags, name, path, capabilities) in libraries {
            for number in [*flags, put(name), put(path), 0] {
                entries.extend(number.to_le_bytes());
            }
            entries.extend(capabilities.to_le_bytes());
        }
        let names: Vec<u8> = hwcaps.iter().flat_map(|name| put(name).to_le_bytes()).collect();
        let extensions = u32::try_from(strings_at + strings.len()).expect("short");
        let mut bytes = MAGIC.to_vec();
        for number in [
            u32::try_from(libraries.len()).expect("few"),
            u32::try_from(strings.len()).expect("short"),
            2,
            extensions,
            0,
            0,
            0,
        ] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(entries.into_iter().chain(strings));
        let names_len = u32::try_from(names.len()).expect("few");
        for number in [
            EXTENSION_MAGIC,
            1,
            EXTENSION_HWCAPS,
            0,
            extensions + 24,
            names_len,
        ] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(names);
        bytes
    }

    fn example() -> Vec<u8> {
        let extension = u64::from(IS_EXTENSION) << 32;
        cache(
            &[
                (X86_64, "liba.so.1", "/lib/liba.so.1", 0),
                (X86_64, "liba.so.1", "/lib/glibc-hwcaps/v2/liba.so.1", extension),
                (
                    X86_64,
                    "liba.so.1",
                    "/lib/glibc-hwcaps/v3/liba.so.1",
                    extension | 1,
                ),
                (X86_64, "liba.so.1", "/lib/haswell/liba.so.1", 1 << 5),
                (0x0003, "libb.so", "/lib32/libb.so", 0),
            ],
            &["v2", "v3"],
        )
    }

    #[test]
    fn best_library_for_the_processor_comes_first() {
        let cache = LinkerCache::parse(&example()).expect("a cache");
        let plain = Path::new("/lib/liba.so.1");
        let second = Path::new("/lib/glibc-hwcaps/v2/liba.so.1");
        let third = Path::new("/lib/glibc-hwcaps/v3/liba.so.1");
        assert_eq!(cache.paths(b"liba.so.1", &["v3", "v2"]), [third, second, plain]);
        assert_eq!(cache.paths(b"liba.so.1", &["v2"]), [second, plain]);
        assert_eq!(cache.paths(b"liba.so.1", &[]), [plain]);
        assert!(
            cache.paths(b"libb.so", &[]).is_empty(),
            "for another architecture"
        );
        assert_eq!(cache.all().count(), 3);
    }

    #[test]
    fn older_table_may_stand_before() {
        let mut bytes = [OLD_MAGIC, &[0], &1u32.to_le_bytes(), &[7; 12]].concat();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(example());
        let cache = LinkerCache::parse(&bytes).expect("a cache");
        assert_eq!(cache.all().count(), 3);
    }

    #[test]
    fn damaged_caches_are_read_as_far_as_they_go() {
        let whole = example();
        for len in 0..whole.len() {
            let cut = LinkerCache::parse(&whole[..len]);
            assert_eq!(cut.is_some(), len >= HEADER_BYTES, "{len} bytes");
        }
        for at in 20..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            if let Some(cache) = LinkerCache::parse(&damaged) {
                assert!(cache.all().count() <= 5);
            }
        }
        assert!(LinkerCache::parse(b"").is_none());
        assert!(LinkerCache::parse(OLD_MAGIC).is_none());
    }
}
