//! The guard's own process. It takes no memory from an allocator and makes system calls alone:
//! another thread of memtap may have held any lock at the fork.
//!
//! It has a session of its own, so that no signal to memtap's process group or terminal reaches it,
//! and no signal but `SIGKILL` ends it. Of what memtap had open it keeps three descriptors, none of
//! which keeps a probe attached.

use std::io;
use std::os::fd::RawFd;

use rustix::process::{Pid, WaitOptions};

use super::released::{ReleasedProcess, ReleasedProcesses, is_ending, is_stopped, now_ms, send_continue};
use crate::bpf::stopped::StoppedMap;
use crate::process::proc_fs;

/// A request to the guard: the id of a process to be resumed. The first message from there has the
/// same size: the guard's own process id, or the number of the error that kept it from starting, as
/// a negative number.
pub(super) type Request = [u8; 4];

/// The request that is sent when memtap ends in order: no probe stops processes any more.
pub(super) const ALL_DETACHED: Request = [0; 4];

/// The request that is sent when memtap goes on after a silence for which the guard has kept the
/// kernel side from stopping processes: it may again. No process has this id.
pub(super) const MAY_STOP: Request = [0xff; 4];

/// Descriptors and memory that the guard takes over.
pub(super) struct Inherited {
    /// The guard's end of the stream of requests.
    pub(super) requests: RawFd,
    /// The map of stopped processes.
    pub(super) stopped: RawFd,
    /// A pidfd of memtap.
    pub(super) memtap: RawFd,
    /// Its process id.
    pub(super) memtap_pid: u32,
    /// The name that process lists show.
    pub(super) title: Title,
    /// Room for the processes that are watched.
    pub(super) room: Vec<ReleasedProcess>,
}

/// The name of the guard: without memtap's, so that `pkill memtap` and `pkill -f` do not find it.
const NAME: &std::ffi::CStr = c"stop-guard";

/// The name that process lists show, and the memory of memtap's arguments, which they read it from.
pub(super) struct Title {
    text: [u8; 32],
    area: (usize, usize),
}

impl Title {
    /// Makes `stop-guard PID` with memtap's process id.
    pub(super) fn new() -> Self {
        let mut text = [0; 32];
        let name = format!("{} {}", NAME.to_string_lossy(), std::process::id());
        let len = name.len().min(text.len() - 1);
        text[..len].copy_from_slice(&name.as_bytes()[..len]);
        Self {
            text,
            area: arguments_area().unwrap_or_default(),
        }
    }

    /// Overwrites the arguments of this process.
    ///
    /// # Safety
    /// Must be called in a forked child that uses its arguments for nothing else.
    unsafe fn set(&self) {
        let (start, len) = self.area;
        let at: *mut u8 = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the kernel put the arguments there, in writable memory of this length that no
        // other thread of this process reads; the name is as long as is copied.
        unsafe {
            at.write_bytes(0, len);
            // A text without a zero behind it would be shown with the environment after it.
            std::ptr::copy_nonoverlapping(self.text.as_ptr(), at, len.saturating_sub(1).min(self.text.len()));
        }
    }
}

/// Reads the address and the length of this process's arguments: fields 48 and 49 of
/// `/proc/PID/stat` (`proc(5)`).
fn arguments_area() -> Option<(usize, usize)> {
    let text = String::from_utf8_lossy(&std::fs::read("/proc/self/stat").ok()?).into_owned();
    let mut fields = proc_fs::fields_from_third(&text)?.skip(45);
    let mut number = || fields.next()?.trim().parse::<usize>().ok();
    let (start, end) = (number()?, number()?);
    (start != 0).then_some((start, end.checked_sub(start)?))
}

/// The guard's parent, which waits for it and does nothing else: a guard among memtap's own
/// children would be killed by who kills memtap with its children, and one without a parent that
/// waits stays in the list of processes where nobody looks after orphans, as in many containers.
#[derive(Debug)]
pub(super) struct Keeper(Pid);

impl Drop for Keeper {
    /// Waits for the end of the guard.
    fn drop(&mut self) {
        if let Err(error) = rustix::process::waitpid(Some(self.0), WaitOptions::empty()) {
            log::debug!("failed to wait for the guard: {error}");
        }
    }
}

