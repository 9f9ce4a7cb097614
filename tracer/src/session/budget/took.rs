//! What something takes of our own time.

use std::time::{Duration, Instant};

/// What something took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Took {
    /// Our own CPU time, in seconds.
    pub(crate) own_s: f64,
    /// In seconds.
    pub(crate) clock_s: f64,
}

impl Took {
    /// Does something.
    pub(crate) fn by<T>(act: impl FnOnce() -> T) -> (T, Self) {
        let (began, before) = (Instant::now(), own_time());
        let made = act();
        let took = Self {
            own_s: own_time().saturating_sub(before).as_secs_f64(),
            clock_s: began.elapsed().as_secs_f64(),
        };
        (made, took)
    }
}

/// CPU time of memtap.
fn own_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid pointer to a struct that the call fills.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(
        time.tv_sec.cast_unsigned(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
