//! Root directories that a command is given: `chroot DIR PROGRAM`, `unshare --root=DIR PROGRAM` and
//! the like run programs with other C libraries than the machine's, whose probes have to be in
//! before the first call.
//!
//! Nothing in such a directory is executed to find out what its programs map: it is looked where
//! distributions put their libraries, for files with the names that allocators have.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::loader;

/// The directories of libraries, from a root on.
const DIRECTORIES: [&str; 6] = [
    "lib",
    "lib64",
    "usr/lib",
    "usr/lib64",
    "usr/local/lib",
    "usr/local/lib64",
];

/// The beginnings of the names of files that have an allocator, or are mapped with one.
const NAMES: [&str; 7] = [
    "libc.so",
    "libc-2",
    "ld-musl-",
    "libc.musl-",
    "libjemalloc",
    "libtcmalloc",
    "libmimalloc",
];

/// The most files that are taken of one root.
const MAX_FILES: usize = 32;

/// The files with allocators in the directories that arguments name, if those are roots: something
/// that can be executed in them is named by another argument, or there is a shell; and the programs
/// themselves.
#[must_use]
pub fn files_in(arguments: &[OsString]) -> Vec<PathBuf> {
    let roots = arguments.iter().flat_map(|argument| {
        let bytes = argument.as_bytes();
        // `--root=DIR`, and a word as it is.
        let value = bytes
            .iter()
            .position(|byte| *byte == b'=')
            .map(|at| &bytes[at + 1..]);
        [Some(bytes), value].into_iter().flatten()
    });
    let roots = roots
        .map(|bytes| PathBuf::from(OsStr::from_bytes(bytes)))
        .filter(|path| path.is_dir() && !is_own_root(path));
    let mut files: Vec<PathBuf> = Vec::new();
    for root in roots {
        let programs = programs_in(&root, arguments);
        if !programs.is_empty() {
            files.extend(programs);
            files.extend(libraries_in(&root));
        }
    }
    files
}

/// Returns true if a directory is the root that memtap itself has.
fn is_own_root(path: &Path) -> bool {
    let (Ok(path), Ok(root)) = (std::fs::metadata(path), std::fs::metadata("/")) else {
        return true;
    };
    (path.dev(), path.ino()) == (root.dev(), root.ino())
}

/// The programs inside a root that arguments name by their whole path, and its shell.
fn programs_in(root: &Path, arguments: &[OsString]) -> Vec<PathBuf> {
    let named = arguments.iter().filter_map(|argument| {
        let path = Path::new(argument);
        Some(root.join(path.strip_prefix("/").ok()?))
    });
    let mut programs: Vec<PathBuf> = named
        .chain([root.join("bin/sh")])
        .filter(|path| is_inside(path))
        .collect();
    programs.retain(|path| loader::is_executable(path));
    programs
}

/// Returns true if a path is a file that is there under this very name. A link may lead anywhere,
/// from outside the root.
fn is_inside(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|data| data.is_file())
}

/// The libraries below a root that may have an allocator.
fn libraries_in(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(root) = root.canonicalize() else {
        return files;
    };
    for directory in DIRECTORIES {
        // A link with a whole path leads elsewhere from here than from inside.
        let Ok(directory) = root.join(directory).canonicalize() else {
            continue;
        };
        if !directory.starts_with(&root) {
            continue;
        }
        collect(&directory, &mut files);
        // `lib/x86_64-linux-gnu`
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let is_platform = entry
                .file_name()
                .as_bytes()
                .windows(6)
                .any(|part| part == b"-linux");
            if is_platform && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                collect(&entry.path(), &mut files);
            }
        }
    }
    files.truncate(MAX_FILES);
    files
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_wanted = NAMES
            .iter()
            .any(|start| name.as_bytes().starts_with(start.as_bytes()));
        if is_wanted && is_inside(&entry.path()) && !files.contains(&entry.path()) {
            files.push(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn libraries_of_a_root_are_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = &directory.path().canonicalize().expect("there");
        let words = |path: &str| [OsString::from(root), path.into(), "x".into()];
        let file = |path: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("made");
            std::fs::write(&path, "").expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("allowed");
            path
        };
        let libc = file("lib/x86_64-linux-gnu/libc.so.6");
        file("lib/x86_64-linux-gnu/libm.so.6");
        std::os::unix::fs::symlink("/lib", root.join("lib64")).expect("linked");
        std::fs::create_dir(root.join("usr")).expect("made");
        std::os::unix::fs::symlink("../lib", root.join("usr/lib")).expect("linked");
        assert!(
            files_in(&words("/run")).is_empty(),
            "a directory with nothing to run"
        );
        let run = file("run");
        assert_eq!(files_in(&words("/run")), [run.clone(), libc.clone()]);
        let mut option = OsString::from("--root=");
        option.push(root);
        assert_eq!(files_in(&[option, "/run".into()]), [run, libc]);
        assert!(files_in(&["/".into(), "/bin/sh".into()]).is_empty());
    }
}
