//! The kernel's clocks, and the time that memtap's own work takes by them: limits on periodic work,
//! and the cost of one piece of work.

use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Periodic work takes at most one part in so many of memtap's time.
const MAX_PART: u32 = 20;

/// Returns the time of `CLOCK_MONOTONIC` in nanoseconds.
///
/// It is the clock of the machine, by which the kernel tells when something happened, also in a
/// time namespace, whose clock is another.
#[must_use]
pub fn monotonic_ns() -> u64 {
    static OFFSET_NS: OnceLock<i64> = OnceLock::new();
    let offset_ns = *OFFSET_NS.get_or_init(|| namespace_offset_ns().unwrap_or(0));
    nanoseconds(read(ClockId::Monotonic)).saturating_add_signed(offset_ns.saturating_neg())
}

/// Returns the nanoseconds by which this process's time namespace is ahead of the machine
/// (`time_namespaces(7)`); nothing where the kernel has no such namespaces.
fn namespace_offset_ns() -> Option<i64> {
    let of = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).ok();
    // The file has the offsets of the namespace that children will be in.
    if of("time")? != of("time_for_children")? {
        return None;
    }
    monotonic_offset_ns(&std::fs::read_to_string("/proc/self/timens_offsets").ok()?)
}

/// The offset of `CLOCK_MONOTONIC`: a line with its name, seconds, and nanoseconds to add to them.
fn monotonic_offset_ns(offsets: &str) -> Option<i64> {
    let mut numbers = offsets
        .lines()
        .find_map(|line| line.strip_prefix("monotonic "))?
        .split_ascii_whitespace()
        .map(str::parse::<i64>);
    let seconds = numbers.next()?.ok()?;
    seconds
        .checked_mul(1_000_000_000)?
        .checked_add(numbers.next()?.ok()?)
}

/// Returns the CPU time of memtap.
pub(crate) fn own_cpu_time() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// Returns the CPU time of the calling thread in nanoseconds.
pub(crate) fn thread_cpu_ns() -> u64 {
    nanoseconds(read(ClockId::ThreadCPUTime))
}

/// Returns the CPU time of a process, without what its threads have used since the last tick;
/// nothing where the process has ended.
pub(crate) fn cpu_time_of(pid: u32) -> Option<Duration> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    let mut clock = MaybeUninit::<libc::clockid_t>::uninit();
    // SAFETY: the function writes a clock's number, or fails and leaves it alone.
    if unsafe { libc::clock_getcpuclockid(pid, clock.as_mut_ptr()) } != 0 {
        return None;
    }
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the clock's number was written, and `time` has room for the struct that the call
    // writes.
    if unsafe { libc::clock_gettime(clock.assume_init(), time.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call succeeded, and has written the struct.
    let time = unsafe { time.assume_init() };
    duration(time.tv_sec, time.tv_nsec)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    duration(time.tv_sec, time.tv_nsec).unwrap_or_default()
}

fn duration(seconds: i64, nanoseconds: i64) -> Option<Duration> {
    let nanoseconds = u32::try_from(nanoseconds).ok()?;
    Some(Duration::new(u64::try_from(seconds).ok()?, nanoseconds))
}

fn nanoseconds(time: Duration) -> u64 {
    time.as_secs() * 1_000_000_000 + u64::from(time.subsec_nanos())
}

/// The last run of periodic work, and its length.
#[derive(Debug, Default)]
pub(crate) struct WorkPace {
    last: Option<(Instant, Duration)>,
}

impl WorkPace {
    /// Returns true if the work may run again.
    pub(crate) fn is_due(&self) -> bool {
        self.last.is_none_or(|(at, took)| at.elapsed() >= took * MAX_PART)
    }

    /// Notes a run that began at `began` and ends now.
    pub(crate) fn note_run(&mut self, began: Instant) {
        self.last = Some((Instant::now(), began.elapsed()));
    }
}

/// Time that a piece of work took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkTime {
    /// CPU time of memtap, in seconds.
    pub(crate) cpu_s: f64,
    /// Time on the clock, in seconds.
    pub(crate) clock_s: f64,
}

impl WorkTime {
    /// Does the work and measures it.
    pub(crate) fn of<T>(work: impl FnOnce() -> T) -> (T, Self) {
        let (began, before) = (Instant::now(), own_cpu_time());
        let result = work();
        let time = Self {
            cpu_s: own_cpu_time().saturating_sub(before).as_secs_f64(),
            clock_s: began.elapsed().as_secs_f64(),
        };
        (result, time)
    }

    /// Adds another piece of work.
    pub(crate) fn add(&mut self, other: Self) {
        self.cpu_s += other.cpu_s;
        self.clock_s += other.clock_s;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_have_seconds_and_nanoseconds() {
        let offsets = "monotonic       -1000   250000000\nboottime         2000         0\n";
        assert_eq!(monotonic_offset_ns(offsets), Some(-999_750_000_000));
        for damaged in [
            "",
            "monotonic",
            "monotonic 1\n",
            "monotonic x 0\n",
            "boottime 1 0\n",
        ] {
            assert_eq!(monotonic_offset_ns(damaged), None, "{damaged}");
        }
    }
}
