//! Separate debug information: where it may be, and whether what is there fits.
//!
//! The places are those of GDB (*Debugging with GDB*, "Separate Debug Files"): by build id below a
//! debug directory, and by the name in `.gnu_debuglink` beside the file, below it in `.debug`, and
//! below a debug directory at the path of the file. Directories that the user named come first,
//! then those that the target itself sees, then memtap's.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::sections::Sections;
use crate::elf::{BuildId, DebugLink};
use crate::process::files::MappedFile;
use crate::process::root::Root;

/// Where distributions put separate debug information.
pub(super) const GLOBAL_DIRECTORY: &str = "/usr/lib/debug";

/// A file with debug information that was found to fit.
#[derive(Debug)]
pub(super) struct DebugFile {
    pub(super) file: File,
    /// Its path, as its root has it.
    pub(super) path: PathBuf,
}

/// By what a file is said to fit.
#[derive(Debug, Clone, PartialEq, Eq)]
enum By {
    BuildId,
    Link(u32),
}

/// A place where debug information may be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    /// In the root of the target, where that is not memtap's.
    in_targets_root: bool,
    path: PathBuf,
    by: By,
}

/// Looks for the debug information of a file: in `directories`, which the user named, then where it
/// is usual. `host` is memtap's own root.
pub(super) fn find(
    mapped: &MappedFile,
    link: Option<&DebugLink>,
    directories: &[PathBuf],
    host: &Root,
) -> Option<DebugFile> {
    let build_id = mapped.contents.build_id.as_ref();
    let places = candidates(&mapped.path, build_id, link, directories, mapped.root.is_some());
    places.into_iter().find_map(|candidate| {
        let root: &Root = match &mapped.root {
            Some(root) if candidate.in_targets_root => root,
            _ => host,
        };
        let shown = candidate.path.display();
        let file = match root.open(&candidate.path, true) {
            Ok(file) => file,
            Err(error) => {
                log::trace!("{shown}: {error}");
                return None;
            }
        };
        match fits(&file, mapped, &candidate.by) {
            Ok(()) => {
                log::debug!("{}: debug information in {shown}", mapped.path.display());
                Some(DebugFile {
                    file,
                    path: candidate.path,
                })
            }
            Err(reason) => {
                log::debug!(
                    "{shown} is not used as debug information of {}: {reason}",
                    mapped.path.display()
                );
                None
            }
        }
    })
}

/// The file with the separate symbols of a file, if there is one that fits: in `directories`, or
/// where it is usual.
#[must_use]
pub(crate) fn debug_file_of(file: &MappedFile, directories: &[PathBuf]) -> Option<File> {
    let link = Sections::of(file.file()).ok()?.link;
    find(file, link.as_ref(), directories, &*host_root()?).map(|found| found.file)
}

/// Every place to look at, in order.
fn candidates(
    file: &Path,
    build_id: Option<&BuildId>,
    link: Option<&DebugLink>,
    directories: &[PathBuf],
    has_own_root: bool,
) -> Vec<Candidate> {
    let mut found = Vec::new();
    let mut add = |in_targets_root, path: PathBuf, by: By| {
        let candidate = Candidate {
            in_targets_root,
            path,
            by,
        };
        if !found.contains(&candidate) {
            found.push(candidate);
        }
    };
    let by_id = build_id.map(by_build_id);
    let folder = file.parent().unwrap_or(Path::new("/"));
    for directory in directories {
        if let Some(by_id) = &by_id {
            add(false, directory.join(by_id), By::BuildId);
        }
        if let Some(DebugLink { name, crc }) = link {
            add(false, below(directory, folder).join(name), By::Link(*crc));
            add(false, directory.join(name), By::Link(*crc));
        }
    }
    let global = Path::new(GLOBAL_DIRECTORY);
    // The target's own root first: what it runs and what explains it were installed together.
    let roots: &[bool] = if has_own_root { &[true, false] } else { &[false] };
    for root in roots {
        if let Some(by_id) = &by_id {
            add(*root, global.join(by_id), By::BuildId);
        }
        if let Some(DebugLink { name, crc }) = link {
            // The same path in another root is another folder.
            if *root == has_own_root {
                add(*root, folder.join(name), By::Link(*crc));
                add(*root, folder.join(".debug").join(name), By::Link(*crc));
            }
            add(*root, below(global, folder).join(name), By::Link(*crc));
        }
    }
    found
}

/// `.build-id/0a/1b2c….debug`
fn by_build_id(id: &BuildId) -> PathBuf {
    let id = id.to_string();
    let (first, rest) = id.split_at(2);
    Path::new(".build-id").join(first).join(format!("{rest}.debug"))
}

