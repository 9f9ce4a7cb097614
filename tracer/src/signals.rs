//! The signals that ask memtap to end, and who sent them; and one that would end it.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal that asked memtap to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    /// Its number.
    pub signal: i32,
    /// True if the terminal sent it (Ctrl-C, or it was closed): to everything in its foreground
    /// process group, and not to memtap alone.
    pub by_terminal: bool,
}

/// Waits for such signals: `SIGINT`, `SIGTERM` and `SIGHUP`. From the first of these values on they
/// do not end memtap by themselves any more, also when the value is gone.
#[derive(Debug)]
pub(crate) struct Endings {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// True if the kernel itself sent the last signal. Signals that come at the same moment may be
/// taken for each other's.
static BY_KERNEL: AtomicBool = AtomicBool::new(false);

/// The outcome of installing the handlers that note the sender.
static IS_NOTED: OnceLock<Result<(), io::ErrorKind>> = OnceLock::new();

impl Endings {
    /// Begins to listen. To be called in a runtime of tokio's.
    ///
    /// # Errors
    /// The kernel's, where a handler cannot be installed.
    pub(crate) fn new() -> io::Result<Self> {
        // The senders first: handlers are called in the order in which they were registered.
        let is_noted = IS_NOTED.get_or_init(|| note_senders().map_err(|error| error.kind()));
        (*is_noted)?;
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next of these signals.
    pub(crate) async fn next(&mut self) -> Ending {
        let signal = tokio::select! {
            biased;
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.terminate.recv() => libc::SIGTERM,
            _ = self.hang_up.recv() => libc::SIGHUP,
        };
        Ending {
            signal,
            by_terminal: BY_KERNEL.load(Ordering::SeqCst),
        }
    }
}

/// Lets a write beyond the limit on the size of files fail, in place of ending memtap. By a
/// handler: a command that is executed has the signal's own action again, which it would not have
/// if the signal was ignored.
pub(crate) fn survive_file_size_limit() {
    // SAFETY: the handler does nothing.
    if let Err(error) = unsafe { signal_hook_registry::register(libc::SIGXFSZ, || {}) } {
        log::debug!("files beyond their limit of size end memtap: {error}");
    }
}

fn note_senders() -> io::Result<()> {
    for number in [libc::SIGINT, libc::SIGHUP, libc::SIGTERM] {
        // SAFETY: the handler does what a signal handler may, one atomic write.
        unsafe { signal_hook_registry::register_sigaction(number, note_sender) }?;
    }
    Ok(())
}

/// Codes above 0 are the kernel's own signals, as those are that it sends for a terminal
/// (`sigaction(2)`).
fn note_sender(info: &libc::siginfo_t) {
    BY_KERNEL.store(info.si_code > 0, Ordering::SeqCst);
}
