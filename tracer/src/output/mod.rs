//! Files that are written at the end: their places are tried before anything is traced, so that a
//! wrong path costs nothing, and they are saved elsewhere if their place cannot take them.
//!
//! A new file takes its name when it is whole. Until then it has none, where the file system can
//! do so, and nothing is left of it however memtap ends; else it has a random one beside its
//! target. In either case a name that somebody else has put there is not followed.

mod draft;
mod special;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(crate) use draft::discard_unfinished;
use draft::{Draft, filled, save_in};

/// Directories to save a profile in when its own place cannot take it, after `TMPDIR`.
const LAST_RESORTS: [&str; 3] = ["/var/tmp", "/tmp", "/dev/shm"];

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
        } else if let Some(file) = special::open(path, uid)? {
            OutputKind::Direct(file)
        } else {
            let directory = directory_of(path);
            special::may_replace(path, directory, uid)?;
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

/// The directory of a path; the current one for a bare name.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        Some(_) => Path::new("."),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

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
            assert_eq!(path.metadata().expect("there").mode() & 0o777, draft::mode());
        }
        drop(open(&directory.path().join("b.folded")).expect("ours"));
        assert_eq!(entries(directory.path()), 1);
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
