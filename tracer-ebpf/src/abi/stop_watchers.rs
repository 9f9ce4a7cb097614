//! Rules that tell the processes that see a stop: signals, waits, and programs that are known to
//! look after the stops of their children.

use crate::abi::comm::{Comm, comm_of, is_same_comm};

/// The options of waits that return for stops and for their ends: `WSTOPPED` (`WUNTRACED`) and
/// `WCONTINUED` (`include/uapi/linux/wait.h`).
pub const WAITS_FOR_STOPS: u64 = 2 | 8;

/// The signal to the parent of a child that stops.
pub const SIGCHLD: u32 = 17;

/// The signal that ends a stop.
pub const SIGCONT: u32 = 18;

/// Returns true if a signal is in a mask of the kernel's.
#[inline]
#[must_use]
pub const fn has_signal(mask: u64, signal: u32) -> bool {
    mask >> (signal - 1) & 1 == 1
}

/// Returns true if a program has a signal blocked, to take it when it wants. The C library blocks
/// all signals for the time of a fork, those of its own with them, which programs cannot.
#[inline]
#[must_use]
pub const fn takes_later(blocked: u64, signal: u32) -> bool {
    const OF_C_LIBRARY: u64 = 0b11 << 31;
    has_signal(blocked, signal) && blocked & OF_C_LIBRARY != OF_C_LIBRARY
}

/// Names of programs that wait for their children to stop (`WUNTRACED` of `waitpid(2)`) and act on
/// it: most stop themselves then, until somebody resumes them; `timeout` resumes the child at once;
/// debuggers take it for a stop that they have agreed on with the child; the first processes of
/// containers take all signals when they want. Shells with job control do so too, and are told by
/// the signals that they ignore, but for those without a terminal (`set -m` of bash and zsh).
const STOP_WATCHERS: [Comm; 28] = [
    comm_of(b"su"),
    comm_of(b"sudo"),
    comm_of(b"runuser"),
    comm_of(b"script"),
    comm_of(b"scriptlive"),
    comm_of(b"timeout"),
    comm_of(b"nsenter"),
    comm_of(b"screen"),
    comm_of(b"tmux: server"),
    comm_of(b"dtach"),
    comm_of(b"bash"),
    comm_of(b"zsh"),
    comm_of(b"fish"),
    comm_of(b"ksh"),
    comm_of(b"ksh93"),
    comm_of(b"mksh"),
    comm_of(b"csh"),
    comm_of(b"tcsh"),
    comm_of(b"php-fpm"),
    comm_of(b"strace"),
    comm_of(b"ltrace"),
    comm_of(b"gdb"),
    comm_of(b"gdbserver"),
    comm_of(b"lldb"),
    comm_of(b"rr"),
    comm_of(b"tini"),
    comm_of(b"dumb-init"),
    comm_of(b"catatonit"),
];

/// Names of programs that handle SIGCHLD and take it for nothing but a reason to ask which children
/// have ended: one signal more, or a system call that it interrupts, changes nothing.
const TOLERANT: [Comm; 5] = [
    comm_of(b"sh"),
    comm_of(b"dash"),
    comm_of(b"make"),
    comm_of(b"gmake"),
    comm_of(b"ninja"),
];

/// Returns true if a process of this name handles SIGCHLD in a way that one more changes nothing.
#[inline]
#[must_use]
pub fn takes_more_child_signals(comm: &Comm) -> bool {
    is_one_of(&TOLERANT, comm)
}

/// Returns true if a process of this name looks after the stops of its children.
#[inline]
#[must_use]
pub fn is_stop_watcher(comm: &Comm) -> bool {
    is_one_of(&STOP_WATCHERS, comm)
}

/// A loop without a branch, of which the verifier goes through one path alone.
#[inline]
fn is_one_of(names: &[Comm], comm: &Comm) -> bool {
    let mut found = false;
    for name in names {
        found |= is_same_comm(name, comm);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole() {
        assert!(is_stop_watcher(&comm_of(b"su")));
        assert!(!is_stop_watcher(&comm_of(b"sum")));
        assert!(!is_stop_watcher(&[0; 16]));
        assert!(takes_more_child_signals(&comm_of(b"sh")));
        assert!(!takes_more_child_signals(&comm_of(b"bash")));
    }

    #[test]
    fn signals_that_are_taken_later() {
        assert!(takes_later(1 << 16, SIGCHLD));
        assert!(!takes_later(1 << 16, SIGCONT));
        assert!(!takes_later(u64::MAX, SIGCHLD));
        // `sigfillset` leaves out the C library's own, 32 and 33.
        assert!(takes_later(!(0b11 << 31), SIGCHLD));
    }
}
