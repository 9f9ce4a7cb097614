//! Perf maps: files in which just-in-time compilers name their code, `/tmp/perf-PID.map` as the
//! process sees it. Layout: the kernel's `tools/perf/Documentation/jit-interface.txt`.
//!
//! Only a regular file is read that is the process's user's own, or root's, was written since the
//! process began, and is no symbolic link: anybody can lay files into `/tmp`.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::proc_fs;
use super::root::Root;

/// The time until a file that was missing is looked for again, at first and at most.
const MIN_WAIT: Duration = Duration::from_millis(20);
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Files kept open at most; further ones are opened when names are wanted, if they are still
/// there.
const MAX_OPEN_PERF_MAPS: usize = 1024;

/// The files that name one process's compiled code, while it lives and afterwards.
#[derive(Debug)]
struct PerfMapSource {
    /// The root directory that the path is of; nothing for memtap's own.
    root: Option<Arc<Root>>,
    path: PathBuf,
    owners: Vec<u32>,
    /// The start of the process in seconds since 1970, where that could be told.
    began_s: Option<i64>,
    file: Option<File>,
    next: Instant,
    wait: Duration,
}

/// The files that name all processes' compiled code.
#[derive(Debug, Default)]
pub struct PerfMaps {
    sources: HashMap<u32, PerfMapSource>,
    /// Children run what their parents had compiled.
    parents: HashMap<u32, u32>,
    own_root: Option<Arc<Root>>,
    open: usize,
}

impl PerfMaps {
    /// A process has mapped executable memory without a file: it may write a map.
    pub fn expect(&mut self, pid: u32, root: Option<Arc<Root>>) {
        if let std::collections::hash_map::Entry::Vacant(entry) = self.sources.entry(pid) {
            let Some(identity) = proc_fs::identity(pid) else {
                return;
            };
            entry.insert(PerfMapSource {
                root,
                path: PathBuf::from(format!("/tmp/perf-{}.map", identity.inner_pid)),
                owners: identity.users,
                began_s: proc_fs::began_s(pid),
                file: None,
                next: Instant::now(),
                wait: MIN_WAIT,
            });
        }
        self.look();
    }

    /// A process was made: it has its parent's code.
    pub fn forked(&mut self, parent: u32, child: u32) {
        if self.sources.contains_key(&parent) || self.parents.contains_key(&parent) {
            self.parents.insert(child, parent);
        }
    }

    /// A process executes another program: what it had compiled has gone, and its root may be
    /// another now.
    pub fn executed(&mut self, pid: u32) {
        self.parents.remove(&pid);
        if self.sources.get(&pid).is_some_and(|source| source.file.is_none()) {
            self.sources.remove(&pid);
        }
    }

    /// Evicts a process.
    pub fn evict(&mut self, pid: u32) {
        if self
            .sources
            .remove(&pid)
            .is_some_and(|source| source.file.is_some())
        {
            self.open -= 1;
        }
        self.parents.remove(&pid);
    }

    /// Opens the files that have come to be, so that they can be read when their processes have
    /// removed them.
    pub fn look(&mut self) {
        let now = Instant::now();
        if self.own_root.is_none() {
            self.own_root = Root::of("self").ok().map(Arc::new);
        }
        for source in self.sources.values_mut() {
            if source.file.is_some() || source.next > now || self.open >= MAX_OPEN_PERF_MAPS {
                continue;
            }
            source.file = source.open(self.own_root.as_deref());
            if source.file.is_some() {
                self.open += 1;
            }
            source.next = now + source.wait;
            source.wait = (source.wait * 2).min(MAX_WAIT);
        }
    }

    /// The files that name the code of a process: its own, and those of the processes that it was
    /// made by.
    #[must_use]
    pub fn files(&self, pid: u32) -> Vec<File> {
        let mut files = Vec::new();
        let mut next = Some(pid);
        let mut seen = Vec::new();
        while let Some(pid) = next.filter(|pid| !seen.contains(pid)) {
            if let Some(source) = self.sources.get(&pid) {
                let kept = source.file.as_ref().and_then(|file| file.try_clone().ok());
                files.extend(kept.or_else(|| source.open(self.own_root.as_deref())));
            }
            seen.push(pid);
            next = self.parents.get(&pid).copied();
        }
        files
    }
}

impl PerfMapSource {
    fn open(&self, own: Option<&Root>) -> Option<File> {
        let root = self.root.as_deref().or(own)?;
        let file = root.open(&self.path, false).ok()?;
        let metadata = file.metadata().ok()?;
        let shown = self.path.display();
        if metadata.uid() != 0 && !self.owners.contains(&metadata.uid()) {
            log::debug!(
                "{shown}: not read: it belongs to user {}, the process does not",
                metadata.uid()
            );
            return None;
        }
        // Clocks of file systems tick in hundredths of a second, and boot time is known in whole
        // ones.
        if self.began_s.is_some_and(|began_s| metadata.mtime() + 2 < began_s) {
            log::debug!("{shown}: not read: it was written before the process began");
            return None;
        }
        log::debug!("{shown}: names of compiled code");
        Some(file)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn own_map() -> PathBuf {
        PathBuf::from(format!("/tmp/perf-{}.map", std::process::id()))
    }

    #[test]
    fn map_is_kept_when_it_is_removed_and_links_are_not_followed() {
        let pid = std::process::id();
        let path = own_map();
        let mut maps = PerfMaps::default();
        maps.expect(pid, None);
        assert!(maps.files(pid).is_empty(), "there is none yet");

        let real = tempfile::NamedTempFile::new().expect("room");
        std::os::unix::fs::symlink(real.path(), &path).expect("a link");
        assert!(maps.files(pid).is_empty(), "a link is not followed");
        std::fs::remove_file(&path).expect("ours");

        let mut file = File::create(&path).expect("room");
        std::thread::sleep(MIN_WAIT * 2);
        maps.look();
        file.write_all(b"10 8 f\n").expect("room");
        std::fs::remove_file(&path).expect("ours");
        let kept = maps.files(pid);
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].metadata().expect("open").len(), 7);

        maps.forked(pid, 1);
        assert_eq!(maps.files(1).len(), 1, "a child runs its parent's code");
        maps.executed(1);
        assert!(maps.files(1).is_empty());
        maps.evict(pid);
        assert!(maps.files(pid).is_empty());
    }

    #[test]
    fn old_map_of_another_process_is_not_read() {
        let file = tempfile::NamedTempFile::new().expect("room");
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(1000);
        file.as_file().set_modified(long_ago).expect("ours");
        let mut source = PerfMapSource {
            root: None,
            path: file.path().to_path_buf(),
            owners: Vec::new(),
            began_s: proc_fs::began_s(std::process::id()),
            file: None,
            next: Instant::now(),
            wait: MIN_WAIT,
        };
        let root = Root::of("self").expect("ours");
        assert!(source.open(Some(&root)).is_none());
        source.began_s = None;
        let owner = file.as_file().metadata().expect("open").uid();
        source.owners = vec![owner];
        assert!(source.open(Some(&root)).is_some());
    }
}
