//! The guard: a forked process that resumes every process that memtap has stopped, on request, when
//! memtap ends however it ends, and when memtap has been silent for too long.
//!
//! A resumed process may be stopped again at once, so it is removed from the kernel side's map
//! first. If memtap did that itself and were killed in between, nobody would resume the process;
//! the guard is not killed with memtap. A killed process loses its probes one after the other: the
//! guard stays until the last of memtap's probes is detached, and a little longer.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;

use crate::bpf::load::BpfError;
use crate::bpf::stopped::StoppedMap;
use crate::bpf::{Object, stopped};
use crate::process::proc_fs;

/// The guard of a recording. Dropping it tells the process that all probes are detached, and waits
/// for its end: everything that is stopped then runs again.
#[derive(Debug)]
pub(super) struct StopGuard {
    process: Option<GuardProcess>,
    /// Stops until the process was resumed.
    stops: u64,
}

/// The guard's process as memtap sees it.
#[derive(Debug)]
struct GuardProcess {
    // Closes when memtap ends, however it ends.
    requests: UnixStream,
    pid: libc::pid_t,
}

/// The request that is sent when memtap ends in order: no probe stops processes any more. Any other
/// request is the id of a process to be resumed.
const ALL_DETACHED: u32 = 0;

impl StopGuard {
    /// Forks the guard. Must be called before any probe is attached: nothing is stopped before.
    pub(super) fn start(object: &Object) -> Result<Self, BpfError> {
        let stopped = stopped::map_fd(object)?;
        let process = GuardProcess::fork(stopped).map_err(|error| BpfError::map("STOPPED", error))?;
        Ok(Self {
            process: Some(process),
            stops: 0,
        })
    }

    /// Returns the processes that have come to a stop. The records of why they were stopped are in
    /// the ring already: a caller that asks first and then reads the ring has all of them.
    pub(super) fn stopped(&self, object: &mut Object) -> Vec<u32> {
        if self.process.is_none() {
            return Vec::new();
        }
        Self::read_stopped(object).unwrap_or_else(|error| {
            log::warn!("{error}: what memtap has stopped goes on when it ends");
            Vec::new()
        })
    }

    fn read_stopped(object: &mut Object) -> Result<Vec<u32>, BpfError> {
        let mut stopped = stopped::processes(object)?;
        for pid in &stopped {
            if !proc_fs::is_running(*pid) {
                stopped::remove(object, *pid)?;
            }
        }
        stopped.retain(|pid| proc_fs::is_stopped(*pid));
        Ok(stopped)
    }

    /// Resumes processes whose code has its unwind tables now.
    pub(super) fn resume(&mut self, object: &mut Object, stopped: &[u32]) {
        let Some(process) = &mut self.process else { return };
        for pid in stopped {
            let Err(error) = process.request(*pid) else {
                continue;
            };
            log::debug!("the guard has gone: {error}");
            if let Err(error) = stopped::remove(object, *pid) {
                log::warn!("{error}: what memtap has stopped goes on when it ends");
                break;
            }
            send_continue(*pid);
        }
        self.stops += stopped.len() as u64;
    }

    /// Ends the guard once all probes are detached. What is stopped runs again.
    pub(super) fn finish(&mut self) {
        self.process = None;
    }

    /// Returns the number of stops that ended with a resumed process.
    pub(super) fn stops(&self) -> u64 {
        self.stops
    }
}

impl GuardProcess {
    fn fork(stopped: RawFd) -> io::Result<Self> {
        let (reader, requests) = UnixStream::pair()?;
        let (reader_fd, requests_fd) = (reader.as_raw_fd(), requests.as_raw_fd());
        let parent = std::process::id();
        // SAFETY: the child runs `serve` alone, which makes system calls on descriptors and memory
        // of its own stack and never returns; it takes no lock that another thread may have held at
        // the fork.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: this is the child of the fork above, with one thread; the descriptors are
            // open in it.
            0 => unsafe { serve(reader_fd, requests_fd, stopped, parent) },
            pid => Ok(Self { requests, pid }),
        }
    }

    /// Has the guard resume a process, and waits until it has. A repeated request that the guard
    /// reads when the process is about to stop for the next time would remove that stop from the
    /// map.
    fn request(&mut self, pid: u32) -> io::Result<()> {
        self.requests.write_all(&pid.to_ne_bytes())?;
        self.requests.read_exact(&mut [0])
    }
}

impl Drop for GuardProcess {
    fn drop(&mut self) {
        if let Err(error) = self.requests.write_all(&ALL_DETACHED.to_ne_bytes()) {
            log::debug!("the guard has gone: {error}");
        }
        // SAFETY: `pid` is memtap's own child, which nobody else waits for, and a null status is
        // allowed.
        if unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) } == -1 {
            log::debug!("failed to wait for the guard: {}", io::Error::last_os_error());
        }
    }
}

fn send_continue(pid: u32) {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return;
    };
    // SAFETY: a system call without pointers.
    if unsafe { libc::kill(pid, libc::SIGCONT) } != 0 {
        log::debug!("process {pid}: {}", io::Error::last_os_error());
    }
}

