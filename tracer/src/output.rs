//! Files that are written at the end: opened before anything is traced, so that a wrong path costs
//! nothing, and saved elsewhere if there is no room for them.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};

/// Directories to save a profile in when its own place is full.
const LAST_RESORTS: [&str; 3] = ["/var/tmp", "/tmp", "/dev/shm"];

/// A file that will be written.
#[derive(Debug)]
pub(crate) struct OutputFile {
    path: PathBuf,
    kind: OutputKind,
    owner: Option<(u32, u32)>,
}

#[derive(Debug)]
enum OutputKind {
    /// Standard output.
    Stdout,
    /// A new file, which takes the wanted name once it is whole.
    Temporary { file: File, path: PathBuf },
    /// Something that exists and is no regular file: a device, a pipe.
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

impl OutputFile {
    /// Opens a file that is written at the end. `-` is standard output. A new file is given to
    /// `owner`, a user ID and a group ID.
    pub(crate) fn open(path: &Path, owner: Option<(u32, u32)>) -> io::Result<Self> {
        let kind = if path == Path::new("-") {
            OutputKind::Stdout
        } else if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            if path.is_dir() {
                return Err(io::Error::from(io::ErrorKind::IsADirectory));
            }
            OutputKind::Direct(File::options().write(true).open(path)?)
        } else {
            let temporary = temporary_name(path);
            let file = File::create(&temporary)?;
            give(&file, owner);
            OutputKind::Temporary {
                file,
                path: temporary,
            }
        };
        Ok(Self {
            path: path.to_path_buf(),
            kind,
            owner,
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

    /// Writes the file. Where there is no room for it, it is saved in another directory.
    pub(crate) fn write(mut self, bytes: &[u8]) -> io::Result<Saved> {
        let outcome = match &mut self.kind {
            OutputKind::Stdout => io::stdout()
                .lock()
                .write_all(bytes)
                .and_then(|()| io::stdout().flush()),
            OutputKind::Direct(file) => file.write_all(bytes),
            OutputKind::Temporary { file, path } => {
                let written = file.write_all(bytes).and_then(|()| file.flush());
                written.and_then(|()| std::fs::rename(&*path, &self.path))
            }
        };
        match outcome {
            Ok(()) => {
                self.kind = OutputKind::Stdout;
                Ok(Saved::InPlace)
            }
            // Whoever read our standard output has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Saved::InPlace),
            Err(error) => self.save_elsewhere(bytes, error),
        }
    }

    fn save_elsewhere(&self, bytes: &[u8], error: io::Error) -> io::Result<Saved> {
        let name = self
            .path
            .file_name()
            .map_or_else(|| OsString::from("profile"), ToOwned::to_owned);
        for directory in LAST_RESORTS {
            let mut unique = OsString::from(format!("memtap-{}-", std::process::id()));
            unique.push(&name);
            let path = Path::new(directory).join(unique);
            let saved = File::options()
                .write(true)
                .create_new(true)
                .open(&path)
                .and_then(|mut file| {
                    give(&file, self.owner);
                    file.write_all(bytes)?;
                    file.flush()
                });
            match saved {
                Ok(()) => {
                    return Ok(Saved::Elsewhere {
                        path,
                        reason: error.to_string(),
                    });
                }
                Err(again) => {
                    log::debug!("{}: {again}", path.display());
                    discard(&path);
                }
            }
        }
        Err(error)
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        // A recording that failed leaves no half-made file behind.
        if let OutputKind::Temporary { path, .. } = &self.kind {
            discard(path);
        }
    }
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}

fn discard(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        log::debug!("{}: {error}", path.display());
    }
}

/// Gives a new file to its owner.
fn give(file: &File, owner: Option<(u32, u32)>) {
    if let Some((uid, gid)) = owner
        && let Err(error) = fchown(file, Some(uid), Some(gid))
    {
        log::debug!("failed to give a file to user {uid}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_appears_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.folded");
        let output = OutputFile::open(&path, None).unwrap();
        assert!(!path.exists());
        assert_eq!(output.write(b"x 1\n").unwrap(), Saved::InPlace);
        assert_eq!(std::fs::read(&path).unwrap(), b"x 1\n");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn dropped_file_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        drop(OutputFile::open(&directory.path().join("a.folded"), None).unwrap());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn wrong_places_are_errors_at_once() {
        assert!(OutputFile::open(Path::new("/no/such/directory/a.svg"), None).is_err());
        assert!(OutputFile::open(Path::new("/"), None).is_err());
    }

    #[test]
    fn full_device_is_saved_elsewhere() {
        let output = OutputFile::open(Path::new("/dev/full"), None).unwrap();
        let Saved::Elsewhere { path, .. } = output.write(b"x 1\n").unwrap() else {
            panic!("took it")
        };
        assert_eq!(std::fs::read(&path).unwrap(), b"x 1\n");
        std::fs::remove_file(path).unwrap();
    }
}
