//! The files that targets map, kept open: a file that is deleted, replaced or in a namespace that
//! has gone can still be read.

use std::collections::{HashMap, HashSet};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::fs::{major, minor};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use tracer_ebpf::FileKey;

use super::contents::Contents;
use super::descriptors::{DescriptorSlot, Descriptors};
use super::foreign_files::{self, UnfitFile};
use super::maps::{self, FileId, Mapping};
use super::root::{Root, RootId};

/// An open file that some process has mapped.
#[derive(Debug)]
pub struct MappedFile {
    /// The identity of the file.
    pub id: FileId,
    /// The identity of the file on the kernel side.
    pub key: FileKey,
    /// The device of the inode that has the data; nothing for a file of overlayfs, which shows
    /// another.
    pub device: Option<u64>,
    /// Its path as the process that mapped it first sees it.
    pub path: PathBuf,
    /// The root directory that the path is of, where that is not memtap's own.
    pub root: Option<Arc<Root>>,
    /// The facts read from it when it was opened.
    pub contents: Contents,
    file: File,
    _slot: DescriptorSlot,
}

impl MappedFile {
    /// A path that opens this very file, whatever has become of its name.
    #[must_use]
    pub fn open_path(&self) -> PathBuf {
        open_path(&self.file)
    }

    /// The open file. Its position is nobody's.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns true if it was overwritten since it was opened, and holds another program or library
    /// now.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.contents.has_changed(&self.file)
    }

    /// The last part of its path.
    #[must_use]
    pub fn base_name(&self) -> String {
        self.path
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }
}

/// A path that opens a file which is open, whatever has become of its name.
#[must_use]
pub fn open_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A root directory is kept for so long after its last use: most processes of a container live for
/// a moment, and the next one has files in it too.
const ROOT_LINGER: Duration = Duration::from_secs(5);

/// Root directories kept at most.
const MAX_ROOTS: usize = 256;

/// A file that was opened by its path is kept for so long: a command maps its libraries when it
/// begins, and may delete one before the record of that is read.
const PATH_LINGER: Duration = Duration::from_secs(10);

/// The time that a file system may take to open a file. A disk that has to be woken takes less, and
/// the recording waits.
const OPEN_LIMIT: Duration = Duration::from_secs(5);

/// Files that are left out by name at most; a process can map any number of them.
const MAX_NAMED: u32 = 8;

/// The files that are open. Whoever uses one keeps it open; with its last user it is closed, so
/// that a file system which nobody uses any more can be unmounted.
#[derive(Debug, Default)]
pub struct Files {
    known: HashMap<FileId, KnownFile>,
    /// Those that were opened by their paths a short while ago.
    expected: Vec<(Arc<MappedFile>, Instant)>,
    roots: HashMap<RootId, (Arc<Root>, Instant)>,
    own_root: Option<RootId>,
    descriptors: Descriptors,
    /// Devices of file systems that did not answer in time.
    unresponsive: HashSet<(u32, u32)>,
    /// Files that were left out by name.
    named: u32,
}

/// The outcome of opening a file.
#[derive(Debug)]
enum KnownFile {
    Open(Weak<MappedFile>),
    /// It could not be opened, so many times: the process may have gone, and the next one that maps
    /// the file may live longer.
    Missed(u32),
    /// It is not to be read.
    Unfit,
}

/// Times that a file is tried to be opened.
const MAX_MISSES: u32 = 32;

