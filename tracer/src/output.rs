//! Files that are written at the end: their places are tried before anything is traced, so that a
//! wrong path costs nothing, and they are saved elsewhere if their place cannot take them.
//!
//! A new file takes its name when it is whole. Until then it has none, where the file system can do
//! so, and nothing is left of it however memtap ends; else it has a random one beside its target. In
//! either case a name that somebody else has put there is not followed.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use tempfile::NamedTempFile;

/// Directories to save a profile in when its own place cannot take it, after `TMPDIR`.
const LAST_RESORTS: [&str; 3] = ["/var/tmp", "/tmp", "/dev/shm"];

/// Symbolic links that are followed to a device or a pipe.
const MAX_LINKS: usize = 8;

/// A function that writes a file's content. It is called again where the content has to go to
/// another place.
pub(crate) type Export<'a> = &'a mut dyn FnMut(&mut dyn Write) -> io::Result<()>;

/// A file that will be written.
#[derive(Debug)]
pub(crate) struct OutputFile {
    path: PathBuf,
    kind: OutputKind,
}

#[derive(Debug)]
enum OutputKind {
    /// Standard output.
    Stdout,
    /// A new file, which takes the wanted name once it is whole.
    New,
    /// Something that exists and is no regular file: a device, a pipe, a descriptor of memtap's.
    Direct(File),
}

/// The place that a file was saved in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    /// The wanted place.
    InPlace,
    /// Elsewhere, since its place could not take it.
    Elsewhere {
        /// The other path.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
}

/// The errors of an output file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// The path cannot be written to.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The path is a symbolic link to a device or a pipe that another user has made.
    #[error("it is a link that user {0} has made, to a file that is no regular one; name another file")]
    ForeignLink(u32),
    /// The path is another user's file, which may not be replaced.
    #[error("it belongs to user {0}, and nobody else may replace files of this directory; name another file")]
    ForeignFile(u32),
    /// The content was written nowhere.
    #[error("{error}; it could not be saved in {tried} either, and is lost{advice}")]
    Lost {
        /// The error of the wanted place.
        error: io::Error,
        /// The other places.
        tried: String,
        /// Advice, after a colon.
        advice: &'static str,
    },
}

impl OutputFile {
    /// Prepares a file that is written at the end. `-` is standard output. `uid` is the user whose
    /// rights the calling thread has for files.
    pub(crate) fn open(path: &Path, uid: u32) -> Result<Self, OutputError> {
        let kind = if path == Path::new("-") {
            OutputKind::Stdout
        } else if let Some(file) = special(path, uid)? {
            OutputKind::Direct(file)
        } else {
            let directory = directory_of(path);
            may_replace(path, directory, uid)?;
            // For its errors: the file itself is made when there is something to write.
            drop(Draft::create(directory)?);
            OutputKind::New
        };
        Ok(Self {
            path: path.to_path_buf(),
            kind,
        })
    }

    /// Returns the path of the file.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns true if it goes to standard output.
    #[must_use]
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self.kind, OutputKind::Stdout)
    }

    /// Writes the file. Where its place cannot take it, it is saved in another directory.
    pub(crate) fn write(mut self, export: Export<'_>) -> Result<Saved, OutputError> {
        let outcome = match &mut self.kind {
            OutputKind::Stdout => filled(&mut io::stdout().lock(), export),
            OutputKind::Direct(file) => filled(file, export),
            OutputKind::New => Draft::create(directory_of(&self.path)).and_then(|mut draft| {
                filled(draft.file(), export)?;
                draft.publish(&self.path)
            }),
        };
        match outcome {
            Ok(()) => Ok(Saved::InPlace),
            // Whoever read our standard output has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Saved::InPlace),
            Err(error) => self.save_elsewhere(export, error),
        }
    }

    fn save_elsewhere(&self, export: Export<'_>, error: io::Error) -> Result<Saved, OutputError> {
        let name = match self.path.file_name() {
            Some(name) if !self.is_stdout() => name,
            _ => OsStr::new("profile.txt"),
        };
        let mut directories: Vec<PathBuf> = std::env::var_os("TMPDIR")
            .map(PathBuf::from)
            .filter(|directory| directory.is_absolute())
            .into_iter()
            .chain(LAST_RESORTS.map(PathBuf::from))
            .collect();
        directories.dedup();
        for directory in &directories {
            match save_in(directory, name, export) {
                Ok(path) => {
                    return Ok(Saved::Elsewhere {
                        path,
                        reason: error.to_string(),
                    });
                }
                Err(again) => log::debug!("{}: {again}", directory.display()),
            }
        }
        let tried: Vec<String> = directories
            .iter()
            .map(|directory| directory.display().to_string())
            .collect();
        let advice = if error.kind() == io::ErrorKind::FileTooLarge {
            ": `ulimit -f` limits the size of files"
        } else {
            ""
        };
        Err(OutputError::Lost {
            error,
            tried: tried.join(", "),
            advice,
        })
    }
}

