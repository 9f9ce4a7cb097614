//! The processes that the guard has taken out of the map, and their states, by system calls that
//! take no memory from an allocator.

use crate::bpf::stopped::StoppedMap;
use crate::process::proc_fs;

/// A process that was taken out of the map, and the time from which on it has been running, in
/// milliseconds.
pub(super) type ReleasedProcess = (u32, i64);

/// Makes room for as many processes as the map has, which the guard cannot do after the fork.
pub(super) fn room() -> Vec<ReleasedProcess> {
    vec![(0, 0); StoppedMap::MAX_ENTRIES as usize]
}

/// Resumes a process. What others have sent meanwhile to stop it is sent anew: the kernel drops it
/// with the end of the stop. `SIGSTOP` is not, where there are several threads: the kernel side may
/// have sent it by way of each, the second while the process was stopping by the first.
pub(super) fn send_continue(pid: u32) {
    let dropped = if state(pid) == Some(b'T') {
        pending(pid).unwrap_or(0)
    } else {
        // The stop that it is resumed from may be pending itself.
        0
    };
    // SAFETY: system calls without pointers.
    unsafe {
        libc::kill(pid.cast_signed(), libc::SIGCONT);
        for signal in [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
            if dropped & 1 << (signal - 1) != 0 {
                libc::kill(pid.cast_signed(), signal);
            }
        }
    }
}

/// Processes that were taken out of the map, and may stop yet: the kernel side enters a process
/// before it stops it. They are watched until each has been running for a while.
pub(super) struct ReleasedProcesses<'a> {
    map: StoppedMap,
    entries: &'a mut [ReleasedProcess],
    len: usize,
}

/// Milliseconds that a process may take to stop after it was entered in the map.
const STOP_LIMIT_MS: i64 = 1000;

impl<'a> ReleasedProcesses<'a> {
    /// Begins with none, in room for all.
    pub(super) fn new(map: StoppedMap, entries: &'a mut [ReleasedProcess]) -> Self {
        Self { map, entries, len: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes a process out of the map, and resumes it.
    pub(super) fn add(&mut self, pid: u32) {
        self.map.remove(pid);
        send_continue(pid);
        let known = &mut self.entries[..self.len];
        if let Some(entry) = known.iter_mut().find(|entry| entry.0 == pid) {
            entry.1 = now_ms();
        } else if let Some(entry) = self.entries.get_mut(self.len) {
            *entry = (pid, now_ms());
            self.len += 1;
        }
    }

    /// Resumes those that have stopped, and forgets those that run or have ended.
    pub(super) fn resume(&mut self) {
        let mut at = 0;
        while let Some(entry) = self.entries[..self.len].get_mut(at) {
            let now_ms = now_ms();
            match state(entry.0) {
                Some(b'T') => {
                    self.map.remove(entry.0);
                    send_continue(entry.0);
                    entry.1 = now_ms;
                }
                // The first thread has ended; others may have stopped.
                Some(b'Z') => send_continue(entry.0),
                _ => {}
            }
            let is_over = now_ms - entry.1 > STOP_LIMIT_MS || state(entry.0).is_none();
            if is_over {
                self.len -= 1;
                self.entries.swap(at, self.len);
            } else {
                at += 1;
            }
        }
    }
}

pub(super) fn now_ms() -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a pointer to a live structure of the kernel's layout.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

/// Returns true if a process has come to a stop. The first thread may have ended, and is a zombie
/// then.
pub(super) fn is_stopped(pid: u32) -> bool {
    matches!(state(pid), Some(b'T' | b'Z'))
}

/// Returns true if a process is in the middle of ending, or waits for its parent.
pub(super) fn is_ending(pid: u32) -> bool {
    let mut text = [0; 256];
    read(pid, b"/stat", &mut text)
        .and_then(|stat| std::str::from_utf8(stat).ok())
        .is_some_and(proc_fs::is_exiting_in)
}

/// Returns the state letter of `/proc/PID/stat`, if there is such a process.
fn state(pid: u32) -> Option<u8> {
    // The state is behind the parenthesis that closes the name, which is short.
    let mut text = [0; 256];
    let text = read(pid, b"/stat", &mut text)?;
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    text.get(name_end + 2).copied()
}

/// Returns the signals that wait for a process and are others', as a mask.
fn pending(pid: u32) -> Option<u64> {
    let mut text = [0; 4096];
    pending_in(read(pid, b"/status", &mut text)?)
}

/// Finds them in a `status` file: `ShdPnd`, and `Threads`.
fn pending_in(status: &[u8]) -> Option<u64> {
    let value = |name: &[u8]| {
        let at = status.windows(name.len()).position(|window| window == name)?;
        let value = status
            .get(at + name.len()..)?
            .split(|byte| *byte == b'\n')
            .next()?;
        std::str::from_utf8(value).ok()
    };
    let signals = u64::from_str_radix(value(b"\nShdPnd:\t")?, 16).ok()?;
    let is_alone = value(b"\nThreads:\t")? == "1";
    Some(if is_alone {
        signals
    } else {
        signals & !(1 << (libc::SIGSTOP - 1))
    })
}

/// Reads the beginning of a file in `/proc/PID`.
fn read<'a>(pid: u32, name: &[u8], text: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut path = *b"/proc/\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut at = 6;
    let mut unit = 1_000_000_000;
    while unit > 0 {
        if pid >= unit {
            *path.get_mut(at)? = b'0' + u8::try_from(pid / unit % 10).ok()?;
            at += 1;
        }
        unit /= 10;
    }
    path.get_mut(at..at + name.len())?.copy_from_slice(name);
    // SAFETY: the path is longer than its text and ends with a zero, and the buffer is as long as
    // is passed.
    let len = unsafe {
        let file = libc::open(path.as_ptr().cast(), libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return None;
        }
        let len = libc::read(file, text.as_mut_ptr().cast(), text.len());
        libc::close(file);
        usize::try_from(len).ok()?
    };
    text.get(..len)
}

#[cfg(test)]
mod tests {
    use super::{is_ending, pending, pending_in, state};

    #[test]
    fn states_of_processes() {
        assert!(matches!(state(std::process::id()), Some(b'R' | b'S')));
        assert!(state(1).is_some());
        assert_eq!(state(u32::MAX), None);
    }

    #[test]
    fn ends_of_processes() {
        assert!(!is_ending(std::process::id()));
        // That is told by the pidfd.
        assert!(!is_ending(u32::MAX));
    }

    #[test]
    fn signals_that_wait() {
        assert_eq!(pending(std::process::id()), Some(0));
        assert_eq!(pending(u32::MAX), None);
        let status = |threads: u32| format!("Name:\ta\nThreads:\t{threads}\nShdPnd:\t00000000000c0000\n");
        assert_eq!(pending_in(status(1).as_bytes()), Some(0xc0000));
        // SIGTSTP is never the kernel side's, and SIGSTOP may be that of another thread.
        assert_eq!(pending_in(status(12).as_bytes()), Some(0x80000));
        assert_eq!(pending_in(b"Name:\ta\n"), None);
    }
}
