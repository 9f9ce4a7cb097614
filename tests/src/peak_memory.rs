//! The largest resident memory of a process and of its children, watched while they run.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, ensure};

/// The time between two looks. A peak counts for the whole life of a process, so that one look
/// shortly before its end sees it.
const INTERVAL: Duration = Duration::from_millis(2);

/// A watch over a process.
#[derive(Debug)]
pub struct PeakMemory {
    /// Peaks in KiB, by process.
    peaks: Arc<Mutex<HashMap<u32, u64>>>,
    is_over: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl PeakMemory {
    /// Begins to watch a process.
    #[must_use]
    pub fn watch(pid: u32) -> Self {
        let peaks: Arc<Mutex<HashMap<u32, u64>>> = Arc::default();
        let is_over = Arc::new(AtomicBool::new(false));
        let (seen, stop) = (Arc::clone(&peaks), Arc::clone(&is_over));
        let watcher = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for pid in std::iter::once(pid).chain(children(pid)) {
                    if let Some(kib) = memory_kib(pid, "VmHWM:") {
                        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                        let peak = seen.entry(pid).or_default();
                        *peak = kib.max(*peak);
                    }
                }
                std::thread::sleep(INTERVAL);
            }
        });
        Self {
            peaks,
            is_over,
            watcher: Some(watcher),
        }
    }

    /// Ends the watch, and fails if the process or a child had more than `most_kib`, or was never
    /// seen.
    pub fn was_below(mut self, most_kib: u64) -> Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            ensure!(watcher.join().is_ok(), "the watch over memory failed");
        }
        let peaks = self.peaks.lock().unwrap_or_else(PoisonError::into_inner);
        crate::journal::note(&format!("peaks of resident memory in KiB, by process: {peaks:?}"));
        ensure!(!peaks.is_empty(), "nobody was seen");
        let most = peaks.values().max().copied().unwrap_or(0);
        ensure!(most < most_kib, "a process took {most} KiB: {peaks:?}");
        Ok(())
    }
}

impl Drop for PeakMemory {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// The children of a process that run.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let numbers = |list: String| -> Vec<u32> {
        list.split_ascii_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect()
    };
    lists.flat_map(numbers).collect()
}

/// A figure of a process's memory in KiB, by its name in `/proc/PID/status`, with the colon.
#[must_use]
pub fn memory_kib(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}