/// A path below a directory, whatever root or `..` it has.
fn below(directory: &Path, path: &Path) -> PathBuf {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    directory.join(parts.collect::<Vec<&OsStr>>().iter().collect::<PathBuf>())
}

/// Whether a file has the debug information of another one.
fn fits(file: &File, mapped: &MappedFile, by: &By) -> Result<(), String> {
    let error = |error: std::io::Error| error.to_string();
    let (metadata, own) = (
        file.metadata().map_err(error)?,
        mapped.file().metadata().map_err(error)?,
    );
    if (metadata.dev(), metadata.ino()) == (own.dev(), own.ino()) {
        return Err("it is that file itself".to_owned());
    }
    check(file, mapped.contents.build_id.as_ref(), *by == By::BuildId)?;
    if let By::Link(expected) = by {
        let found = crc(file).map_err(error)?;
        if found != *expected {
            return Err(format!("its CRC is {found:08x}, not {expected:08x}"));
        }
    }
    Ok(())
}

/// Whether a file is whole, has something to tell, and is of this build. One without a build id of
/// its own passes where none is `needed`.
pub(super) fn check(file: &File, build_id: Option<&BuildId>, needed: bool) -> Result<(), String> {
    let sections = Sections::of(file).map_err(|error| error.to_string())?;
    if !sections.has_debug_info && !sections.has_symbols {
        return Err("it has no debug information".to_owned());
    }
    match (build_id, BuildId::read(file)) {
        (Some(expected), Some(found)) if found != *expected => {
            Err(format!("its build id is {found}, not {expected}"))
        }
        (_, None) if needed => Err("it has no build id".to_owned()),
        _ => Ok(()),
    }
}

/// The checksum of `.gnu_debuglink` over a whole file: CRC-32 as in ISO 3309, which zlib has too.
fn crc(file: &File) -> std::io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut reader = super::reader::FromStart::new(file);
    let mut piece = vec![0; 1 << 20];
    loop {
        match reader.read(&mut piece)? {
            0 => return Ok(hasher.finalize()),
            len => hasher.update(&piece[..len]),
        }
    }
}

/// Memtap's own root, if it can be opened.
pub(super) fn host_root() -> Option<Arc<Root>> {
    Root::of("self").map(Arc::new).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn places_are_in_order() {
        let id = BuildId::new(&[0xab, 0xcd, 0xef]).expect("an id");
        let link = DebugLink {
            name: "x.debug".to_owned(),
            crc: 7,
        };
        let paths = |own_root| {
            let found = candidates(
                Path::new("/opt/x/lib.so"),
                Some(&id),
                Some(&link),
                &["/mine".into()],
                own_root,
            );
            found
                .into_iter()
                .map(|candidate| {
                    let root = if candidate.in_targets_root { "target:" } else { "" };
                    format!("{root}{}", candidate.path.display())
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            paths(false),
            [
                "/mine/.build-id/ab/cdef.debug",
                "/mine/opt/x/x.debug",
                "/mine/x.debug",
                "/usr/lib/debug/.build-id/ab/cdef.debug",
                "/opt/x/x.debug",
                "/opt/x/.debug/x.debug",
                "/usr/lib/debug/opt/x/x.debug",
            ]
        );
        assert_eq!(
            paths(true)[3..],
            [
                "target:/usr/lib/debug/.build-id/ab/cdef.debug",
                "target:/opt/x/x.debug",
                "target:/opt/x/.debug/x.debug",
                "target:/usr/lib/debug/opt/x/x.debug",
                "/usr/lib/debug/.build-id/ab/cdef.debug",
                "/usr/lib/debug/opt/x/x.debug",
            ]
        );
    }

    #[test]
    fn paths_stay_below_the_directory() {
        assert_eq!(
            below(Path::new("/d"), Path::new("/../a/./b/../c")),
            Path::new("/d/a/b/c")
        );
    }

    #[test]
    fn checksum_is_that_of_zlib() {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(b"123456789").expect("room");
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(crc(&file).expect("readable"), 0xcbf4_3926);
    }

    #[test]
    fn files_of_other_builds_do_not_pass() {
        let own = File::open("/proc/self/exe").expect("readable");
        let other = BuildId::new(&[1, 2, 3, 4]).expect("an id");
        assert!(check(&own, Some(&other), false).is_err() || BuildId::read(&own).is_none());
        assert!(check(&own, BuildId::read(&own).as_ref(), false).is_ok());
        let text = File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).expect("readable");
        assert_eq!(
            check(&text, None, false),
            Err("it is not a 64-bit ELF file".to_owned())
        );
    }
}