/// Microseconds between the guard's looks at the map once memtap is at its end.
const END_POLL_US: libc::c_uint = 10_000;

/// Milliseconds of silence after which the guard looks at the map by itself.
const MAX_SILENCE_MS: libc::c_int = 1000;

/// Looks in a row that may find a stopped process while memtap is silent. Then all are resumed: a
/// table takes a fraction of a second, so memtap hangs or was stopped itself.
const MAX_SILENT_LOOKS: u32 = 3;

/// Looks after the last probe was detached, for processes that were about to stop.
const LAST_LOOKS: u32 = 100;

/// The guard's descriptor of the requests.
const REQUESTS: RawFd = 0;

/// The guard's descriptor of the map of stopped processes.
const STOPPED: RawFd = 1;

/// Runs the guard. Signals that end whole process groups do not end it.
///
/// # Safety
/// Must be called in a child that was just forked, with descriptors that are open.
unsafe fn serve(reader: RawFd, parent_end: RawFd, stopped: RawFd, parent: u32) -> ! {
    // SAFETY: system calls on open descriptors, with pointers to locals that live across the calls
    // and lengths of those locals; an all-zero `sigset_t` is a valid one.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        libc::prctl(libc::PR_SET_NAME, c"memtap-guard".as_ptr());
        // A copy of the parent's end would keep the socket open, and other copies other things:
        // only two stay.
        libc::close(parent_end);
        if libc::dup2(reader, REQUESTS) == REQUESTS && libc::dup2(stopped, STOPPED) == STOPPED {
            libc::syscall(libc::SYS_close_range, 2, u32::MAX, 0);
        } else {
            libc::_exit(1);
        }
    }
    let map = StoppedMap::new(STOPPED);
    let all_detached = serve_requests(map);
    let mut looks = 0;
    loop {
        let is_none_left = !look(map, true).is_any_left;
        // SAFETY: system calls without pointers.
        unsafe {
            // A process's descriptors are closed, and its probes detached, before its children get
            // a new parent.
            if all_detached || libc::getppid().cast_unsigned() != parent {
                looks += 1;
                if looks == LAST_LOOKS || (all_detached && is_none_left) {
                    libc::_exit(0);
                }
            }
            libc::usleep(END_POLL_US);
        }
    }
}

/// Resumes processes on request, until memtap ends. Returns true if memtap has detached all probes
/// before.
fn serve_requests(map: StoppedMap) -> bool {
    let mut silent_looks = 0;
    loop {
        let mut poll = libc::pollfd {
            fd: REQUESTS,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: a pointer to one entry, as the count says.
        if unsafe { libc::poll(&raw mut poll, 1, MAX_SILENCE_MS) } == 0 {
            silent_looks = if look(map, false).is_any_stopped {
                silent_looks + 1
            } else {
                0
            };
            if silent_looks >= MAX_SILENT_LOOKS {
                look(map, true);
            }
            continue;
        }
        silent_looks = 0;
        let mut pid = 0u32;
        // SAFETY: a pointer to a number of the length that is passed; errno's address is this
        // thread's own.
        let (len, errno) = unsafe {
            let len = libc::read(REQUESTS, (&raw mut pid).cast(), size_of::<u32>());
            (len, *libc::__errno_location())
        };
        if len == -1 && errno == libc::EINTR {
            continue;
        }
        if len != size_of::<u32>().cast_signed() {
            return false;
        }
        if pid == ALL_DETACHED {
            return true;
        }
        map.remove(pid);
        // SAFETY: the answer is one byte of a live number.
        unsafe {
            libc::kill(pid.cast_signed(), libc::SIGCONT);
            libc::write(REQUESTS, (&raw const pid).cast(), 1);
        }
    }
}

/// Processes in the map.
#[derive(Default)]
struct StoppedProcesses {
    /// One has not ended.
    is_any_left: bool,
    /// One has come to a stop.
    is_any_stopped: bool,
}

/// Looks at every process in the map, and resumes those that have come to a stop if `resumes`. They
/// stay in the map: they may be stopped again.
fn look(map: StoppedMap, resumes: bool) -> StoppedProcesses {
    let mut found = StoppedProcesses::default();
    let mut next = map.next(None);
    for _ in 0..StoppedMap::MAX_ENTRIES {
        let Some(pid) = next else { break };
        // The first thread may have ended, and is a zombie then.
        match state(pid) {
            Some(b'T' | b'Z') => {
                if resumes {
                    // SAFETY: a system call without pointers.
                    unsafe { libc::kill(pid.cast_signed(), libc::SIGCONT) };
                }
                found.is_any_left = true;
                found.is_any_stopped = true;
            }
            Some(_) => found.is_any_left = true,
            None => {}
        }
        next = map.next(Some(pid));
    }
    found
}

/// Returns the state letter of `/proc/PID/stat`, if there is such a process. Takes no memory from
/// an allocator: another thread may have held its lock at the fork.
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
    // SAFETY: the path ends with a zero, and the buffer is as long as is passed.
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
