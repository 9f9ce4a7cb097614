//! Ctrl-C: every wait of the bench ends, and what it started is stopped.

use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Result, bail};

/// The signal that asked to end, or zero.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: libc::c_int) {
    SIGNAL.store(signal, Ordering::SeqCst);
}

/// From now on SIGINT, SIGTERM and SIGHUP are noted, and every wait of the bench ends soon after.
pub(crate) fn catch() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let handler = note as extern "C" fn(libc::c_int);
        // SAFETY: the handler stores into an atomic, which is all that it does, and lives as long
        // as the program.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Returns whether the bench is to end.
pub(crate) fn is_wanted() -> bool {
    SIGNAL.load(Ordering::SeqCst) != 0
}

/// Fails once the bench is to end.
pub(crate) fn check() -> Result<()> {
    if is_wanted() {
        bail!("interrupted");
    }
    Ok(())
}
