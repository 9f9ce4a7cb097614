//! Files that are being written, and have no name or a random one.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use tempfile::NamedTempFile;

use super::{Export, directory_of};

/// Writes the content, and returns the first error of the file itself: an exporter may put it in
/// words of its own.
pub(super) fn filled(out: &mut dyn Write, export: Export<'_>) -> io::Result<()> {
    let mut out = FirstError { out, errno: None };
    let outcome = export(&mut out).and_then(|()| out.flush());
    match out.errno {
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => outcome,
    }
}

/// A writer that keeps the number of the first error.
struct FirstError<'a> {
    out: &'a mut dyn Write,
    errno: Option<i32>,
}

impl FirstError<'_> {
    fn note<T>(&mut self, outcome: io::Result<T>) -> io::Result<T> {
        outcome.inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted && self.errno.is_none() {
                self.errno = error.raw_os_error();
            }
        })
    }
}

impl Write for FirstError<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let outcome = self.out.write(bytes);
        self.note(outcome)
    }

    fn flush(&mut self) -> io::Result<()> {
        let outcome = self.out.flush();
        self.note(outcome)
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(super) enum Draft {
    /// A file without a name.
    Anonymous(File),
    /// A file with a random name.
    Named(NamedTempFile, Registration),
}

impl Draft {
    /// Begins a file in the directory that it will be in.
    pub(super) fn create(directory: &Path) -> io::Result<Self> {
        let anonymous = rustix::fs::open(
            directory,
            OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::from_raw_mode(mode()),
        );
        if let Ok(file) = anonymous {
            return Ok(Self::Anonymous(File::from(file)));
        }
        // Not every file system has such files. Which error says so is the file system's choice:
        // the others are met again.
        let (file, registration) = named(directory, OsStr::new(".memtap-"), OsStr::new(".part"))?;
        Ok(Self::Named(file, registration))
    }

    pub(super) fn file(&mut self) -> &mut File {
        match self {
            Self::Anonymous(file) => file,
            Self::Named(file, _) => file.as_file_mut(),
        }
    }

    /// Gives the file its name, in place of what has it.
    pub(super) fn publish(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Anonymous(file) => {
                let source = format!("/proc/self/fd/{}", file.as_raw_fd());
                let link = |name: &Path| {
                    linkat(CWD, source.as_str(), CWD, name, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from)
                };
                match link(path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    outcome => return outcome,
                }
                // A link replaces nothing, a rename does.
                let linked = tempfile::Builder::new()
                    .prefix(".memtap-")
                    .suffix(".part")
                    .make_in(directory_of(path), link)?;
                linked.persist(path).map_err(|error| error.error)
            }
            Self::Named(file, _registration) => {
                file.persist(path).map_err(|error| error.error)?;
                Ok(())
            }
        }
    }
}

/// Writes the content to a new file in another directory, and returns its path.
pub(super) fn save_in(directory: &Path, name: &OsStr, export: Export<'_>) -> io::Result<PathBuf> {
    let mut suffix = OsString::from("-");
    suffix.push(name);
    let (mut file, _registration) = named(directory, OsStr::new("memtap-"), &suffix)?;
    filled(file.as_file_mut(), export)?;
    let (_file, path) = file.keep().map_err(|error| error.error)?;
    Ok(path)
}

/// Creates a file with a random name.
pub(super) fn named(
    directory: &Path,
    prefix: &OsStr,
    suffix: &OsStr,
) -> io::Result<(NamedTempFile, Registration)> {
    // Held meanwhile, so that no file is made after those that there are have been removed.
    let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    let file = tempfile::Builder::new()
        .prefix(prefix)
        .suffix(suffix)
        .make_in(directory, |path| {
            File::options()
                .write(true)
                .create_new(true)
                .mode(0o666)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)
        })?;
    let path = file.path().to_path_buf();
    unfinished.push(path.clone());
    Ok((file, Registration(path)))
}

/// The bits of a new file's mode. Linux before 6.0 does not apply the umask to a file without a
/// name on every file system.
pub(super) fn mode() -> u32 {
    let status = std::fs::read("/proc/self/status").unwrap_or_default();
    // The name in it may be any bytes.
    let status = String::from_utf8_lossy(&status);
    let umask = status
        .lines()
        .find_map(|line| line.strip_prefix("Umask:"))
        .and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok());
    0o666 & !umask.unwrap_or(0o077)
}

/// Files with random names that are not whole yet.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A file's entry among those that are not whole.
#[derive(Debug)]
pub(super) struct Registration(PathBuf);

impl Drop for Registration {
    fn drop(&mut self) {
        let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
        unfinished.retain(|path| *path != self.0);
    }
}

/// Removes files that are not whole, before the process exits at once. None is made any more.
pub(crate) fn discard_unfinished() {
    let unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    for path in unfinished.iter() {
        if let Err(error) = std::fs::remove_file(path) {
            log::debug!("{}: {error}", path.display());
        }
    }
    std::mem::forget(unfinished);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn text(out: &mut dyn Write) -> io::Result<()> {
        out.write_all(b"x 1\n")
    }

    #[test]
    fn named_drafts_become_files_too() {
        let directory = tempfile::tempdir().expect("room");
        let path = directory.path().join("a.folded");
        let create = || {
            let names = (OsStr::new(".memtap-"), OsStr::new(".part"));
            let (file, registration) = named(directory.path(), names.0, names.1).expect("room");
            Draft::Named(file, registration)
        };
        drop(create());
        assert_eq!(std::fs::read_dir(directory.path()).expect("ours").count(), 0);
        for _ in 0..2 {
            let mut draft = create();
            filled(draft.file(), &mut text).expect("room");
            draft.publish(&path).expect("ours");
            assert_eq!(std::fs::read(&path).expect("there"), b"x 1\n");
            assert_eq!(std::fs::read_dir(directory.path()).expect("ours").count(), 1);
            assert_eq!(path.metadata().expect("there").mode() & 0o777, mode());
        }
    }
}
