//! Opening of files that a target or a stranger can influence.
//!
//! A path can lead to anything by the time it is opened: to a FIFO that nobody writes to, to a
//! device that acts when it is opened, out of a container. So each one is opened for its identity
//! first (`O_PATH` of open(2)), which neither waits nor acts. A regular file is then opened for
//! reading by that descriptor, which leads to the same inode, whatever has become of the path.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, SeekFrom, fstat, open, openat, openat2, seek};
use rustix::io::Errno;

/// A reason for not reading a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnfitFile {
    /// It is a directory, a FIFO, a device or a socket.
    #[error("it is not a regular file")]
    Irregular,
    /// Nearly all of it is holes, which take no room on a disk and all the more in memory.
    #[error("it is {len_bytes} bytes long, of which only {present_bytes} are stored; the rest is holes")]
    Sparse {
        /// Its length.
        len_bytes: u64,
        /// The bytes that are there.
        present_bytes: u64,
    },
}

impl UnfitFile {
    /// The reason in an error of opening a file, if it is one of these.
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<UnfitFile> for io::Error {
    fn from(reason: UnfitFile) -> Self {
        Self::other(reason)
    }
}

/// Opens a regular file by a path as memtap sees it: one that the user named, or a link in `/proc`.
pub(crate) fn open_here(path: &Path) -> io::Result<File> {
    let found = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    readable(&found)
}

/// Opens a regular file below a root directory. Symbolic links on the way lead nowhere outside of
/// it; `path` itself may be one only if `follow` says so.
pub(crate) fn open_in(root: BorrowedFd<'_>, path: &Path, follow: bool) -> io::Result<File> {
    let no_follow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC | no_follow;
    let found = match openat2(root, path, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => walk(root, path)?,
        found => found?,
    };
    readable(&found)
}

/// Does the same where openat2(2) is not to be had: a filter of system calls may not know it.
/// Without it no symbolic link can be followed safely.
fn walk(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut found = openat(root, ".", flags, Mode::empty())?;
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => found = openat(&found, name, flags, Mode::empty())?,
            Component::ParentDir | Component::Prefix(_) => return Err(Errno::XDEV.into()),
        }
    }
    Ok(found)
}

/// Opens for reading what was opened for its identity, if it is fit to be read.
fn readable(found: &OwnedFd) -> io::Result<File> {
    if FileType::from_raw_mode(fstat(found)?.st_mode) != FileType::RegularFile {
        return Err(UnfitFile::Irregular.into());
    }
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    // `NONBLOCK`: somebody's lease on the file is not waited for (fcntl(2)).
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(openat(CWD, path, flags, Mode::empty())?);
    require_contents(&file)?;
    Ok(file)
}

/// A shorter file is read whatever it consists of.
const MIN_CHECKED_BYTES: u64 = 64 << 20;

/// The least share of a long file that must be stored. File systems that compress come to a third,
/// and a program with holes for its alignment has most of its length.
const MIN_STORED_SHARE: u64 = 16;

/// Pieces of a sparse file that are looked at.
const MAX_PIECES: usize = 4096;

/// Fails where a long file consists of holes.
fn require_contents(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    let len_bytes = metadata.len();
    let wanted = len_bytes / MIN_STORED_SHARE;
    if len_bytes < MIN_CHECKED_BYTES || metadata.blocks().saturating_mul(512) >= wanted {
        return Ok(());
    }
    // A file system may compress, or not count blocks: it knows the holes.
    let present_bytes = stored_bytes(file.as_fd(), len_bytes, wanted);
    if present_bytes < wanted {
        return Err(UnfitFile::Sparse {
            len_bytes,
            present_bytes,
        }
        .into());
    }
    Ok(())
}

/// The bytes of a file outside of holes, counted until there are `enough`. Moves its position,
/// which is nobody's.
fn stored_bytes(file: BorrowedFd<'_>, len_bytes: u64, enough: u64) -> u64 {
    let (mut at, mut stored) = (0, 0);
    for _ in 0..MAX_PIECES {
        let Ok(start) = seek(file, SeekFrom::Data(at)) else {
            break;
        };
        let end = seek(file, SeekFrom::Hole(start)).unwrap_or(len_bytes);
        stored += end.saturating_sub(start);
        at = end;
        if stored >= enough || at >= len_bytes {
            break;
        }
    }
    stored
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> OwnedFd {
        open("/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("ours")
    }

    #[test]
    fn only_regular_files_are_opened_and_nothing_is_waited_for() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        let link = directory.path().join("link");
        symlink("/dev/zero", &link).expect("a link");
        for path in [&*pipe, &link, directory.path()] {
            for opened in [open_here(path), open_in(root().as_fd(), path, true)] {
                let error = opened.expect_err("it is no file");
                assert!(
                    matches!(UnfitFile::of(&error), Some(UnfitFile::Irregular)),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn walk_follows_no_links() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().canonicalize().expect("there").join("file");
        std::fs::write(&path, "x").expect("room");
        let link = path.with_file_name("link");
        symlink(".", &link).expect("a link");
        let found = walk(root().as_fd(), &path).expect("there");
        assert_eq!(
            readable(&found).expect("a file").metadata().expect("open").len(),
            1
        );
        assert!(walk(root().as_fd(), &link.join("file")).is_err());
        assert!(walk(root().as_fd(), Path::new("/../etc")).is_err());
    }

    #[test]
    fn long_files_must_be_there() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file");
        let file = File::create(&path).expect("room");
        file.set_len(MIN_CHECKED_BYTES - 1).expect("room");
        assert!(open_here(&path).is_ok());
        file.set_len(MIN_CHECKED_BYTES * 64).expect("room");
        let error = open_here(&path).expect_err("holes");
        assert!(matches!(
            UnfitFile::of(&error),
            Some(UnfitFile::Sparse { present_bytes: 0, .. })
        ));
    }
}
