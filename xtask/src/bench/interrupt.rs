//! Ctrl-C: what was started is stopped first. And an end that nobody can catch: it is stopped then too.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
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
        // SAFETY: the handler stores into an atomic, which is all that it does, and lives as long as the program.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Whether the bench is to end.
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

/// The child gets `signal` when this program ends without having stopped it: even by SIGKILL. Where it runs through
/// sudo, sudo forgets this, and a signal to sudo is passed on.
pub(crate) fn tie(command: &mut Command, signal: libc::c_int) {
    let request = move || {
        // SAFETY: prctl with PR_SET_PDEATHSIG takes a number and touches no memory; it may be called after fork.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(request) };
}
