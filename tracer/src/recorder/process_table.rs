//! The processes of a recording: the numbers that the kernel side uses for them, and the history of
//! their mappings.

use std::collections::{HashMap, HashSet};

use tracer_ebpf::PROCESS_UNKNOWN;

use crate::bpf::load::BpfError;
use crate::bpf::records::NewProcess;
use crate::bpf::{Object, processes};
use crate::clock::monotonic_ns;
use crate::process::history::{NewInScope, ProcessHistory, ProcessImage};
use crate::process::proc_fs;

/// A process image that the kernel side knows by a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TrackedImage {
    /// The process.
    pub(super) pid: u32,
    /// Its beginning, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) since_ns: u64,
    /// The process's name at that time.
    pub(super) comm: String,
    /// The process's id in its own pid namespace, if it is known.
    pub(super) inner_pid: Option<u32>,
    /// Another image of the same process has taken its place, or the process has ended.
    pub(super) is_over: bool,
    /// The time of that, if it is known: nanoseconds of `CLOCK_MONOTONIC`.
    ended_ns: Option<u64>,
    /// Hits of probes, once the kernel side counts no more of them.
    hits: u64,
}

/// All process images that are or were targets, by number, and the history of all processes.
#[derive(Debug, Default)]
pub(super) struct ProcessTable {
    images: HashMap<u32, TrackedImage>,
    history: ProcessHistory,
}

impl ProcessTable {
    /// Returns an empty table, of processes of which these come into scope by themselves.
    pub(super) fn new(new_in_scope: NewInScope) -> Self {
        Self {
            images: HashMap::new(),
            history: ProcessHistory::new(new_in_scope),
        }
    }

    /// Makes a running process a target on both sides.
    pub(super) fn track(&mut self, object: &mut Object, pid: u32) -> Result<(), BpfError> {
        let number = self.add(pid, monotonic_ns());
        processes::add(object, pid, number)
    }

    /// Adds a process that memtap made a target itself. Returns its number.
    fn add(&mut self, pid: u32, since_ns: u64) -> u32 {
        let number = u32::try_from(self.images.len()).unwrap_or(u32::MAX) + 1;
        self.images.insert(
            number,
            TrackedImage {
                pid,
                since_ns,
                comm: proc_fs::comm(pid).unwrap_or_default(),
                inner_pid: proc_fs::identity(pid).map(|identity| identity.inner_pid),
                is_over: false,
                ended_ns: None,
                hits: 0,
            },
        );
        number
    }

    /// Adds an image that the kernel side has announced, or ends one that it does not follow any
    /// more.
    pub(super) fn on_announced(&mut self, new: NewProcess) {
        if self.history.knows(new.tgid) {
            self.history.take_in(new.tgid);
        } else if let Err(error) = self.history.snapshot(new.tgid) {
            log::debug!("process {} ({}): {error}", new.tgid, new.comm);
        }
        self.announce(new);
    }

    fn announce(&mut self, new: NewProcess) {
        if let Some(before) = self.images.get_mut(&new.parent)
            && before.pid == new.tgid
        {
            before.is_over = true;
            before.ended_ns.get_or_insert(new.time_ns);
            before.hits += new.hits_before;
        }
        if new.number == PROCESS_UNKNOWN {
            return;
        }
        // The parent announced it before, and knew less.
        if let Some(known) = self.images.get_mut(&new.number) {
            known.inner_pid = known.inner_pid.or(new.inner_pid);
            return;
        }
        self.images.insert(
            new.number,
            TrackedImage {
                pid: new.tgid,
                since_ns: new.time_ns,
                comm: new.comm,
                inner_pid: new.inner_pid,
                is_over: false,
                ended_ns: None,
                hits: 0,
            },
        );
    }

    /// The image with a number.
    pub(super) fn get(&self, number: u32) -> Option<&TrackedImage> {
        self.images.get(&number)
    }

    /// An image's program and mappings.
    pub(super) fn image_of(&self, tracked: &TrackedImage) -> Option<&ProcessImage> {
        self.history.image(tracked.pid, tracked.since_ns)
    }

    /// Programs and mappings of all processes over time.
    pub(super) fn history(&self) -> &ProcessHistory {
        &self.history
    }

    /// The same, to be added to.
    pub(super) fn history_mut(&mut self) -> &mut ProcessHistory {
        &mut self.history
    }

    /// Hits of probes since they were attached, by image number: of images that are over, and of
    /// those that the kernel side still counts.
    pub(super) fn hits(&self, object: &Object) -> Result<HashMap<u32, u64>, BpfError> {
        let images = self.images.iter();
        let mut hits: HashMap<u32, u64> = images.map(|(number, image)| (*number, image.hits)).collect();
        for (_, process) in processes::listed(object)? {
            *hits.entry(process.number).or_default() += process.hits;
        }
        for (number, counted) in processes::counted(object)? {
            *hits.entry(number).or_default() += counted.hits;
        }
        Ok(hits)
    }

    /// Returns true if this process is, or was, a target.
    pub(super) fn has_pid(&self, pid: u32) -> bool {
        self.images.values().any(|image| image.pid == pid)
    }