impl Files {
    /// The file of a process's mapping; nothing for memory without a file, or where the file cannot
    /// be had any more, or is not to be read.
    pub fn of_mapping(&mut self, pid: u32, mapping: &Mapping) -> Option<Arc<MappedFile>> {
        if mapping.file.inode == 0 {
            return None;
        }
        let misses = match self.known.get(&mapping.file) {
            Some(KnownFile::Unfit | KnownFile::Missed(MAX_MISSES)) => return None,
            Some(KnownFile::Missed(misses)) => *misses,
            Some(KnownFile::Open(known)) => {
                // What is mapped now may be another program in the file of the old one.
                if let Some(known) = known.upgrade()
                    && !known.contents.was_written_to(&known.file)
                {
                    return Some(known);
                }
                0
            }
            None => 0,
        };
        let slot = self.descriptors.take(pid)?;
        let file = self.open(pid, mapping, slot);
        let known = match &file {
            Ok(file) => KnownFile::Open(Arc::downgrade(file)),
            Err(error) => {
                self.leave_out(&mapping.path, error);
                match error.kind() {
                    io::ErrorKind::NotFound => KnownFile::Missed(misses + 1),
                    _ => KnownFile::Unfit,
                }
            }
        };
        self.known.insert(mapping.file, known);
        file.ok()
    }

    /// Opens a file, and reads its headers, on a thread: a file system whose server has gone, or
    /// does not want to, may never answer.
    fn open(&mut self, pid: u32, mapping: &Mapping, slot: DescriptorSlot) -> io::Result<Arc<MappedFile>> {
        let unresponsive = || io::Error::from(io::ErrorKind::TimedOut);
        let device = mapping.file.device;
        if self.unresponsive.contains(&device) {
            return Err(unresponsive());
        }
        let root = self.root_of(pid);
        let others: Vec<Arc<Root>> = self.roots.values().map(|(root, _)| Arc::clone(root)).collect();
        let wanted = mapping.clone();
        let opened = within(OPEN_LIMIT, move || {
            let (file, root) = open(pid, &wanted, root.as_ref(), &others)?;
            mapped_file(&wanted, file, root, slot)
        });
        opened.unwrap_or_else(|| {
            self.unresponsive.insert(device);
            Err(unresponsive())
        })
    }

    /// Says why a file is not read.
    fn leave_out(&mut self, path: &Path, error: &io::Error) {
        let shown = path.display();
        let is_worth_saying = matches!(UnfitFile::of(error), Some(UnfitFile::Sparse { .. }))
            || error.kind() == io::ErrorKind::TimedOut;
        if !is_worth_saying || self.named > MAX_NAMED {
            log::debug!("{shown} is not read: {error}");
            return;
        }
        self.named += 1;
        if self.named > MAX_NAMED {
            log::warn!("further files of that kind are left out too; -v names them");
        } else {
            log::warn!("{shown} is left out, and its functions have no names: {error}");
        }
    }

    /// The root directory of a process, where it is another than memtap's own; nothing, too, where
    /// it has gone.
    pub fn root_of(&mut self, pid: u32) -> Option<Arc<Root>> {
        if self.own_root.is_none() {
            self.own_root = RootId::of("self");
        }
        let process = pid.to_string();
        let id = RootId::of(&process).filter(|id| Some(*id) != self.own_root)?;
        if let Some((known, used)) = self.roots.get_mut(&id) {
            *used = Instant::now();
            return Some(Arc::clone(known));
        }
        let root = Arc::new(Root::of(&process).ok()?);
        if self.roots.len() < MAX_ROOTS {
            self.roots.insert(id, (Arc::clone(&root), Instant::now()));
        }
        Some(root)
    }

    /// Forgets the files that nobody uses any more, and root directories some time after.
    pub fn forget_unused(&mut self) {
        self.expected.retain(|(_, opened)| opened.elapsed() < PATH_LINGER);
        self.known.retain(|_, known| match known {
            KnownFile::Open(file) => file.strong_count() > 0,
            KnownFile::Missed(_) | KnownFile::Unfit => true,
        });
        self.roots
            .retain(|_, (root, used)| Arc::strong_count(root) > 1 || used.elapsed() < ROOT_LINGER);
        self.descriptors.forget_unused();
    }

