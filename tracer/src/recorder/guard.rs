//! Resuming what was stopped, whatever happens to us: a process of our own does it, at our word, at our end, or when we have
//! been silent for too long.
//!
//! A process that goes on may be stopped again at once, so that it is taken out of the kernel side's table before. Were we
//! killed in between, nobody would know of it; the guard is not. And a process that is killed loses its probes one after
//! the other: the guard stays until the last of ours is off, and a little longer.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;

use crate::bpf::Object;
use crate::bpf::load::BpfError;
use crate::process::proc_fs;

/// The guard process, and whom it guards.
#[derive(Debug)]
pub(super) struct Guard {
    // Closes when we end, however that is.
    words: UnixStream,
    pid: libc::pid_t,
}

/// What the guard is told where we end as we should: nothing stops processes any more. Any other word is a process that
/// is to go on.
const ALL_DETACHED: u32 = 0;

impl Guard {
    /// Starts the guard. To be called before any probe is attached: nothing is stopped before.
    pub(super) fn start(object: &Object) -> Result<Self, BpfError> {
        let stopped = object.stopped_fd()?;
        Self::fork(stopped).map_err(|error| BpfError::map("STOPPED", error))
    }

    fn fork(stopped: RawFd) -> io::Result<Self> {
        let (reader, words) = UnixStream::pair()?;
        let (reader_fd, words_fd) = (reader.as_raw_fd(), words.as_raw_fd());
        let parent = std::process::id();
        // SAFETY: the child makes system calls alone, on what is on its stack, and never returns.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: as above.
            0 => unsafe { stand_guard(reader_fd, words_fd, stopped, parent) },
            pid => Ok(Self { words, pid }),
        }
    }

    /// The processes that have come to a stop. What they were stopped for was told before: whoever asks first and then
    /// reads what was told knows all of it.
    pub(super) fn stopped(object: &mut Object) -> Result<Vec<u32>, BpfError> {
        let mut stopped = object.stopped()?;
        for pid in &stopped {
            if !proc_fs::is_running(*pid) {
                object.forget_stopped(*pid)?;
            }
        }
        stopped.retain(|pid| proc_fs::is_stopped(*pid));
        Ok(stopped)
    }

    /// Lets processes go on whose code has its tables now.
    pub(super) fn resume(&mut self, object: &mut Object, stopped: &[u32]) -> Result<(), BpfError> {
        for pid in stopped {
            if let Err(error) = self.tell(*pid) {
                log::debug!("the guard has gone: {error}");
                object.forget_stopped(*pid)?;
                go_on(*pid);
            }
        }
        Ok(())
    }

    /// Tells the guard of a process, and waits until it goes on: the same word said again, and heard when the process is
    /// about to stop for the next time, would take that stop out of the table.
    fn tell(&mut self, pid: u32) -> io::Result<()> {
        self.words.write_all(&pid.to_ne_bytes())?;
        self.words.read_exact(&mut [0])
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = self.words.write_all(&ALL_DETACHED.to_ne_bytes()) {
            log::debug!("the guard has gone: {error}");
        }
        // SAFETY: a child of ours that nobody else waits for; no status is wanted.
        if unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) } == -1 {
            log::debug!("failed to wait for the guard: {}", io::Error::last_os_error());
        }
    }
}

fn go_on(pid: u32) {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return;
    };
    // SAFETY: a system call without pointers.
    if unsafe { libc::kill(pid, libc::SIGCONT) } != 0 {
        log::debug!("process {pid}: {}", io::Error::last_os_error());
    }
}

/// How often the guard looks for processes that were stopped, once we are at our end.
const GUARD_EVERY_US: u32 = 10_000;

/// How often it looks while we say nothing, and how often it may find a process stopped then until it lets all go on: a table
/// takes a fraction of a second, so that we hang or were stopped ourselves.
const SILENCE_MS: libc::c_int = 1000;
const MOST_SILENT_TURNS: u32 = 3;

/// How often it looks after the last probe was taken off: for processes that were about to stop.
const LAST_TURNS: u32 = 100;

/// The guard itself. Signals that end whole groups of processes do not end it.
///
/// # Safety
/// To be called in a child that was just made by fork.
unsafe fn stand_guard(reader: RawFd, words: RawFd, stopped: RawFd, parent: u32) -> ! {
    // SAFETY: system calls with valid pointers to locals, on descriptors that are open.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        libc::prctl(libc::PR_SET_NAME, c"memtap-guard".as_ptr());
        // Our own copy would keep the socket open, and other copies other things: everything but these two goes.
        libc::close(words);
        if libc::dup2(reader, 0) == 0 && libc::dup2(stopped, STOPPED.cast_signed()) == 1 {
            libc::syscall(libc::SYS_close_range, 2, u32::MAX, 0);
        } else {
            libc::_exit(1);
        }
        let mut are_all_off = false;
        let mut silent_turns = 0;
        loop {
            let mut said = libc::pollfd {
                fd: 0,
                events: libc::POLLIN,
                revents: 0,
            };
            if libc::poll(&raw mut said, 1, SILENCE_MS) == 0 {
                silent_turns = if look(false).is_any_stopped {
                    silent_turns + 1
                } else {
                    0
                };
                if silent_turns >= MOST_SILENT_TURNS {
                    look(true);
                }
                continue;
            }
            silent_turns = 0;
            let mut word = 0u32;
            let len = libc::read(0, (&raw mut word).cast(), size_of::<u32>());
            if len == -1 && *libc::__errno_location() == libc::EINTR {
                continue;
            }
            if len != size_of::<u32>().cast_signed() {
                break;
            }
            if word == ALL_DETACHED {
                are_all_off = true;
                break;
            }
            forget_stopped(word);
            libc::kill(word.cast_signed(), libc::SIGCONT);
            libc::write(0, (&raw const word).cast(), 1);
        }
        let mut turns = 0;
        loop {
            let is_none_left = !look(true).is_any_left;
            // Descriptors of a process are closed, and its probes with them, before its children get another parent.
            if are_all_off || libc::getppid().cast_unsigned() != parent {
                turns += 1;
                if turns == LAST_TURNS || (are_all_off && is_none_left) {
                    libc::_exit(0);
                }
            }
            libc::usleep(GUARD_EVERY_US);
        }
    }
}

