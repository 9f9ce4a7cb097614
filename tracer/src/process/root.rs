//! The root directory of a process, as it sees it: of its mount namespace, of a container, of a chroot.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// What tells one root from another: the mount namespace, and the directory in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootId {
    namespace: u64,
    device: u64,
    inode: u64,
}

impl RootId {
    /// Of a process, by its number or `self`; nothing where it has gone.
    #[must_use]
    pub fn of(process: &str) -> Option<Self> {
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
    /// Of a process, by its number or `self`.
    pub fn of(process: &str) -> io::Result<Self> {
        let directory = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(Path::new("/proc").join(process).join("root"))?;
        Ok(Self(directory.into()))
    }

    /// Opens a regular file of this root for reading. Symbolic links on the way lead nowhere outside of it; `path`
    /// itself may be one only if `follow` says so.
    pub fn open(&self, path: &Path, follow: bool) -> io::Result<File> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
        // SAFETY: a struct of integers, of which zeros are a valid value.
        let mut how: libc::open_how = unsafe { std::mem::zeroed() };
        // A pipe without a writer would be waited for.
        let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
        how.flags = u64::from((flags | if follow { 0 } else { libc::O_NOFOLLOW }).cast_unsigned());
        how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
        // SAFETY: an open directory, a text that ends in NUL, and a struct of the size that is told.
        let descriptor = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                self.0.as_raw_fd(),
                path.as_ptr(),
                &raw mut how,
                size_of::<libc::open_how>(),
            )
        };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
        // SAFETY: the descriptor is new and ours.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
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
        let name = CString::new(pipe.as_os_str().as_bytes()).expect("no NUL");
        // SAFETY: a text that ends in NUL.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
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
