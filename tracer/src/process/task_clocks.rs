//! The CPU time of other processes' threads, to the microsecond, from a moment on.
//!
//! The kernel brings a running thread's own account up to date when its CPU's tick comes, which may
//! be 4 ms later. A perf event of the thread's task clock (`PERF_COUNT_SW_TASK_CLOCK`) is read on
//! the CPU that the thread is on. It costs the thread some time at each switch of context, so that
//! it is meant for moments.

use std::fs::File;
use std::io::{self, Read as _};
use std::time::Duration;

use perf_event_open_sys::bindings::PERF_COUNT_SW_TASK_CLOCK;

use super::{perf_event, proc_fs};

/// More threads than this are not looked at: each takes a descriptor, and an interrupt of its CPU.
const MAX_THREADS: usize = 64;

/// The clocks of all threads of some processes. They stop when this is dropped.
#[derive(Debug)]
pub(crate) struct TaskClocks {
    events: Vec<File>,
}

impl TaskClocks {
    /// Starts them; nothing if there are too many threads, or none, or the kernel refuses. A thread
    /// that begins later is not in them.
    pub(crate) fn start(pids: &[u32]) -> Option<Self> {
        let threads: Vec<u32> = pids.iter().flat_map(|pid| proc_fs::threads(*pid)).collect();
        if threads.is_empty() || threads.len() > MAX_THREADS {
            return None;
        }
        let mut events = Vec::new();
        for thread in threads {
            match open(thread) {
                Ok(event) => events.push(event),
                // It has ended since.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => {
                    log::debug!("the task clock of {thread}: {error}");
                    return None;
                }
            }
        }
        (!events.is_empty()).then_some(Self { events })
    }

    /// Seconds of CPU time since the start, all threads together.
    pub(crate) fn seconds(&self) -> Option<f64> {
        let mut sum = 0.0;
        for mut event in &self.events {
            let mut value = [0; 8];
            event.read_exact(&mut value).ok()?;
            sum += Duration::from_nanos(u64::from_ne_bytes(value)).as_secs_f64();
        }
        Some(sum)
    }
}

fn open(thread: u32) -> io::Result<File> {
    let thread = libc::pid_t::try_from(thread).map_err(io::Error::other)?;
    perf_event::open_software(PERF_COUNT_SW_TASK_CLOCK, thread, -1, |_| ()).map(File::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_time_is_told_as_it_was() {
        let own = [std::process::id()];
        let Some(clocks) = TaskClocks::start(&own) else {
            assert!(!rustix::process::geteuid().is_root(), "refused to root");
            return;
        };
        let (before, began) = (clocks.seconds().expect("readable"), thread_s());
        while thread_s() - began < 0.003 {
            std::hint::spin_loop();
        }
        let used = clocks.seconds().expect("readable") - before;
        // Other threads of the tests work, too.
        assert!(used > 0.0029, "{used} s");
    }

    /// CPU time of this thread.
    fn thread_s() -> f64 {
        Duration::from_nanos(crate::clock::thread_cpu_ns()).as_secs_f64()
    }

    #[test]
    fn nobody_has_no_clock() {
        assert!(TaskClocks::start(&[]).is_none());
        assert!(TaskClocks::start(&[u32::MAX]).is_none());
    }
}