/// The guard's descriptor of the table of processes that were stopped.
const STOPPED: u32 = 1;

/// Most entries of that table.
const MOST_STOPPED: u32 = 4096;

/// What the guard has found in the table.
#[derive(Default)]
struct Found {
    /// A process that has not ended.
    is_any_left: bool,
    /// One that has come to a stop.
    is_any_stopped: bool,
}

/// Looks at every process in the table, and may let those go on that have come to a stop. They stay in the table: they may
/// be stopped again.
///
/// # Safety
/// As for [`stand_guard`], whose descriptors must be in their places.
unsafe fn look(lets_go_on: bool) -> Found {
    let mut next = 0;
    let mut found = Found::default();
    // SAFETY: the descriptor is the table's.
    unsafe {
        let mut has_one = next_stopped(None, &mut next);
        for _ in 0..MOST_STOPPED {
            if !has_one {
                break;
            }
            let pid = next;
            // The first thread may have ended, and is a zombie then.
            match state(pid) {
                Some(b'T' | b'Z') => {
                    if lets_go_on {
                        libc::kill(pid.cast_signed(), libc::SIGCONT);
                    }
                    found.is_any_left = true;
                    found.is_any_stopped = true;
                }
                Some(_) => found.is_any_left = true,
                None => {}
            }
            has_one = next_stopped(Some(&pid), &mut next);
        }
    }
    found
}

/// The commands of `bpf` that the guard gives, and their part of `union bpf_attr` (`include/uapi/linux/bpf.h`).
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;

#[repr(C)]
struct OfKey {
    map: u32,
    unused: u32,
    key: u64,
    following: u64,
}

/// The process that follows another in the table, or the first. False if there is none.
///
/// # Safety
/// As for [`look`].
unsafe fn next_stopped(pid: Option<&u32>, next: &mut u32) -> bool {
    let ask = OfKey {
        map: STOPPED,
        unused: 0,
        key: pid.map_or(0, |pid| std::ptr::from_ref(pid).expose_provenance() as u64),
        following: std::ptr::from_mut(next).expose_provenance() as u64,
    };
    // SAFETY: a valid attribute of the size that is given, with pointers to numbers of the size of the table's keys.
    unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_GET_NEXT_KEY,
            &raw const ask,
            size_of::<OfKey>(),
        ) == 0
    }
}

/// Takes a process out of the table.
///
/// # Safety
/// As for [`look`].
unsafe fn forget_stopped(pid: u32) {
    let ask = OfKey {
        map: STOPPED,
        unused: 0,
        key: (&raw const pid).expose_provenance() as u64,
        following: 0,
    };
    // SAFETY: as for the other command.
    unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_DELETE_ELEM,
            &raw const ask,
            size_of::<OfKey>(),
        )
    };
}

/// How a process is, as `/proc/PID/stat` has it; nothing if there is none. Nothing here takes memory from an allocator:
/// another thread may have held its lock at the fork.
fn state(pid: u32) -> Option<u8> {
    let mut path = *b"/proc/\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut at = 6;
    let mut unit = 1_000_000_000;
    while unit > 0 {
        if pid >= unit {
            *path.get_mut(at)? = b'0' + u8::try_from(pid / unit % 10).ok()?;
            at += 1;
        }
        unit /= 10;
    }
    path.get_mut(at..at + 5)?.copy_from_slice(b"/stat");
    // The state is behind the parenthesis that closes the name, which is short.
    let mut text = [0u8; 256];
    // SAFETY: the path ends with a zero, and the buffer is as long as is said.
    let len = unsafe {
        let file = libc::open(path.as_ptr().cast(), libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return None;
        }
        let len = libc::read(file, text.as_mut_ptr().cast(), text.len());
        libc::close(file);
        usize::try_from(len).ok()?
    };
    let text = text.get(..len)?;
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    text.get(name_end + 2).copied()
}

#[cfg(test)]
mod tests {
    use super::state;

    #[test]
    fn states_of_processes() {
        assert!(matches!(state(std::process::id()), Some(b'R' | b'S')));
        assert!(state(1).is_some());
        assert_eq!(state(u32::MAX), None);
    }
}
