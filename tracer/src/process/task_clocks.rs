//! The CPU time of other processes' threads, to the microsecond, from a moment on, and samples of
//! what they spend it on.
//!
//! The kernel brings a running thread's own account up to date when its CPU's tick comes, which may
//! be 4 ms later. A perf event of the thread's task clock (`PERF_COUNT_SW_TASK_CLOCK`) is read on
//! the CPU that the thread is on. It costs the thread some time at each switch of context, and an
//! interrupt for each sample, so that it is meant for moments.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use perf_event_open_sys::bindings::{
    PERF_COUNT_SW_TASK_CLOCK, PERF_RECORD_MISC_CPUMODE_MASK, PERF_RECORD_MISC_USER, PERF_RECORD_SAMPLE,
    PERF_SAMPLE_REGS_USER,
};

use super::perf_ring::PerfRing;
use super::{perf_event, proc_fs};

/// More threads than this are not looked at: each takes a descriptor, and an interrupt of its CPU.
const MAX_THREADS: usize = 64;

/// The CPU time from one sample of a thread to the next.
pub(crate) const SAMPLE_PERIOD: Duration = Duration::from_micros(200);

/// The part of that which the interrupt takes: 8 µs on a virtual machine (AMD Zen, Linux 6.18), and
/// one or two where no hypervisor sets the timer.
pub(crate) const SAMPLE_COST: Duration = Duration::from_micros(5);

/// Pages of each thread's ring: samples of 136 ms. Those that do not fit are lost.
const RING_PAGES: usize = 4;

/// The bit of the instruction pointer (`PERF_REG_X86_IP` of the kernel's
/// `arch/x86/include/uapi/asm/perf_regs.h`).
const INSTRUCTION_POINTER: u64 = 1 << 8;

/// A moment of a thread's CPU time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskSample {
    /// Its process.
    pub(crate) pid: u32,
    /// Its instruction pointer in user space: the present one, or that with which it came into the
    /// kernel.
    pub(crate) address: u64,
    /// It is in the kernel.
    pub(crate) in_kernel: bool,
}

/// The clocks of all threads of some processes, from their [`start`](Self::start) on. They stop
/// when this is dropped.
#[derive(Debug)]
pub(crate) struct TaskClocks {
    threads: Vec<TaskClock>,
}

#[derive(Debug)]
struct TaskClock {
    pid: u32,
    event: File,
    /// The samples; nothing where the kernel grants no more memory for them.
    ring: Option<PerfRing>,
}