/// Opens what exists at a path and is no regular file: a device, a pipe, a descriptor of memtap's;
/// nothing where a new file takes the path.
fn special(path: &Path, uid: u32) -> Result<Option<File>, OutputError> {
    let mut path = path.to_path_buf();
    let mut foreign = None;
    for _ in 0..=MAX_LINKS {
        if let Some(descriptor) = own_descriptor(&path) {
            return Ok(Some(duplicate(descriptor)?));
        }
        let Ok(metadata) = std::fs::symlink_metadata(&path) else {
            return Ok(None);
        };
        if metadata.is_symlink() {
            if metadata.uid() != 0 && metadata.uid() != uid {
                foreign.get_or_insert(metadata.uid());
            }
            let target = std::fs::read_link(&path)?;
            path = directory_of(&path).join(target);
            continue;
        }
        if metadata.is_file() {
            return Ok(None);
        }
        if metadata.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory).into());
        }
        if let Some(owner) = foreign {
            return Err(OutputError::ForeignLink(owner));
        }
        return Ok(Some(open_special(&path, &metadata)?));
    }
    Err(io::Error::from(rustix::io::Errno::LOOP).into())
}

/// Opens a device or a pipe, and nothing that has taken its place since.
fn open_special(path: &Path, seen: &Metadata) -> io::Result<File> {
    let file = File::options()
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NOCTTY)
        .open(path)?;
    let opened = file.metadata()?;
    let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino(), metadata.rdev());
    if identity(&opened) == identity(seen) && !opened.file_type().is_block_device() {
        Ok(file)
    } else {
        Err(io::Error::from(io::ErrorKind::InvalidInput))
    }
}

/// Returns the descriptor that a path is a name of. Opened by that name, a file that the shell has
/// put there would be another one, with another user's rights.
fn own_descriptor(path: &Path) -> Option<RawFd> {
    match path.to_str()? {
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        path => {
            let number = path
                .strip_prefix("/dev/fd/")
                .or_else(|| path.strip_prefix("/proc/self/fd/"))?;
            number.parse().ok().filter(|number| *number >= 0)
        }
    }
}

fn duplicate(descriptor: RawFd) -> io::Result<File> {
    // SAFETY: it is only duplicated here, before anything that memtap opens is closed; of a number
    // that is not open the kernel says so.
    let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
    Ok(File::from(descriptor.try_clone_to_owned()?))
}

/// Fails where the path has a file of another user's in a directory in which only the owner of a
/// file may replace it: the end of a recording is late to learn this.
fn may_replace(path: &Path, directory: &Path, uid: u32) -> Result<(), OutputError> {
    const STICKY: u32 = 0o1000;
    let (Ok(file), Ok(directory)) = (std::fs::symlink_metadata(path), directory.metadata()) else {
        return Ok(());
    };
    if uid != 0 && directory.mode() & STICKY != 0 && directory.uid() != uid && file.uid() != uid {
        return Err(OutputError::ForeignFile(file.uid()));
    }
    Ok(())
}