    /// A file that a process is going to map, by its path here. It stays open for some seconds.
    pub fn of_path(&mut self, path: &Path) -> io::Result<Arc<MappedFile>> {
        let slot = self.descriptors.take(std::process::id());
        let slot = slot.ok_or_else(|| io::Error::other("too many files are open"))?;
        let file = foreign_files::open_here(path)?;
        let id = identity(&file)?;
        let metadata = file.metadata()?;
        let mapped = Arc::new(MappedFile {
            id,
            key: key_of(&metadata),
            device: device_of(&file, &metadata),
            path: path.to_path_buf(),
            root: None,
            contents: Contents::read(&file, &metadata),
            file,
            _slot: slot,
        });
        self.known.insert(id, KnownFile::Open(Arc::downgrade(&mapped)));
        self.expected.push((Arc::clone(&mapped), Instant::now()));
        Ok(mapped)
    }
}

/// Does something on a thread; returns nothing where it takes too long, and leaves the thread
/// alone.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = channel();
    let work = move || {
        if sender.send(work()).is_err() {
            log::debug!("a file was opened too late");
        }
    };
    // Without a thread, nothing is opened either.
    let worker = std::thread::Builder::new().name("memtap-open".to_owned());
    worker.spawn(work).ok()?;
    receiver.recv_timeout(limit).ok()
}

fn mapped_file(
    mapping: &Mapping,
    file: File,
    root: Option<Arc<Root>>,
    slot: DescriptorSlot,
) -> io::Result<Arc<MappedFile>> {
    let metadata = file.metadata()?;
    Ok(Arc::new(MappedFile {
        id: mapping.file,
        key: key_of(&metadata),
        device: device_of(&file, &metadata),
        path: mapping.path.clone(),
        root,
        contents: Contents::read(&file, &metadata),
        file,
        _slot: slot,
    }))
}

/// The key of a file, from what `stat` says.
fn key_of(metadata: &Metadata) -> FileKey {
    FileKey {
        inode: metadata.ino(),
        size_bytes: metadata.len(),
        modified_s: metadata.mtime(),
    }
}

/// The device of a file's data, where `stat` tells it.
fn device_of(file: &File, metadata: &Metadata) -> Option<u64> {
    (!is_of_overlay(file)).then(|| metadata.dev())
}

/// Returns true for a file of overlayfs, or where that cannot be told.
fn is_of_overlay(file: &File) -> bool {
    rustix::fs::fstatfs(file).map_or(true, |file_system| {
        file_system.f_type == libc::OVERLAYFS_SUPER_MAGIC
    })
}

/// The identity that a mapping of the file has. `stat` has another one where a file system lies
/// over others: the file that is mapped is then the one below.
fn identity(file: &File) -> io::Result<FileId> {
    // SAFETY: a new private mapping at an address that the kernel chooses; nothing reads through
    // it.
    let base = unsafe {
        mmap(
            std::ptr::null_mut(),
            1,
            ProtFlags::READ,
            MapFlags::PRIVATE,
            file,
            0,
        )
    }?;
    let found = maps::file_at(base as u64);
    // SAFETY: the mapping was made above, and nothing refers to it.
    if let Err(error) = unsafe { munmap(base, 1) } {
        log::debug!("failed to unmap a file: {error}");
    }
    found?.ok_or_else(|| io::Error::other("a file that was mapped is not among the mappings"))
}

/// Opens the file behind a mapping. `map_files` leads to the very file, also when it was deleted;
/// the path in the process's root does while it has not been replaced, which its identity tells; so
/// does, for a process that has gone, the path here, or in the root that another process has or
/// had: most processes of a container live for a moment.
fn open(
    pid: u32,
    mapping: &Mapping,
    root: Option<&Arc<Root>>,
    others: &[Arc<Root>],
) -> io::Result<(File, Option<Arc<Root>>)> {
    let exact = format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end);
    let mut failed = match foreign_files::open_here(Path::new(&exact)) {
        // It may have mapped another one there since. Of a file of overlayfs, kernels do not tell
        // the same in all places.
        Ok(file) if is_mapped_as(&file, mapping) || is_of_overlay(&file) => {
            return Ok((file, root.cloned()));
        }
        Ok(_) => io::Error::other("it was replaced"),
        Err(error) => error,
    };
    let own = Root::of("self")?;
    let places = root.into_iter().map(|root| (&**root, Some(root)));
    let places = places.chain([(&own, None)]);
    for (place, kept) in places.chain(others.iter().map(|root| (&**root, Some(root)))) {
        match place.open(&mapping.path, true) {
            Ok(file) if is_mapped_as(&file, mapping) => return Ok((file, kept.cloned())),
            // That a file is unfit says more than that there is none elsewhere.
            Err(error) if UnfitFile::of(&failed).is_none() => failed = error,
            Ok(_) | Err(_) => {}
        }
    }
    Err(failed)
}