impl TaskClocks {
    /// Opens them; nothing if there are too many threads, or none, or the kernel refuses. A thread
    /// that begins later is not in them. The kernel waits for a grace period of its own where no
    /// other event is of a thread: it takes milliseconds.
    pub(crate) fn open(pids: &[u32]) -> Option<Self> {
        let ids = |pid: &u32| {
            let pid = *pid;
            proc_fs::threads(pid).into_iter().map(move |thread| (pid, thread))
        };
        let ids: Vec<(u32, u32)> = pids.iter().flat_map(ids).collect();
        if ids.is_empty() || ids.len() > MAX_THREADS {
            return None;
        }
        let mut threads = Vec::new();
        for (pid, thread) in ids {
            match open(thread) {
                Ok(event) => threads.push(TaskClock {
                    pid,
                    ring: PerfRing::map(&event, RING_PAGES)
                        .inspect_err(|error| log::debug!("no samples of {thread}: {error}"))
                        .ok(),
                    event,
                }),
                // It has ended since.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => {
                    log::debug!("the task clock of {thread}: {error}");
                    return None;
                }
            }
        }
        (!threads.is_empty()).then_some(Self { threads })
    }

    /// Starts them.
    pub(crate) fn start(&self) -> io::Result<()> {
        for thread in &self.threads {
            // SAFETY: the request takes no argument but a flag, and the descriptor is open.
            let result = unsafe { perf_event_open_sys::ioctls::ENABLE(thread.event.as_raw_fd(), 0) };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// Seconds of CPU time since the start, all threads together.
    pub(crate) fn seconds(&self) -> Option<f64> {
        let mut sum = 0.0;
        for thread in &self.threads {
            let mut value = [0; 8];
            (&thread.event).read_exact(&mut value).ok()?;
            sum += Duration::from_nanos(u64::from_ne_bytes(value)).as_secs_f64();
        }
        Some(sum)
    }

    /// Takes the samples since the start, or since the last call: one for each
    /// [`SAMPLE_PERIOD`] of a thread's CPU time.
    pub(crate) fn samples(&self) -> Vec<TaskSample> {
        let mut samples = Vec::new();
        for TaskClock { pid, ring, .. } in &self.threads {
            let Some(ring) = ring else { continue };
            ring.read(|kind, misc, body| {
                if kind == PERF_RECORD_SAMPLE {
                    samples.extend(parse(*pid, misc, body));
                }
            });
        }
        samples
    }
}

/// The sample in the body of a record: the ABI of the registers, and if that is not 0 the one
/// register that was asked for.
fn parse(pid: u32, misc: u16, body: &[u8]) -> Option<TaskSample> {
    let word = |at: usize| Some(u64::from_ne_bytes(body.get(at..at + 8)?.try_into().ok()?));
    let mode = u32::from(misc) & PERF_RECORD_MISC_CPUMODE_MASK;
    let abi = word(0)?;
    Some(TaskSample {
        pid,
        address: if abi == 0 { 0 } else { word(8)? },
        in_kernel: mode != PERF_RECORD_MISC_USER,
    })
}

fn open(thread: u32) -> io::Result<File> {
    let thread = libc::pid_t::try_from(thread).map_err(io::Error::other)?;
    let period_ns = u64::try_from(SAMPLE_PERIOD.as_nanos()).map_err(io::Error::other)?;
    perf_event::open_software(PERF_COUNT_SW_TASK_CLOCK, thread, -1, |attributes| {
        attributes.set_disabled(1);
        attributes.__bindgen_anon_1.sample_period = period_ns;
        attributes.sample_type = u64::from(PERF_SAMPLE_REGS_USER);
        attributes.sample_regs_user = INSTRUCTION_POINTER;
    })
    .map(File::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_time_is_told_as_it_was() {
        let own = [std::process::id()];
        let Some(clocks) = TaskClocks::open(&own) else {
            assert!(!rustix::process::geteuid().is_root(), "refused to root");
            return;
        };
        assert!(clocks.seconds().expect("readable") <= 0.0, "not started");
        clocks.start().expect("they start");
        let (before, began) = (clocks.seconds().expect("readable"), thread_s());
        while thread_s() - began < 0.003 {
            std::hint::spin_loop();
        }
        let used = clocks.seconds().expect("readable") - before;
        // Other threads of the tests work, too.
        assert!(used > 0.0029, "{used} s");
        let samples = clocks.samples();
        assert!(samples.len() > 5, "{} samples", samples.len());
        let in_user_space = |sample: &&TaskSample| !sample.in_kernel && sample.address != 0;
        assert!(samples.iter().any(|sample| in_user_space(&sample)), "{samples:?}");
        assert!(samples.iter().all(|sample| sample.pid == own[0]));
    }

    /// CPU time of this thread.
    fn thread_s() -> f64 {
        Duration::from_nanos(crate::clock::thread_cpu_ns()).as_secs_f64()
    }

    #[test]
    fn short_samples_are_refused() {
        let body: Vec<u8> = [2_u64, 0x1234]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let sample = |len: usize, misc| parse(7, misc, &body[..len]);
        let expected = TaskSample {
            pid: 7,
            address: 0x1234,
            in_kernel: false,
        };
        assert_eq!(sample(16, 2), Some(expected));
        assert!(sample(16, 1).expect("whole").in_kernel);
        assert_eq!(sample(15, 2), None);
        assert_eq!(sample(4, 2), None);
    }

    #[test]
    fn nobody_has_no_clock() {
        assert!(TaskClocks::open(&[]).is_none());
        assert!(TaskClocks::open(&[u32::MAX]).is_none());
    }
}
