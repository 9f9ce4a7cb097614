//! The memory of processes: what each had mapped at any time, also after its end.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use tracer_ebpf::FileKey;

use super::files::{Files, MappedFile};
use super::maps::{self, FileId, Mapping};
use super::perf_maps::PerfMaps;
use super::proc_fs;
use super::sideband::{ProcessEvent, TimedProcessEvent};

/// A program that a process executes: from exec, or fork, to the next exec or the end.
#[derive(Debug, Clone)]
pub struct ProcessImage {
    /// The start, in nanoseconds of `CLOCK_MONOTONIC`; 0 for an image from before tracing began.
    pub since_ns: u64,
    /// The name of the process.
    pub comm: String,
    /// The executable.
    pub exe: Option<PathBuf>,
    mappings: Vec<TimedMapping>,
}

#[derive(Debug, Clone)]
struct TimedMapping {
    since_ns: u64,
    mapping: Mapping,
    file: Option<Arc<MappedFile>>,
}

/// The file and the offset that an address was mapped from.
#[derive(Debug, Clone)]
pub struct MappedAddress {
    /// The file that is mapped there, if it can be read.
    pub file: Option<Arc<MappedFile>>,
    /// The path as the process sees it.
    pub path: PathBuf,
    /// True if a just-in-time compiler may have written the code there.
    pub is_compiled: bool,
    /// The offset in the file.
    pub file_offset: u64,
}

/// Returns true if code in a mapping was compiled at run time: memory without a file and without a
/// name of the kernel's, or a file in memory that is no program.
fn is_compiled(mapping: &Mapping, file: Option<&MappedFile>) -> bool {
    let path = mapping.path.as_os_str().as_bytes();
    let in_memory = [
        &b"/memfd:"[..],
        b"/dev/zero",
        b"/dev/shm/",
        b"/SYSV",
        b"/anon_hugepage",
    ];
    match file {
        Some(file) => {
            file.contents.segments.is_none() && in_memory.iter().any(|prefix| path.starts_with(prefix))
        }
        // `[anon:NAME]` is memory that the process gave a name.
        None => path.is_empty() || path.starts_with(b"[anon") || path == b"[heap]" || path == b"[stack]",
    }
}

/// The most mappings that are kept of an image: of a process in scope those that have gone too,
/// since stacks from before lead through them. A program that maps code again and again would fill
/// the memory else.
const MAX_MAPPINGS: usize = 16_384;

/// The same of other processes, of which the present ones matter.
const MAX_MAPPINGS_OF_OTHERS: usize = 1024;

impl ProcessImage {
    /// Drops the mappings that are there no more, if the present ones are known, and of those that
    /// are left the oldest if they are more than half of `most`.
    fn compact(&mut self, present: Option<&[Mapping]>, most: usize) {
        let key = |mapping: &Mapping| (mapping.start, mapping.file_offset, mapping.file);
        // The last of several at one place is the present one.
        self.mappings.reverse();
        if let Some(present) = present {
            let mut present: HashSet<(u64, u64, FileId)> = present.iter().map(key).collect();
            self.mappings.retain(|timed| present.remove(&key(&timed.mapping)));
        }
        self.mappings.truncate(most / 2);
        self.mappings.reverse();
    }
}

#[derive(Debug, Default)]
struct Lifetime {
    images: Vec<ProcessImage>,
    exited: bool,
    /// Its files are opened.
    is_in_scope: bool,
}

/// The processes that come into scope by themselves. Files of others are not opened: they are none
/// of memtap's business, and to hold one is to keep its file system from being unmounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum NewInScope {
    /// None.
    #[default]
    None,
    /// Children of those that are.
    Children,
    /// All.
    All,
}

/// The images and mappings of processes, running and exited.
#[derive(Debug, Default)]
pub struct ProcessHistory {
    files: Files,
    by_pid: HashMap<u32, Lifetime>,
    perf_maps: PerfMaps,
    new_in_scope: NewInScope,
}

impl ProcessHistory {
    /// Returns an empty history of processes of which these come into scope by themselves.
    pub(crate) fn new(new_in_scope: NewInScope) -> Self {
        Self {
            new_in_scope,
            ..Self::default()
        }
    }