/// Forks the guard's parent, which forks the guard.
pub(super) fn fork(mut inherited: Inherited) -> io::Result<Keeper> {
    // SAFETY: system calls with pointers to locals; an all-zero `sigset_t` is a valid one. The
    // child runs `keep` alone, which makes system calls and never returns. Signals are blocked from
    // before the fork on: a handler of memtap's must not run in the child.
    let child = unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        let mut before = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let child = libc::fork();
        if child == 0 {
            keep(&mut inherited);
        }
        let failed = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        if child == -1 {
            return Err(failed);
        }
        child
    };
    let child = Pid::from_raw(child).ok_or_else(|| io::Error::other("it has no process id"))?;
    Ok(Keeper(child))
}

/// Forks the guard, and waits for its end.
///
/// # Safety
/// Must be called in a child that was just forked, with all signals blocked.
unsafe fn keep(inherited: &mut Inherited) -> ! {
    // SAFETY: system calls without pointers, with null where that is allowed, or with the address
    // and size of a local; errno's address is this thread's own.
    unsafe {
        let guard = libc::fork();
        if guard == 0 {
            serve(inherited);
        }
        if guard == -1 {
            let failed = -*libc::__errno_location();
            libc::write(
                inherited.requests,
                (&raw const failed).cast(),
                size_of::<Request>(),
            );
        }
        // Copies of memtap's descriptors would hide its end from the guard.
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
        if guard > 0 {
            libc::waitpid(guard, std::ptr::null_mut(), 0);
        }
        libc::_exit(0);
    }
}

/// The guard's descriptor of the requests.
const REQUESTS: RawFd = 0;

/// The guard's descriptor of the map of stopped processes.
const STOPPED: RawFd = 1;

/// The guard's pidfd of memtap.
const MEMTAP: RawFd = 2;

/// Milliseconds between the guard's looks at processes that may be about to stop.
const LOOK_INTERVAL_MS: libc::c_int = 10;

/// Milliseconds between the guard's looks at memtap itself. One that was killed closes its links
/// one after the other, each after a grace period of the kernel: until the last is closed it stops
/// processes, and its pidfd and its end of the stream say nothing of its end.
const LIVENESS_INTERVAL_MS: libc::c_int = 100;

/// Milliseconds of silence after which the guard looks at the map by itself.
const MAX_SILENCE_MS: i64 = 1000;

/// Looks in a row that may find a stopped process while memtap is silent. Then all are resumed, and
/// no other is stopped until memtap says that it goes on: a table takes a fraction of a second, so
/// memtap hangs or was stopped itself.
const MAX_SILENT_LOOKS: u32 = 3;

/// Runs the guard.
///
/// # Safety Must be called in a child that was just forked, with descriptors that are open and
/// above those of the guard.
unsafe fn serve(inherited: &mut Inherited) -> ! {
    // SAFETY: system calls on open descriptors, with pointers to literals and locals that live
    // across the calls and lengths of those; the arguments are used for nothing else here.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, NAME.as_ptr());
        inherited.title.set();
        // memtap's working directory would keep its file system from being unmounted.
        libc::chdir(c"/".as_ptr());
        // Copies of memtap's descriptors would keep probes attached: only three stay.
        let kept = [inherited.requests, inherited.stopped, inherited.memtap];
        for (to, from) in (REQUESTS..).zip(kept) {
            if libc::dup2(from, to) != to {
                libc::_exit(1);
            }
        }
        if libc::syscall(libc::SYS_close_range, MEMTAP + 1, u32::MAX, 0) != 0 {
            libc::_exit(1);
        }
        // Exempt from the end of memory, memtap's or its cgroup's. One that may not say so is as
        // good a guard otherwise.
        let file = libc::open(
            c"/proc/self/oom_score_adj".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        );
        if file >= 0 {
            libc::write(file, c"-1000".as_ptr().cast(), 5);
            libc::close(file);
        }
        let pid = libc::getpid();
        if libc::write(REQUESTS, (&raw const pid).cast(), size_of::<Request>()) != 4 {
            libc::_exit(1);
        }
    }
    let map = StoppedMap::new(STOPPED);
    let mut released = ReleasedProcesses::new(map, &mut inherited.room);
    match serve_requests(map, inherited.memtap_pid, &mut released) {
        RequestsEnd::AllDetached => map.for_each(|pid| released.add(pid)),
        // Probes are detached one after the other.
        RequestsEnd::MemtapDied => close(map, &mut released),
    }
    while !released.is_empty() {
        released.resume();
        // SAFETY: a system call without pointers.
        unsafe { libc::usleep(LOOK_INTERVAL_MS.cast_unsigned() * 1000) };
    }
    // SAFETY: ends this process, which holds nothing that wants to be given back.
    unsafe { libc::_exit(0) }
}

