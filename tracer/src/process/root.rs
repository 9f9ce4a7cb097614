//! The root directory of a process, as it sees it: of its mount namespace, of a container, of a
//! chroot.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::foreign_files;

/// The identity of a root: the mount namespace, and the directory in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RootId {
    namespace: u64,
    device: u64,
    inode: u64,
}

impl RootId {
    /// Returns the identity of a process's root, by its process ID or `self`; nothing where it has
    /// gone.
    #[must_use]
    pub(crate) fn of(process: &str) -> Option<Self> {
        let directory = Path::new("/proc").join(process);
        let namespace = std::fs::metadata(directory.join("ns/mnt")).ok()?;
        let root = std::fs::metadata(directory.join("root")).ok()?;
        Some(Self {
            namespace: namespace.ino(),
            device: root.dev(),
            inode: root.ino(),
        })
    }
}

/// A root directory that is kept: files can be looked for in it when the process has gone.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Opens the root of a process, by its process ID or `self`.
    pub fn of(process: &str) -> io::Result<Self> {
        let directory = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(Path::new("/proc").join(process).join("root"))?;
        Ok(Self(directory.into()))
    }

    /// Opens a regular file of this root for reading. Symbolic links on the way lead nowhere
    /// outside of it; `path` itself may be one only if `follow` says so.
    pub fn open(&self, path: &Path, follow: bool) -> io::Result<File> {
        foreign_files::open_in(self.0.as_fd(), path, follow)
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::Mode;

    use super::*;

    #[test]
    fn links_are_followed_where_that_is_asked_for() {
        let root = Root::of("self").expect("ours");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (file, link, pipe) = (
            directory.path().join("file"),
            directory.path().join("link"),
            directory.path().join("pipe"),
        );
        std::fs::write(&file, "x").expect("room");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0)
            .expect("a pipe");
        assert!(root.open(&file, false).is_ok());
        assert!(root.open(&link, true).is_ok());
        assert!(root.open(&link, false).is_err());
        assert!(root.open(&pipe, true).is_err(), "a pipe is no regular file");
        assert!(root.open(directory.path(), true).is_err());
    }

    #[test]
    fn own_root_has_one_identity() {
        assert!(RootId::of("self").is_some());
        assert_eq!(RootId::of("self"), RootId::of(&std::process::id().to_string()));
        assert_eq!(RootId::of("0"), None);
    }
}
