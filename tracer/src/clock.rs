//! The kernel's clocks, as `clock_gettime` reads them.

use std::time::Duration;

/// What a clock shows; nothing if there is no such clock, or its process has ended.
pub(crate) fn read(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid pointer to a struct that the call fills.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    let nanoseconds = u32::try_from(time.tv_nsec).ok()?;
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, nanoseconds))
}

/// The same in nanoseconds, of a clock that is always there.
pub(crate) fn read_ns(clock: libc::clockid_t) -> u64 {
    let time = read(clock).unwrap_or_default();
    time.as_secs() * 1_000_000_000 + u64::from(time.subsec_nanos())
}
