//! The CPU time of other processes' threads, to the microsecond, from a moment on.
//!
//! The kernel brings a running thread's own account up to date when its CPU's tick comes, which may be 4 ms later. A perf event
//! of the thread's task clock (`PERF_COUNT_SW_TASK_CLOCK`) is read on the CPU that the thread is on. It costs the thread some
//! time at each switch of context, so that it is meant for moments.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{FromRawFd as _, OwnedFd};

use perf_event_open_sys::bindings::{
    PERF_COUNT_SW_TASK_CLOCK, PERF_FLAG_FD_CLOEXEC, PERF_TYPE_SOFTWARE, perf_event_attr,
};

use super::process;

/// More threads than this are not looked at: each takes a descriptor, and an interrupt of its CPU.
const MOST_THREADS: usize = 64;

/// The clocks of all threads of some processes. They stop when this is dropped.
#[derive(Debug)]
pub(crate) struct TaskClocks {
    events: Vec<File>,
}

impl TaskClocks {
    /// Starts them; nothing if there are too many threads, or none, or the kernel refuses. A thread that begins later is not in
    /// them.
    pub(crate) fn start(pids: &[u32]) -> Option<Self> {
        let threads: Vec<u32> = pids.iter().flat_map(|pid| process::threads(*pid)).collect();
        if threads.is_empty() || threads.len() > MOST_THREADS {
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
            sum += crate::cost::float(u64::from_ne_bytes(value)) / 1e9;
        }
        Some(sum)
    }
}

fn open(thread: u32) -> io::Result<File> {
    let mut attributes = perf_event_attr::default();
    attributes.type_ = PERF_TYPE_SOFTWARE;
    attributes.size = u32::try_from(size_of::<perf_event_attr>()).map_err(io::Error::other)?;
    attributes.config = u64::from(PERF_COUNT_SW_TASK_CLOCK);
    let thread = libc::pid_t::try_from(thread).map_err(io::Error::other)?;
    // SAFETY: the attributes are filled, and live through the call.
    let fd = unsafe {
        perf_event_open_sys::perf_event_open(
            &raw mut attributes,
            thread,
            -1,
            -1,
            u64::from(PERF_FLAG_FD_CLOEXEC),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_time_is_told_as_it_was() {
        let own = [std::process::id()];
        let Some(clocks) = TaskClocks::start(&own) else {
            // SAFETY: a system call without arguments.
            let user = unsafe { libc::geteuid() };
            assert_ne!(user, 0, "refused to root");
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
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: a valid pointer to a struct that the call fills.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
        let part = |number: i64| crate::cost::float(number.cast_unsigned());
        part(time.tv_sec) + part(time.tv_nsec) / 1e9
    }

    #[test]
    fn nobody_has_no_clock() {
        assert!(TaskClocks::start(&[]).is_none());
        assert!(TaskClocks::start(&[u32::MAX]).is_none());
    }
}