    /// Reads the mappings of a running process, and takes it into scope. Images known from earlier
    /// records are kept.
    pub fn snapshot(&mut self, pid: u32) -> std::io::Result<()> {
        let mappings = maps::executable_mappings(pid)?;
        let mut image = ProcessImage {
            since_ns: 0,
            comm: proc_fs::comm(pid)?,
            exe: proc_fs::exe(pid),
            mappings: Vec::new(),
        };
        for mapping in mappings {
            let file = self.files.of_mapping(pid, &mapping);
            self.note_code(pid, &mapping, file.as_deref());
            image.mappings.push(TimedMapping {
                since_ns: 0,
                mapping,
                file,
            });
        }
        let lifetime = self.by_pid.entry(pid).or_default();
        lifetime.exited = false;
        lifetime.is_in_scope = true;
        lifetime.images.insert(0, image);
        Ok(())
    }

    /// Takes a process into scope: opens the files that it has mapped, and returns them. Nothing
    /// happens where it is already, or is not known.
    pub(crate) fn take_in(&mut self, pid: u32) -> Vec<Arc<MappedFile>> {
        let Some(lifetime) = self.by_pid.get_mut(&pid).filter(|it| !it.is_in_scope) else {
            return Vec::new();
        };
        lifetime.is_in_scope = true;
        let mut opened = Vec::new();
        let images = lifetime.images.iter_mut();
        for timed in images.flat_map(|image| &mut image.mappings) {
            if timed.file.is_none() {
                timed.file = self.files.of_mapping(pid, &timed.mapping);
                opened.extend(timed.file.clone());
            }
            if is_compiled(&timed.mapping, timed.file.as_deref()) {
                let root = self.files.root_of(pid);
                self.perf_maps.expect(pid, root);
            }
        }
        opened
    }

    /// Returns true if a process's files are opened.
    pub(crate) fn is_in_scope(&self, pid: u32) -> bool {
        self.by_pid.get(&pid).is_some_and(|lifetime| lifetime.is_in_scope)
    }

    /// Closes the files of the processes that are out of scope: all but those that `is_in_scope`
    /// says.
    pub(crate) fn close_others(&mut self, is_in_scope: impl Fn(u32) -> bool) {
        for (pid, lifetime) in &mut self.by_pid {
            if lifetime.is_in_scope && !is_in_scope(*pid) {
                lifetime.is_in_scope = false;
                self.perf_maps.evict(*pid);
                for timed in lifetime.images.iter_mut().flat_map(|image| &mut image.mappings) {
                    timed.file = None;
                }
            }
        }
        self.files.forget_unused();
    }

    /// Notes memory that code may be compiled into.
    fn note_code(&mut self, pid: u32, mapping: &Mapping, file: Option<&MappedFile>) {
        if is_compiled(mapping, file) {
            let root = self.files.root_of(pid);
            self.perf_maps.expect(pid, root);
        }
    }

    /// Returns the perf maps of just-in-time compilers.
    #[must_use]
    pub fn perf_maps(&self) -> &PerfMaps {
        &self.perf_maps
    }

    /// Returns true if anything is known of this process.
    #[must_use]
    pub fn knows(&self, pid: u32) -> bool {
        self.by_pid
            .get(&pid)
            .is_some_and(|lifetime| !lifetime.images.is_empty())
    }

    /// The open files.
    pub fn files(&mut self) -> &mut Files {
        &mut self.files
    }

    /// The files that a process's present image has mapped.
    #[must_use]
    pub fn mapped_files(&self, pid: u32) -> Vec<Arc<MappedFile>> {
        let image = self.by_pid.get(&pid).and_then(|lifetime| lifetime.images.last());
        let mappings = image.into_iter().flat_map(|image| &image.mappings);
        mappings.filter_map(|timed| timed.file.clone()).collect()
    }

    /// The files that any process's present image has mapped, each once.
    #[must_use]
    pub fn all_mapped_files(&self) -> Vec<Arc<MappedFile>> {
        let images = self.by_pid.values().filter_map(|lifetime| lifetime.images.last());
        let files = images
            .flat_map(|image| &image.mappings)
            .filter_map(|timed| timed.file.clone());
        let unique: HashMap<FileId, Arc<MappedFile>> = files.map(|file| (file.id, file)).collect();
        unique.into_values().collect()
    }

    /// The files that running processes have mapped; often the same.
    pub fn present_files(&self) -> impl Iterator<Item = FileKey> {
        let running = self.by_pid.values().filter(|lifetime| !lifetime.exited);
        let images = running.filter_map(|lifetime| lifetime.images.last());
        let mappings = images.flat_map(|image| &image.mappings);
        mappings.filter_map(|timed| timed.file.as_ref().map(|file| file.key))
    }