/// Times that the map is tried to be closed, some milliseconds apart.
const CLOSING_TRIES: u32 = 1000;

/// Keeps the kernel side from stopping anybody, and resumes those that it has stopped.
fn close(map: StoppedMap, released: &mut ReleasedProcesses<'_>) {
    for _ in 0..CLOSING_TRIES {
        if map.close(|pid| released.add(pid)) {
            return;
        }
        released.resume();
        // SAFETY: a system call without pointers.
        unsafe { libc::usleep(LOOK_INTERVAL_MS.cast_unsigned() * 1000) };
    }
}

/// The end of the requests.
enum RequestsEnd {
    /// memtap has detached all probes.
    AllDetached,
    /// memtap has died.
    MemtapDied,
}

/// Resumes processes on request, until memtap ends.
fn serve_requests(map: StoppedMap, memtap_pid: u32, released: &mut ReleasedProcesses<'_>) -> RequestsEnd {
    let mut silent_looks = 0;
    let mut looked_ms = now_ms();
    loop {
        let entry = |fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let mut polled = [entry(REQUESTS), entry(MEMTAP)];
        let patience_ms = if released.is_empty() {
            LIVENESS_INTERVAL_MS
        } else {
            LOOK_INTERVAL_MS
        };
        // SAFETY: a pointer to two entries, as the count says.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), 2, patience_ms) };
        released.resume();
        if polled[0].revents != 0 {
            match read_request() {
                None => return RequestsEnd::MemtapDied,
                Some(ALL_DETACHED) => return RequestsEnd::AllDetached,
                Some(MAY_STOP) => {
                    map.open();
                    acknowledge();
                }
                Some(pid) => answer(map, u32::from_ne_bytes(pid)),
            }
            silent_looks = 0;
            looked_ms = now_ms();
        } else if polled[1].revents != 0 || ready == -1 || is_ending(memtap_pid) {
            return RequestsEnd::MemtapDied;
        } else if now_ms() - looked_ms >= MAX_SILENCE_MS {
            looked_ms = now_ms();
            let mut is_any_stopped = false;
            map.for_each(|pid| is_any_stopped |= is_stopped(pid));
            silent_looks = if is_any_stopped { silent_looks + 1 } else { 0 };
            if silent_looks >= MAX_SILENT_LOOKS {
                silent_looks = 0;
                if !map.close(|pid| released.add(pid)) {
                    map.for_each(|pid| released.add(pid));
                }
            }
        }
    }
}

fn read_request() -> Option<Request> {
    let mut request: Request = [0; 4];
    // SAFETY: a pointer to bytes of the length that is passed.
    let len = unsafe { libc::read(REQUESTS, request.as_mut_ptr().cast(), request.len()) };
    (len == 4).then_some(request)
}

/// Resumes a process that has come to a stop with all its threads, and says so. One that is not in
/// the map was resumed before: if it is stopped now, that is somebody else's stop.
fn answer(map: StoppedMap, pid: u32) {
    if map.remove(pid) {
        send_continue(pid);
    }
    acknowledge();
}

/// Says that a request has been met.
fn acknowledge() {
    // SAFETY: the answer is one byte of a literal.
    unsafe { libc::write(REQUESTS, c"".as_ptr().cast(), 1) };
}

#[cfg(test)]
mod tests {
    use super::arguments_area;

    #[test]
    fn arguments_are_where_the_kernel_says() {
        let (start, len) = arguments_area().expect("known");
        let shown = std::fs::read("/proc/self/cmdline").expect("readable");
        assert_eq!(len, shown.len());
        let at: *const u8 = std::ptr::with_exposed_provenance(start);
        // SAFETY: the kernel put the arguments there, and nobody writes to them.
        assert_eq!(unsafe { std::slice::from_raw_parts(at, len) }, shown);
    }
}
