//! The cache of debuginfod clients, laid out as elfutils and GDB lay it out (debuginfod-find(1)):
//! for each build id a directory with a file `debuginfo`, which is empty where no server had any.
//!
//! It belongs to the user who called `sudo`: their debugger looks there too, and root has no
//! business with files below a directory that somebody else may replace. So the files are read and
//! written with that user's rights.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::elf::BuildId;
use crate::privileges::FileRights;
use crate::settings::Owner;

/// The lifetime of a note that servers have nothing for a build ID; elfutils' `cache_miss_s`.
const MISS_LASTS: Duration = Duration::from_mins(10);

/// The result of a look-up in the cache.
#[derive(Debug)]
pub(super) enum Cached {
    File(File),
    /// No server had anything, lately.
    Miss,
    Nothing,
}

/// The cache of one user.
#[derive(Debug)]
pub(super) struct Cache {
    directory: PathBuf,
    owner: Option<Owner>,
}

impl Cache {
    pub(super) fn new(directory: PathBuf, owner: Option<Owner>) -> Self {
        Self { directory, owner }
    }

    /// The owner's rights for files; nothing where they are memtap's own.
    fn rights(&self) -> io::Result<Option<FileRights>> {
        let owner = self.owner.as_ref();
        owner
            .map(|owner| FileRights::of(owner.uid, owner.gid, &owner.groups))
            .transpose()
    }

    /// The path of what there is, or may be, for a build id.
    pub(super) fn path(&self, id: &BuildId) -> PathBuf {
        self.directory.join(id.to_string()).join("debuginfo")
    }

    /// Looks for what was downloaded before.
    pub(super) fn get(&self, id: &BuildId) -> Cached {
        let Ok(_rights) = self.rights() else {
            return Cached::Nothing;
        };
        let path = self.path(id);
        let Ok(file) = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
        else {
            return Cached::Nothing;
        };
        match file.metadata() {
            Ok(metadata) if !metadata.is_file() => Cached::Nothing,
            Ok(metadata) if metadata.len() > 0 => Cached::File(file),
            Ok(metadata) => {
                let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
                // A clock that was put back makes no miss last for ever.
                if age.is_some_and(|age| age < MISS_LASTS) {
                    Cached::Miss
                } else {
                    Cached::Nothing
                }
            }
            Err(_) => Cached::Nothing,
        }
    }

    /// A file to download into, beside where it will be.
    pub(super) fn begin(&self, id: &BuildId) -> io::Result<NamedTempFile> {
        let _rights = self.rights()?;
        let directory = self.directory.join(id.to_string());
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        tempfile::Builder::new()
            .prefix("debuginfo.")
            .tempfile_in(directory)
    }

    /// Puts a download in its place, whole.
    pub(super) fn keep(&self, id: &BuildId, file: NamedTempFile) -> io::Result<File> {
        let _rights = self.rights()?;
        file.persist(self.path(id)).map_err(|error| error.error)
    }

    /// Remembers that no server had anything.
    pub(super) fn note_miss(&self, id: &BuildId) {
        let noted = self.begin(id).and_then(|file| self.keep(id, file));
        if let Err(error) = noted {
            log::debug!("{}: {error}", self.path(id).display());
        }
    }

    /// Takes a file out that is no use.
    pub(super) fn remove(&self, id: &BuildId) {
        let path = self.path(id);
        let removed = self.rights().and_then(|_rights| std::fs::remove_file(&path));
        if let Err(error) = removed {
            log::debug!("failed to remove {}: {error}", path.display());
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn file_is_kept_and_a_miss_lasts_for_a_while() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache::new(directory.path().join("client"), None);
        let id = BuildId::new(&[0xab, 0xcd]).expect("an id");
        assert!(matches!(cache.get(&id), Cached::Nothing));
        cache.note_miss(&id);
        assert!(matches!(cache.get(&id), Cached::Miss));
        let old = std::time::SystemTime::now() - MISS_LASTS * 2;
        let empty = OpenOptions::new()
            .write(true)
            .open(cache.path(&id))
            .expect("ours");
        empty.set_modified(old).expect("ours");
        assert!(matches!(cache.get(&id), Cached::Nothing));

        let mut file = cache.begin(&id).expect("room");
        file.write_all(b"x").expect("room");
        cache.keep(&id, file).expect("room");
        assert!(matches!(cache.get(&id), Cached::File(_)));
        assert!(cache.path(&id).ends_with("client/abcd/debuginfo"));
        cache.remove(&id);
        assert!(matches!(cache.get(&id), Cached::Nothing));
    }

    const NOBODY: Owner = Owner {
        uid: 65534,
        gid: 65534,
        groups: Vec::new(),
    };

    #[test]
    fn files_are_the_owners() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::os::unix::fs::chown(directory.path(), Some(65534), Some(65534)).expect("root");
        let cache = Cache::new(directory.path().join("client"), Some(NOBODY));
        let id = BuildId::new(&[1, 2]).expect("an id");
        let file = cache.begin(&id).expect("room");
        let metadata = cache.keep(&id, file).expect("room").metadata().expect("open");
        assert_eq!((metadata.uid(), metadata.gid()), (65534, 65534));
        // And root again.
        let own = tempfile::tempfile().expect("room").metadata().expect("open");
        assert_eq!(own.uid(), 0);
        // Where the owner may not write, nobody does.
        let closed = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache::new(closed.path().join("client"), Some(NOBODY));
        assert!(cache.begin(&id).is_err());
    }
}
