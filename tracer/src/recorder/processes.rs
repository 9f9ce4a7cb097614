//! The numbers that keys use for processes, and which process images they stand for.

use std::collections::HashMap;

use tracer_ebpf::PROCESS_UNKNOWN;

use crate::bpf::records::NewProcess;
use crate::process::proc_fs;

/// A process image that the kernel side knows by a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tracked {
    /// The process.
    pub(super) pid: u32,
    /// Since when, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) since_ns: u64,
    /// Its name when it was met.
    pub(super) comm: String,
    /// Its number in its own pid namespace, where that is known.
    pub(super) inner_pid: Option<u32>,
    /// Whether another image of the same process has taken its place, or the process has ended.
    pub(super) over: bool,
    /// When, as far as that is known: nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) ended_ns: Option<u64>,
    /// Hits of probes, once the kernel side counts no more of them.
    pub(super) hits: u64,
}

/// All numbers.
#[derive(Debug, Default)]
pub(super) struct Processes {
    tracked: HashMap<u32, Tracked>,
}

impl Processes {
    /// Takes in a process that the loader made a target itself. Returns its number.
    pub(super) fn add(&mut self, pid: u32, since_ns: u64) -> u32 {
        let number = u32::try_from(self.tracked.len()).unwrap_or(u32::MAX) + 1;
        self.tracked.insert(
            number,
            Tracked {
                pid,
                since_ns,
                comm: proc_fs::comm(pid).unwrap_or_default(),
                inner_pid: proc_fs::identity(pid).map(|identity| identity.inner_pid),
                over: false,
                ended_ns: None,
                hits: 0,
            },
        );
        number
    }

    /// Takes in a process that the kernel side met, or that it follows no more.
    pub(super) fn announce(&mut self, new: NewProcess) {
        if let Some(before) = self.tracked.get_mut(&new.parent)
            && before.pid == new.tgid
        {
            before.over = true;
            before.ended_ns.get_or_insert(new.time_ns);
            before.hits += new.hits_before;
        }
        if new.number == PROCESS_UNKNOWN {
            return;
        }
        // Its parent announced it, which knew less.
        if let Some(known) = self.tracked.get_mut(&new.number) {
            known.inner_pid = known.inner_pid.or(new.inner_pid);
            return;
        }
        self.tracked.insert(
            new.number,
            Tracked {
                pid: new.tgid,
                since_ns: new.time_ns,
                comm: new.comm,
                inner_pid: new.inner_pid,
                over: false,
                ended_ns: None,
                hits: 0,
            },
        );
    }

    pub(super) fn get(&self, number: u32) -> Option<&Tracked> {
        self.tracked.get(&number)
    }

    /// Hits of images that the kernel side counts no more, by their numbers.
    pub(super) fn hits(&self) -> impl Iterator<Item = (u32, u64)> {
        self.tracked
            .iter()
            .map(|(number, tracked)| (*number, tracked.hits))
    }

    /// Whether this process is, or was, a target.
    pub(super) fn has_pid(&self, pid: u32) -> bool {
        self.tracked.values().any(|tracked| tracked.pid == pid)
    }

    /// The processes that are, or were, targets.
    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.tracked.values().map(|tracked| tracked.pid)
    }

    /// A process has ended: its last image is over since then.
    pub(super) fn note_exit(&mut self, pid: u32, time_ns: u64) {
        let images = self.tracked.values_mut();
        if let Some(last) = images
            .filter(|it| it.pid == pid && it.since_ns <= time_ns)
            .max_by_key(|it| it.since_ns)
        {
            last.ended_ns.get_or_insert(time_ns);
        }
    }

    /// An image is known to be over, since this moment if not before.
    pub(super) fn note_end(&mut self, number: u32, now_ns: u64) {
        if let Some(tracked) = self.tracked.get_mut(&number) {
            tracked.ended_ns.get_or_insert(now_ns);
        }
    }

    /// When an image was over; of one that was never announced, long ago.
    pub(super) fn ended_ns(&self, number: u32) -> Option<u64> {
        match self.tracked.get(&number) {
            Some(tracked) => tracked.ended_ns,
            None => Some(0),
        }
    }

    /// The images that are not over yet, with their numbers.
    pub(super) fn present(&self) -> impl Iterator<Item = (u32, &Tracked)> {
        self.tracked
            .iter()
            .filter(|(_, tracked)| !tracked.over)
            .map(|(number, tracked)| (*number, tracked))
    }

    /// Marks an image as over, which had so many hits.
    pub(super) fn end(&mut self, number: u32, now_ns: u64, hits: u64) {
        if let Some(tracked) = self.tracked.get_mut(&number) {
            tracked.hits += hits;
            tracked.over = true;
            tracked.ended_ns.get_or_insert(now_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_takes_the_place_of_the_image_before() {
        let mut processes = Processes::default();
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
        assert!(processes.get(first).expect("kept").over, "an exec does not");
        assert_eq!(processes.present().count(), 2);
        assert_eq!(processes.get(first).expect("kept").hits, 3);
        processes.end(101, 9, 4);
        assert_eq!(processes.get(101).expect("kept").hits, 4);
        assert_eq!(processes.ended_ns(first), Some(5));
        assert_eq!(processes.ended_ns(101), Some(9));
        processes.note_exit(8, 7);
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
        let mut processes = Processes::default();
        processes.announce(new(100, 0, None));
        processes.end(100, 6, 1);
        processes.announce(new(100, 0, Some(2)));
        let child = processes.get(100).expect("kept");
        assert_eq!((child.inner_pid, child.hits, child.over), (Some(2), 1, true));
        processes.announce(new(101, 100, Some(2)));
        assert_eq!(processes.present().count(), 1);
        processes.announce(new(PROCESS_UNKNOWN, 101, None));
        assert_eq!(processes.present().count(), 0);
        assert_eq!(processes.get(101).expect("kept").hits, 3);
        assert!(processes.get(PROCESS_UNKNOWN).is_none());
    }
}