/// The directory of a path; the current one for a bare name.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// Writes the content, and returns the first error of the file itself: an exporter may put it in
/// words of its own.
fn filled(out: &mut dyn Write, export: Export<'_>) -> io::Result<()> {
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
enum Draft {
    /// A file without a name.
    Anonymous(File),
    /// A file with a random name.
    Named(NamedTempFile, Registration),
}

impl Draft {
    /// Begins a file in the directory that it will be in.
    fn create(directory: &Path) -> io::Result<Self> {
        let anonymous = rustix::fs::open(
            directory,
            OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::from_raw_mode(mode()),
        );
        if let Ok(file) = anonymous {
            return Ok(Self::Anonymous(File::from(file)));
        }
        // Not every file system has such files. Which error says so is the file system's choice: the
        // others are met again.
        let (file, registration) = named(directory, OsStr::new(".memtap-"), OsStr::new(".part"))?;
        Ok(Self::Named(file, registration))
    }

    fn file(&mut self) -> &mut File {
        match self {
            Self::Anonymous(file) => file,
            Self::Named(file, _) => file.as_file_mut(),
        }
    }

    /// Gives the file its name, in place of what has it.
    fn publish(self, path: &Path) -> io::Result<()> {
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
                    .make_in(directory_of(path), link)
                    .map_err(|error| without_path(&error))?;
                linked.persist(path).map_err(|error| without_path(&error.error))
            }
            Self::Named(file, _registration) => {
                file.persist(path).map_err(|error| without_path(&error.error))?;
                Ok(())
            }
        }
    }
}

/// Writes the content to a new file in another directory, and returns its path.
fn save_in(directory: &Path, name: &OsStr, export: Export<'_>) -> io::Result<PathBuf> {
    let mut suffix = OsString::from("-");
    suffix.push(name);
    let (mut file, _registration) = named(directory, OsStr::new("memtap-"), &suffix)?;
    filled(file.as_file_mut(), export)?;
    let (_file, path) = file.keep().map_err(|error| error.error)?;
    Ok(path)
}

/// Creates a file with a random name.
fn named(directory: &Path, prefix: &OsStr, suffix: &OsStr) -> io::Result<(NamedTempFile, Registration)> {
    // Held meanwhile, so that no file is made after those that there are have been removed.
    let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    let file = tempfile::Builder::new()
        .prefix(prefix)
        .suffix(suffix)
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .map_err(|error| without_path(&error))?;
    let path = file.path().to_path_buf();
    unfinished.push(path.clone());
    Ok((file, Registration(path)))
}

/// An error without the random name that it is about: messages have the name that was asked for.
fn without_path(error: &io::Error) -> io::Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(found) = cause {
        let number = found
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error);
        if let Some(number) = number {
            return io::Error::from_raw_os_error(number);
        }
        cause = match found.downcast_ref::<io::Error>() {
            Some(error) => error
                .get_ref()
                .map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => found.source(),
        };
    }
    io::Error::from(error.kind())
}

