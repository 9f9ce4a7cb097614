//! The files that targets map, kept open: a file that is deleted, replaced or in a namespace that
//! has gone can still be read.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracer_ebpf::FileKey;

use super::contents::Contents;
use super::maps::{self, FileId, Mapping};
use super::root::{Root, RootId};

/// Files kept open at most; further ones are opened when they are needed, if they are still
/// there.
const MAX_OPEN_FILES: usize = 4096;

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

/// The open files.
#[derive(Debug, Default)]
pub struct Files {
    open: HashMap<FileId, Option<Arc<MappedFile>>>,
    roots: HashMap<RootId, Arc<Root>>,
    own_root: Option<RootId>,
}

impl Files {
    /// Lifts this process's limit of open files to what it may have.
    pub fn raise_limit() {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            log::debug!("failed to raise the limit of open files: {error}");
        }
    }

    /// The file of a process's mapping; nothing for memory without a file, or where the file cannot
    /// be had any more.
    pub fn of_mapping(&mut self, pid: u32, mapping: &Mapping) -> Option<Arc<MappedFile>> {
        if mapping.file.inode == 0 {
            return None;
        }
        match self.open.get(&mapping.file) {
            // What is mapped now may be another program in the file of the old one.
            Some(Some(known)) if known.contents.was_written_to(&known.file) => {}
            Some(known) => return known.clone(),
            None => {}
        }
        let root = self.root_of(pid);
        let file = open(pid, mapping, root.as_ref(), &self.roots).map(Arc::new);
        if self.open.len() < MAX_OPEN_FILES {
            self.open.insert(mapping.file, file.clone());
        }
        file
    }

    /// The root directory of a process, where it is another than memtap's own; nothing, too, where
    /// it has gone.
    pub fn root_of(&mut self, pid: u32) -> Option<Arc<Root>> {
        if self.own_root.is_none() {
            self.own_root = RootId::of("self");
        }
        let process = pid.to_string();
        let id = RootId::of(&process).filter(|id| Some(*id) != self.own_root)?;
        if let Some(known) = self.roots.get(&id) {
            return Some(Arc::clone(known));
        }
        let root = Arc::new(Root::of(&process).ok()?);
        self.roots.insert(id, Arc::clone(&root));
        Some(root)
    }

    /// A file that a process is going to map, by its path here.
    pub fn of_path(&mut self, path: &Path) -> std::io::Result<Arc<MappedFile>> {
        let file = File::open(path)?;
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
        });
        self.open.insert(id, Some(Arc::clone(&mapped)));
        Ok(mapped)
    }
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
    let file_system = rustix::fs::fstatfs(file).ok()?;
    (file_system.f_type != libc::OVERLAYFS_SUPER_MAGIC).then(|| metadata.dev())
}

/// The identity that a mapping of the file has. `stat` has another one where a file system lies
/// over others: the file that is mapped is then the one below.
fn identity(file: &File) -> std::io::Result<FileId> {
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
    found?.ok_or_else(|| std::io::Error::other("a file that was mapped is not among the mappings"))
}

/// Opens the file behind a mapping. `map_files` leads to the very file, also when it was deleted;
/// the path in the process's root does while it has not been replaced, which the inode's number
/// tells; so does, for a process that has gone, the path here, or in the root that another process
/// has or had: most processes of a container live for a moment.
fn open(
    pid: u32,
    mapping: &Mapping,
    root: Option<&Arc<Root>>,
    roots: &HashMap<RootId, Arc<Root>>,
) -> Option<MappedFile> {
    let exact = format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end);
    let in_roots = || {
        let relative = mapping.path.strip_prefix("/").ok()?;
        let in_root = Path::new("/proc")
            .join(pid.to_string())
            .join("root")
            .join(relative);
        let named = [in_root, mapping.path.clone()].into_iter().find_map(|path| {
            let file = File::open(path).ok()?;
            (file.metadata().ok()?.ino() == mapping.file.inode || is_mapped_as(&file, mapping))
                .then_some(file)
        });
        named.map(|file| (file, root.cloned())).or_else(|| {
            roots.values().find_map(|other| {
                let file = other.open(&mapping.path, true).ok()?;
                is_mapped_as(&file, mapping).then(|| (file, Some(Arc::clone(other))))
            })
        })
    };
    let (file, root) = match File::open(exact) {
        Ok(file) => (file, root.cloned()),
        Err(_) => in_roots()?,
    };
    let metadata = file.metadata().ok()?;
    Some(MappedFile {
        id: mapping.file,
        key: key_of(&metadata),
        device: device_of(&file, &metadata),
        path: mapping.path.clone(),
        root,
        contents: Contents::read(&file, &metadata),
        file,
    })
}

/// Returns true if this file is the mapped one, where `stat` may tell another number: overlayfs
/// shows that of the lower layer's file when what is mapped is a copy of it in the upper one.
fn is_mapped_as(file: &File, mapping: &Mapping) -> bool {
    identity(file).is_ok_and(|found| found == mapping.file)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