    /// Applies an event. Returns the file that it mapped, if it mapped one.
    pub fn apply(&mut self, event: TimedProcessEvent) -> Option<Arc<MappedFile>> {
        let TimedProcessEvent { time_ns, pid, what } = event;
        match what {
            ProcessEvent::Forked { parent } => {
                let parents = self.by_pid.get(&parent);
                let is_in_scope = match self.new_in_scope {
                    NewInScope::None => false,
                    NewInScope::Children => parents.is_some_and(|lifetime| lifetime.is_in_scope),
                    NewInScope::All => true,
                };
                let inherited = parents.and_then(|lifetime| lifetime.images.last());
                self.perf_maps.forked(parent, pid);
                // A process that was there before we looked: its child's mappings are its own.
                let image = ProcessImage {
                    since_ns: time_ns,
                    ..inherited?.clone()
                };
                self.by_pid.insert(
                    pid,
                    Lifetime {
                        images: vec![image],
                        exited: false,
                        is_in_scope,
                    },
                );
            }
            ProcessEvent::Executed { comm } => {
                self.perf_maps.executed(pid);
                let image = ProcessImage {
                    since_ns: time_ns,
                    comm,
                    exe: None,
                    mappings: Vec::new(),
                };
                let lifetime = self.by_pid.entry(pid).or_default();
                lifetime.exited = false;
                lifetime.is_in_scope |= self.new_in_scope == NewInScope::All;
                lifetime.images.push(image);
            }
            ProcessEvent::Renamed { comm } => {
                if let Some(image) = self
                    .by_pid
                    .get_mut(&pid)
                    .and_then(|lifetime| lifetime.images.last_mut())
                {
                    image.comm = comm;
                }
            }
            ProcessEvent::Mapped(mapping) => {
                let is_in_scope = self.by_pid.get(&pid)?.is_in_scope;
                let file = is_in_scope
                    .then(|| self.files.of_mapping(pid, &mapping))
                    .flatten();
                if is_in_scope {
                    self.note_code(pid, &mapping, file.as_deref());
                }
                let image = self.by_pid.get_mut(&pid)?.images.last_mut()?;
                if image.exe.is_none() && !mapping.path.as_os_str().is_empty() {
                    // The kernel maps the executable before its interpreter.
                    image.exe = Some(mapping.path.clone());
                }
                image.mappings.push(TimedMapping {
                    since_ns: time_ns,
                    mapping,
                    file: file.clone(),
                });
                let most = if is_in_scope {
                    MAX_MAPPINGS
                } else {
                    MAX_MAPPINGS_OF_OTHERS
                };
                if image.mappings.len() > most {
                    image.compact(maps::executable_mappings(pid).ok().as_deref(), most);
                }
                return file;
            }
            ProcessEvent::Exited => {
                if let Some(lifetime) = self.by_pid.get_mut(&pid) {
                    lifetime.exited = true;
                }
            }
        }
        None
    }

    /// Reads the mappings of a process in scope again, after records of it may have been lost.
    /// Returns the files that it has mapped meanwhile.
    pub(crate) fn refresh(&mut self, pid: u32, now_ns: u64) -> Vec<Arc<MappedFile>> {
        let present = maps::executable_mappings(pid).unwrap_or_default();
        let mut missed = Vec::new();
        for mapping in present {
            let image = self.by_pid.get(&pid).and_then(|lifetime| lifetime.images.last());
            let is_known = image.is_none_or(|image| {
                let at_address = |timed: &&TimedMapping| {
                    timed.mapping.start < mapping.end && mapping.start < timed.mapping.end
                };
                let last = image.mappings.iter().rev().find(at_address);
                last.is_some_and(|timed| timed.mapping == mapping)
            });
            if !is_known {
                missed.extend(self.apply(TimedProcessEvent {
                    time_ns: now_ns,
                    pid,
                    what: ProcessEvent::Mapped(mapping),
                }));
            }
        }
        missed
    }

    /// The image that a process had at a time.
    #[must_use]
    pub fn image(&self, pid: u32, time_ns: u64) -> Option<&ProcessImage> {
        let images = &self.by_pid.get(&pid)?.images;
        images
            .iter()
            .rev()
            .find(|image| image.since_ns <= time_ns)
            .or_else(|| images.first())
    }

    /// Forgets processes that have ended and that `wanted` does not want.
    pub fn evict_ended(&mut self, wanted: impl Fn(u32) -> bool) {
        let perf_maps = &mut self.perf_maps;
        self.by_pid.retain(|pid, lifetime| {
            let is_kept = !lifetime.exited || wanted(*pid);
            if !is_kept {
                perf_maps.evict(*pid);
            }
            is_kept
        });
        self.files.forget_unused();
        perf_maps.look();
    }
}