/// The bits of a new file's mode. Linux before 6.0 does not apply the umask to a file without a
/// name on every file system.
fn mode() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
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
struct Registration(PathBuf);

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
    use std::os::unix::fs::symlink;

    use super::*;

    fn own() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn open(path: &Path) -> Result<OutputFile, OutputError> {
        OutputFile::open(path, own())
    }

    fn text(out: &mut dyn Write) -> io::Result<()> {
        out.write_all(b"x 1\n")
    }

    fn entries(directory: &Path) -> usize {
        std::fs::read_dir(directory).expect("ours").count()
    }

    #[test]
    fn file_appears_when_it_is_whole() {
        let directory = tempfile::tempdir().expect("room");
        let path = directory.path().join("a.folded");
        for _ in 0..2 {
            let output = open(&path).expect("ours");
            assert_eq!(output.write(&mut text).expect("room"), Saved::InPlace);
            assert_eq!(std::fs::read(&path).expect("there"), b"x 1\n");
            assert_eq!(entries(directory.path()), 1);
            assert_eq!(path.metadata().expect("there").mode() & 0o777, mode());
        }
        drop(open(&directory.path().join("b.folded")).expect("ours"));
        assert_eq!(entries(directory.path()), 1);
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
        assert_eq!(entries(directory.path()), 0);
        for _ in 0..2 {
            let mut draft = create();
            filled(draft.file(), &mut text).expect("room");
            draft.publish(&path).expect("ours");
            assert_eq!(std::fs::read(&path).expect("there"), b"x 1\n");
            assert_eq!(entries(directory.path()), 1);
            assert_eq!(path.metadata().expect("there").mode() & 0o777, mode());
        }
    }

    #[test]
    fn failed_export_leaves_nothing_and_the_old_file() {
        let directory = tempfile::tempdir().expect("room");
        let path = directory.path().join("a.folded");
        std::fs::write(&path, "old").expect("room");
        let output = open(&path).expect("ours");
        let mut fails = |_: &mut dyn Write| Err(io::Error::other("no"));
        let error = output.write(&mut fails).expect_err("failed").to_string();
        assert!(error.starts_with("no; it could not be saved in "), "{error}");
        assert_eq!(std::fs::read(&path).expect("there"), b"old");
        assert_eq!(entries(directory.path()), 1);
    }

    #[test]
    fn wrong_places_are_errors_at_once() {
        let error = open(Path::new("/no/such/directory/a.svg")).expect_err("not there");
        assert_eq!(error.to_string(), "No such file or directory (os error 2)");
        // A file system without nameless files.
        let error = open(Path::new("/proc/a.svg")).expect_err("no place for files");
        assert_eq!(error.to_string(), "No such file or directory (os error 2)");
        assert!(open(Path::new("/")).is_err());
        assert!(open(Path::new("/dev/fd/987654")).is_err());
    }

    #[test]
    fn links_are_replaced() {
        let directory = tempfile::tempdir().expect("room");
        let (victim, path) = (directory.path().join("victim"), directory.path().join("a.svg"));
        std::fs::write(&victim, "precious").expect("room");
        symlink(&victim, &path).expect("room");
        open(&path).expect("ours").write(&mut text).expect("room");
        assert_eq!(std::fs::read(&victim).expect("there"), b"precious");
        assert_eq!(std::fs::read(&path).expect("there"), b"x 1\n");
        assert!(!path.is_symlink());
    }

    #[test]
    fn links_to_devices_are_followed_if_nobody_else_made_them() {
        let directory = tempfile::tempdir().expect("room");
        let path = directory.path().join("a.svg");
        symlink("/dev/null", &path).expect("room");
        let output = open(&path).expect("ours");
        assert_eq!(output.write(&mut text).expect("room"), Saved::InPlace);
        assert!(path.is_symlink());
        if own() == 0 {
            std::os::unix::fs::lchown(&path, Some(12345), None).expect("root");
            let error = open(&path).expect_err("another's");
            assert!(matches!(error, OutputError::ForeignLink(12345)), "{error}");
        }
        std::fs::remove_file(&path).expect("ours");
        symlink("a.svg", &path).expect("room");
        assert!(open(&path).is_err());
    }

    #[test]
    fn full_device_is_saved_elsewhere() {
        let output = open(Path::new("/dev/full")).expect("writable");
        let Saved::Elsewhere { path, reason } = output.write(&mut text).expect("room elsewhere") else {
            panic!("took it")
        };
        assert!(reason.contains("No space left"), "{reason}");
        assert_eq!(std::fs::read(&path).expect("there"), b"x 1\n");
        std::fs::remove_file(path).expect("ours");
    }

    #[test]
    fn words_of_an_exporter_do_not_hide_the_error() {
        let mut hides = |out: &mut dyn Write| text(out).map_err(|_error| io::Error::other("something"));
        let mut full = File::options().write(true).open("/dev/full").expect("there");
        let error = filled(&mut full, &mut hides).expect_err("full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