    /// The processes that are, or were, targets.
    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.images.values().map(|image| image.pid)
    }

    /// The present targets: names and process ids, in the order of the ids.
    pub(super) fn present_targets(&self) -> Vec<(String, u32)> {
        let mut present: Vec<_> = self
            .present()
            .map(|(_, image)| (image.comm.clone(), image.pid))
            .collect();
        present.sort_by_key(|(_, pid)| *pid);
        present
    }

    /// Ends the last image of a process that has ended. Returns true if it was a target.
    pub(super) fn on_exit(&mut self, pid: u32, time_ns: u64) -> bool {
        if !self.has_pid(pid) {
            return false;
        }
        let images = self.images.values_mut();
        if let Some(last) = images
            .filter(|it| it.pid == pid && it.since_ns <= time_ns)
            .max_by_key(|it| it.since_ns)
        {
            last.ended_ns.get_or_insert(time_ns);
        }
        true
    }

    /// Notes that an image is over, at this time unless an earlier one is known.
    pub(super) fn note_end(&mut self, number: u32, now_ns: u64) {
        if let Some(image) = self.images.get_mut(&number) {
            image.ended_ns.get_or_insert(now_ns);
        }
    }

    /// The end of an image, if it is over. An image that was never announced ended long ago.
    pub(super) fn ended_ns(&self, number: u32) -> Option<u64> {
        match self.images.get(&number) {
            Some(image) => image.ended_ns,
            None => Some(0),
        }
    }

    /// The images that are not over yet, with their numbers.
    fn present(&self) -> impl Iterator<Item = (u32, &TrackedImage)> {
        self.images
            .iter()
            .filter(|(_, image)| !image.is_over)
            .map(|(number, image)| (*number, image))
    }

    /// Removes ended processes from the kernel side's map. Returns true if no target is left.
    pub(super) fn remove_ended(&mut self, object: &mut Object) -> bool {
        let ended: Vec<(u32, u32)> = self
            .present()
            .filter(|(_, image)| !proc_fs::is_running(image.pid))
            .map(|(number, image)| (number, image.pid))
            .collect();
        for (number, pid) in ended {
            let hits = processes::remove(object, pid, number).unwrap_or_else(|error| {
                log::debug!("process {pid}: {error}");
                None
            });
            self.note_image_end(number, monotonic_ns(), hits.unwrap_or(0));
        }
        self.present().next().is_none()
    }

    /// Marks an image as over, with its last hits.
    fn note_image_end(&mut self, number: u32, now_ns: u64, hits: u64) {
        if let Some(image) = self.images.get_mut(&number) {
            image.hits += hits;
            image.is_over = true;
            image.ended_ns.get_or_insert(now_ns);
        }
    }

    /// Forgets the history of processes that have ended and were never targets.
    pub(super) fn evict_ended(&mut self) {
        let targets: HashSet<u32> = self.pids().collect();
        self.history.evict_ended(|pid| targets.contains(&pid));
    }

    /// Closes the files of processes that are no targets.
    pub(super) fn close_files_of_others(&mut self) {
        let targets: HashSet<u32> = self.pids().collect();
        self.history.close_others(|pid| targets.contains(&pid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_takes_the_place_of_the_image_before() {
        let mut processes = ProcessTable::default();
        let first = processes.add(7, 0);
        let new = |number, tgid, parent| NewProcess {
            tgid,
            number,
            parent,
            comm: "ls".to_owned(),
            time_ns: 5,
            hits_before: 3,
            inner_pid: None,
        };
        processes.announce(new(100, 8, first));
        assert_eq!(processes.present().count(), 2, "a fork leaves its parent");
        processes.announce(new(101, 7, first));
        assert!(processes.get(first).expect("kept").is_over, "an exec does not");
        assert_eq!(processes.present().count(), 2);
        assert_eq!(processes.get(first).expect("kept").hits, 3);
        processes.note_image_end(101, 9, 4);
        assert_eq!(processes.get(101).expect("kept").hits, 4);
        assert_eq!(processes.ended_ns(first), Some(5));
        assert_eq!(processes.ended_ns(101), Some(9));
        assert!(processes.on_exit(8, 7));
        assert_eq!(processes.ended_ns(100), Some(7));
        assert_eq!(processes.present().count(), 1);
        assert!(processes.has_pid(7));
    }

    #[test]
    fn children_are_announced_twice_and_leavers_once() {
        let new = |number, parent, inner_pid| NewProcess {
            tgid: 8,
            number,
            parent,
            comm: "x".to_owned(),
            time_ns: 5,
            hits_before: 3,
            inner_pid,
        };
        let mut processes = ProcessTable::default();
        processes.announce(new(100, 0, None));
        processes.note_image_end(100, 6, 1);
        processes.announce(new(100, 0, Some(2)));
        let child = processes.get(100).expect("kept");
        assert_eq!((child.inner_pid, child.hits, child.is_over), (Some(2), 1, true));
        processes.announce(new(101, 100, Some(2)));
        assert_eq!(processes.present().count(), 1);
        processes.announce(new(PROCESS_UNKNOWN, 101, None));
        assert_eq!(processes.present().count(), 0);
        assert_eq!(processes.get(101).expect("kept").hits, 3);
        assert!(processes.get(PROCESS_UNKNOWN).is_none());
    }
}