impl ProcessImage {
    /// Returns the place that an address belonged to at a time: in the mapping made last before it.
    #[must_use]
    pub fn place(&self, address: u64, time_ns: u64) -> Option<MappedAddress> {
        let covers = |timed: &&TimedMapping| {
            timed.since_ns <= time_ns && timed.mapping.start <= address && address < timed.mapping.end
        };
        let timed = self.mappings.iter().rev().find(covers)?;
        Some(MappedAddress {
            file: timed.file.clone(),
            path: timed.mapping.path.clone(),
            is_compiled: is_compiled(&timed.mapping, timed.file.as_deref()),
            file_offset: address - timed.mapping.start + timed.mapping.file_offset,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::maps::FileId;

    fn mapped(pid: u32, time_ns: u64, start: u64, path: &str) -> TimedProcessEvent {
        let mapping = Mapping {
            start,
            end: start + 0x1000,
            file_offset: 0x10,
            file: FileId {
                device: (0, 0),
                inode: 0,
            },
            path: path.into(),
        };
        TimedProcessEvent {
            time_ns,
            pid,
            what: ProcessEvent::Mapped(mapping),
        }
    }

    fn executed(pid: u32, time_ns: u64, comm: &str) -> TimedProcessEvent {
        TimedProcessEvent {
            time_ns,
            pid,
            what: ProcessEvent::Executed {
                comm: comm.to_owned(),
            },
        }
    }

    #[test]
    fn address_belongs_to_the_last_mapping_before_its_time() {
        let mut history = ProcessHistory::default();
        history.apply(executed(7, 10, "one"));
        history.apply(mapped(7, 11, 0x1000, "/one"));
        history.apply(mapped(7, 20, 0x1000, "/two"));
        let image = history.image(7, 30).expect("known");
        assert_eq!(image.exe, Some(PathBuf::from("/one")));
        let place = |time| {
            image
                .place(0x1004, time)
                .map(|place| (place.path, place.file_offset))
        };
        assert_eq!(place(15), Some((PathBuf::from("/one"), 0x14)));
        assert_eq!(place(25), Some((PathBuf::from("/two"), 0x14)));
        assert_eq!(place(5), None);
    }

    #[test]
    fn mappings_that_have_gone_make_room() {
        let mut history = ProcessHistory::default();
        history.apply(executed(7, 10, "one"));
        for (time, start) in [(11, 0x1000), (12, 0x2000), (13, 0x1000), (14, 0x3000)] {
            history.apply(mapped(7, time, start, "/one"));
        }
        let mut image = history.image(7, 30).expect("known").clone();
        let present: Vec<Mapping> = [&image.mappings[2], &image.mappings[3]]
            .map(|timed| timed.mapping.clone())
            .into();
        let starts = |image: &ProcessImage| -> Vec<(u64, u64)> {
            let mappings = image.mappings.iter();
            mappings
                .map(|timed| (timed.since_ns, timed.mapping.start))
                .collect()
        };
        let mut whole = image.clone();
        image.compact(Some(&present), 100);
        assert_eq!(starts(&image), [(13, 0x1000), (14, 0x3000)]);
        image.compact(Some(&present), 2);
        assert_eq!(starts(&image), [(14, 0x3000)]);
        whole.compact(None, 6);
        assert_eq!(
            starts(&whole),
            [(12, 0x2000), (13, 0x1000), (14, 0x3000)],
            "the newest"
        );
    }

    #[test]
    fn child_has_its_parents_mappings_and_exec_ends_them() {
        let mut history = ProcessHistory::default();
        history.apply(executed(7, 10, "parent"));
        history.apply(mapped(7, 11, 0x1000, "/parent"));
        history.apply(TimedProcessEvent {
            time_ns: 20,
            pid: 8,
            what: ProcessEvent::Forked { parent: 7 },
        });
        history.apply(executed(8, 30, "other"));
        history.apply(TimedProcessEvent {
            time_ns: 40,
            pid: 8,
            what: ProcessEvent::Exited,
        });
        let at = |time| history.image(8, time).map(|image| image.comm.clone());
        assert_eq!(at(25).as_deref(), Some("parent"));
        assert_eq!(at(35).as_deref(), Some("other"));
        assert!(history.image(8, 25).expect("known").place(0x1000, 25).is_some());
        assert!(history.image(8, 35).expect("known").place(0x1000, 35).is_none());
        history.evict_ended(|pid| pid == 7);
        assert!(!history.knows(8) && history.knows(7));
    }
}
