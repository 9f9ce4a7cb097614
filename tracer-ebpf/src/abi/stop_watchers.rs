//! Programs that look after the stops of their children.

use crate::abi::comm::{Comm, comm_of, is_same_comm};

/// Names of programs that wait for their children to stop (`WUNTRACED` of `waitpid(2)`) and act on
/// it: most stop themselves then, until somebody resumes them; `timeout` resumes the child at once;
/// debuggers take it for a stop that they have agreed on with the child. Shells with job control do
/// so too, and are told by the signals that they ignore, but for those without a terminal (`set
/// -m` of bash and zsh).
const STOP_WATCHERS: [Comm; 25] = [
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
];

/// Returns true if a process of this name looks after the stops of its children.
#[inline]
#[must_use]
pub fn is_stop_watcher(comm: &Comm) -> bool {
    let mut found = false;
    for name in &STOP_WATCHERS {
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
    }
}
