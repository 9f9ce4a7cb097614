//! Paths that exist already: devices, pipes and descriptors, which are written to directly, and
//! names that somebody else has taken.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::{OutputError, directory_of};

/// Symbolic links that are followed to a device or a pipe.
const MAX_LINKS: usize = 8;

/// Opens what exists at a path and is no regular file: a device, a pipe, a descriptor of memtap's;
/// nothing where a new file takes the path.
pub(super) fn open(path: &Path, uid: u32) -> Result<Option<File>, OutputError> {
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
pub(super) fn may_replace(path: &Path, directory: &Path, uid: u32) -> Result<(), OutputError> {
    const STICKY: u32 = 0o1000;
    let (Ok(file), Ok(directory)) = (std::fs::symlink_metadata(path), directory.metadata()) else {
        return Ok(());
    };
    if uid != 0 && directory.mode() & STICKY != 0 && directory.uid() != uid && file.uid() != uid {
        return Err(OutputError::ForeignFile(file.uid()));
    }
    Ok(())
}