/// Returns true if this file is the mapped one, where `stat` may tell another number: overlayfs
/// shows that of the lower layer's file when what is mapped is a copy of it in the upper one.
fn is_mapped_as(file: &File, mapping: &Mapping) -> bool {
    let FileId { device, inode } = mapping.file;
    let is_same = |metadata: Metadata| {
        let number = metadata.dev();
        metadata.ino() == inode && (major(number), minor(number)) == device
    };
    file.metadata().is_ok_and(is_same) || identity(file).is_ok_and(|found| found == mapping.file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_takes_too_long_is_left() {
        assert_eq!(within(OPEN_LIMIT, || 7), Some(7));
        let (end, ended) = channel::<()>();
        assert_eq!(
            within(Duration::from_millis(10), move || ended.recv().is_ok()),
            None
        );
        drop(end);
    }

    #[test]
    fn file_has_one_key_by_its_path_and_by_its_mapping() {
        let exe = std::env::current_exe().expect("named");
        let mut files = Files::default();
        let by_path = files.of_path(&exe).expect("readable");
        let mappings = maps::executable_mappings(std::process::id()).expect("readable");
        let mapping = mappings
            .iter()
            .find(|mapping| mapping.path == exe)
            .expect("mapped");
        let by_mapping = Files::default()
            .of_mapping(std::process::id(), mapping)
            .expect("still there");
        assert_eq!(by_path.key, by_mapping.key);
        assert_eq!(
            by_path.key.size_bytes,
            std::fs::metadata(&exe).expect("there").len()
        );
        assert!(by_path.key.inode != 0 && by_path.key.modified_s > 0);
    }

    #[test]
    fn file_that_is_deleted_once_it_is_mapped_was_opened_by_its_path() {
        let copy = tempfile::NamedTempFile::new().expect("room");
        std::fs::copy("/proc/self/exe", copy.path()).expect("room");
        let mut files = Files::default();
        let opened = files.of_path(copy.path()).expect("opens");
        let mapping = maps::Mapping {
            start: 0,
            end: 4096,
            file_offset: 0,
            file: opened.id,
            path: copy.path().to_path_buf(),
        };
        drop(opened);
        copy.close().expect("ours");
        files.forget_unused();
        assert!(files.of_mapping(u32::MAX, &mapping).is_some());
    }

    #[test]
    fn file_of_a_process_that_has_gone_is_tried_again() {
        const NOBODY: u32 = u32::MAX;
        let own = std::process::id();
        let mappings = maps::executable_mappings(own).expect("readable");
        let exe = std::env::current_exe().expect("named");
        let is_exe = |mapping: &&maps::Mapping| mapping.path == exe;
        let mapping = mappings.iter().find(is_exe).expect("mapped");
        let gone = maps::Mapping {
            path: "/nowhere/to/be/found".into(),
            ..mapping.clone()
        };
        let mut files = Files::default();
        assert!(files.of_mapping(NOBODY, &gone).is_none());
        assert!(files.of_mapping(own, mapping).is_some());

        let mut files = Files::default();
        for _ in 0..MAX_MISSES {
            assert!(files.of_mapping(NOBODY, &gone).is_none());
        }
        assert!(files.of_mapping(own, mapping).is_none());
    }
}
