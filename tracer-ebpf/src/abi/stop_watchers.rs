//! Programs that look after the stops of their children.

/// Names of programs that wait for their children to stop (`WUNTRACED` of `waitpid(2)`) and act on
/// it: most stop themselves then, until somebody resumes them; `timeout` resumes the child at once;
/// debuggers take it for a stop that they have agreed on with the child.
/// Shells with job control do so too, and are told by the signals that they ignore. Padded with
/// zeros, as the kernel has the names of processes.
pub const STOP_WATCHERS: [[u8; 16]; 14] = [
    name(b"su"),
    name(b"sudo"),
    name(b"runuser"),
    name(b"script"),
    name(b"scriptlive"),
    name(b"timeout"),
    name(b"screen"),
    name(b"php-fpm"),
    name(b"strace"),
    name(b"ltrace"),
    name(b"gdb"),
    name(b"gdbserver"),
    name(b"lldb"),
    name(b"rr"),
];

const fn name(text: &[u8]) -> [u8; 16] {
    let mut name = [0; 16];
    let mut at = 0;
    while at < text.len() {
        name[at] = text[at];
        at += 1;
    }
    name
}

/// Returns true if a process of this name looks after the stops of its children.
#[must_use]
pub fn is_stop_watcher(comm: &[u8; 16]) -> bool {
    let comm = u128::from_ne_bytes(*comm);
    let mut found = false;
    for name in &STOP_WATCHERS {
        found |= u128::from_ne_bytes(*name) == comm;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole() {
        assert!(is_stop_watcher(b"su\0\0\0\0\0\0\0\0\0\0\0\0\0\0"));
        assert!(!is_stop_watcher(b"sum\0\0\0\0\0\0\0\0\0\0\0\0\0"));
        assert!(!is_stop_watcher(&[0; 16]));
    }
}
