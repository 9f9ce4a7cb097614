//! The descriptors that foreign files may take: a bounded number, of which one process has a share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files kept open at most.
const MAX_OPEN_FILES: usize = 4096;

/// One process may have this part of them open, so that no other goes without.
const PROCESS_SHARE: usize = 4;

/// Files kept open where the limit cannot be told.
const DEFAULT_OPEN_FILES: usize = 256;

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

/// The slots that are taken.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    taken: Arc<AtomicUsize>,
    by_process: HashMap<u32, Weak<AtomicUsize>>,
    is_exhausted: bool,
}

/// A slot, until it is dropped.
#[derive(Debug)]
pub(super) struct DescriptorSlot {
    counts: [Arc<AtomicUsize>; 2],
}

impl Descriptors {
    /// Takes a slot for a file that a process has mapped. Without one left, returns nothing, which
    /// is said once.
    pub(super) fn take(&mut self, pid: u32) -> Option<DescriptorSlot> {
        // Half is for probes, maps and outputs.
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.map_or(DEFAULT_OPEN_FILES, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX) / 2
        });
        self.take_of(pid, limit.min(MAX_OPEN_FILES))
    }

    fn take_of(&mut self, pid: u32, limit: usize) -> Option<DescriptorSlot> {
        let of_process = self.by_process.get(&pid).and_then(Weak::upgrade);
        let of_process = of_process.unwrap_or_else(|| {
            let count = Arc::default();
            self.by_process.insert(pid, Arc::downgrade(&count));
            count
        });
        let is_left = |count: &AtomicUsize, limit| count.load(Ordering::Relaxed) < limit;
        if !is_left(&self.taken, limit) || !is_left(&of_process, limit / PROCESS_SHARE) {
            if !self.is_exhausted {
                self.is_exhausted = true;
                let share = limit / PROCESS_SHARE;
                log::warn!(
                    "process {pid} maps more files than memtap keeps open ({share} of one process, {limit} of all): \
                     functions in the others have no names; a higher `ulimit -n` permits up to {MAX_OPEN_FILES}"
                );
            }
            return None;
        }
        let counts = [Arc::clone(&self.taken), of_process];
        for count in &counts {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Some(DescriptorSlot { counts })
    }

    /// Forgets the processes without open files.
    pub(super) fn forget_unused(&mut self) {
        self.by_process.retain(|_, count| count.strong_count() > 0);
    }
}

impl Drop for DescriptorSlot {
    fn drop(&mut self) {
        for count in &self.counts {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_process_takes_all_slots_and_slots_come_back() {
        let mut descriptors = Descriptors::default();
        let mut take = |pid| descriptors.take_of(pid, 16);
        let mut slots: Vec<DescriptorSlot> = std::iter::from_fn(|| take(1)).collect();
        assert_eq!(slots.len(), 4);
        for pid in 2..9 {
            slots.extend(std::iter::from_fn(|| take(pid)));
        }
        assert_eq!(slots.len(), 16);
        slots.pop();
        assert!(take(9).is_some());
        drop(slots);
        descriptors.forget_unused();
        assert!(descriptors.by_process.is_empty());
        assert_eq!(descriptors.taken.load(Ordering::Relaxed), 0);
    }
}
