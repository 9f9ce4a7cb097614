//! The guard: a forked process that resumes every process that memtap has stopped, on request, when
//! memtap ends however it ends, and when memtap has been silent for too long.
//!
//! A resumed process may be stopped again at once, so it is removed from the kernel side's map
//! first. If memtap did that itself and were killed in between, nobody would resume the process;
//! the guard is not killed with memtap. After a silence of memtap's nobody is stopped until it goes
//! on. What cannot be guarded is not stopped: without a guard the
//! map is closed, by memtap if the guard has gone, by the guard if memtap has.

mod released;
mod server;

use std::collections::HashSet;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use crate::bpf::load::BpfError;
use crate::bpf::stopped::StoppedMap;
use crate::bpf::{Object, stopped};
use crate::process::{cgroup, proc_fs};
use server::{ALL_DETACHED, Keeper, MAY_STOP, Request, Title};

/// The guard of a recording. Dropping it tells the process that all probes are detached, and waits
/// for its end: everything that is stopped then runs again.
#[derive(Debug)]
pub(super) struct StopGuard {
    /// Nothing where the guard has gone, and nobody is stopped any more.
    process: Option<GuardProcess>,
    map: StoppedMap,
    /// Processes that may still be about to stop, though the guard has gone.
    unguarded: Vec<(u32, Instant)>,
    /// memtap was silent for so long that the guard has kept processes from being stopped. What has
    /// happened meanwhile is being read.
    was_silent: bool,
    /// Stops until the process was resumed.
    stops: u64,
    /// Processes that were stopped at their beginning, of which the parents may react.
    begun: Vec<BegunProcess>,
    /// Processes in scope that are known to look after the stops of their children.
    watchers: HashSet<u32>,
}

/// A process that was stopped at its beginning.
#[derive(Debug)]
struct BegunProcess {
    pid: u32,
    parent: u32,
    /// The time at which it was resumed.
    since: Instant,
}

/// The time in which a parent acts on the stop of its child, if it does.
const REACTION_LIMIT: Duration = Duration::from_secs(1);

/// The time that a process may take to stop after it was entered in the map.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// Interval of looks at a process that is about to stop, and their number: one that runs comes to
/// its stop within microseconds.
const STOP_POLL: Duration = Duration::from_micros(50);
const STOP_LOOKS: u32 = 40;

impl StopGuard {
    /// Forks the guard. Must be called before any probe is attached: nothing is stopped before, and
    /// nothing at all if there is no guard.
    pub(super) fn start(object: &Object) -> Result<Self, BpfError> {
        let fd = stopped::map_fd(object)?;
        let mut guard = Self {
            process: None,
            map: StoppedMap::new(fd),
            unguarded: Vec::new(),
            was_silent: false,
            stops: 0,
            begun: Vec::new(),
            watchers: HashSet::new(),
        };
        match GuardProcess::start(fd) {
            Ok(process) => guard.process = Some(process),
            Err(error) => {
                guard.stop_no_more(&format!(
                    "failed to start the guard of stopped processes: {error}"
                ));
            }
        }
        Ok(guard)
    }

    /// Returns the processes that have come to a stop. The records of why they were stopped are in
    /// the ring already: a caller that asks first and then reads the ring has all of them.
    pub(super) fn stopped(&mut self, object: &mut Object) -> Vec<u32> {
        self.resume_unguarded();
        let Some(process) = &mut self.process else {
            return Vec::new();
        };
        if process.has_ended() {
            self.stop_no_more("the guard of stopped processes has ended");
            return Vec::new();
        }
        self.was_silent = self.map.is_closed();
        if self.was_silent {
            log::warn!(
                "memtap stood still, and no process was stopped for it any more: first calls of processes, and stacks \
                 through new code, may be missing"
            );
            if let Err(error) = process.send(MAY_STOP) {
                self.stop_no_more(&format!(
                    "the guard of stopped processes does not answer: {error}"
                ));
                return Vec::new();
            }
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
    pub(super) fn resume(&mut self, stopped: &[u32]) {
        for pid in stopped {
            let Some(process) = &mut self.process else { return };
            if let Err(error) = process.request(*pid) {
                // Those that are left are in the map.
                self.stop_no_more(&format!(
                    "the guard of stopped processes does not answer: {error}"
                ));
                return;
            }
            self.stops += 1;
        }
    }

    /// Resumes a process that was stopped at its beginning, as soon as it has come to its stop. One
    /// that takes longer is among those that [`stopped`](Self::stopped) returns later.
    pub(super) fn resume_begun(&mut self, pid: u32) {
        let is_stopped = (0..STOP_LOOKS).any(|_| {
            let is_stopped = proc_fs::is_stopped(pid);
            if !is_stopped {
                std::thread::sleep(STOP_POLL);
            }
            is_stopped
        });
        if is_stopped {
            self.resume(&[pid]);
        }
        self.begun.extend(proc_fs::parent(pid).map(|parent| BegunProcess {
            pid,
            parent,
            since: Instant::now(),
        }));
    }

    /// Returns true if processes that are reported now may not have been stopped since memtap stood
    /// still.
    pub(super) fn was_silent(&self) -> bool {
        self.was_silent || (self.process.is_some() && self.map.is_closed())
    }

    /// Notes a process that sees when a child of it is stopped.
    pub(super) fn note_watcher(&mut self, pid: u32) {
        self.watchers.insert(pid);
    }

    /// Resumes parents that have stopped themselves since a child of theirs was stopped at its
    /// beginning, as programs do that look after their children's stops. Returns one of them.
    ///
    /// Others may have been stopped by somebody else: those that are in scope, of which it would be
    /// known that they look after stops, and those whose child is stopped too, by a user at a
    /// terminal most often.
    pub(super) fn resume_parents(&mut self, is_in_scope: impl Fn(u32) -> bool) -> Option<u32> {
        let own = std::process::id();
        let watchers = &self.watchers;
        let mut resumed = None;
        self.begun.retain(|begun| {
            let parent = begun.parent;
            let reacts = parent != own && (watchers.contains(&parent) || !is_in_scope(parent));
            if reacts && !proc_fs::is_stopped(begun.pid) && proc_fs::is_stopped(parent) {
                send_continue(parent);
                resumed = Some(parent);
                return false;
            }
            begun.since.elapsed() < REACTION_LIMIT
        });
        resumed
    }

    /// Waits until the guard ends, if there is one.
    pub(super) async fn ended(&self) {
        match &self.process {
            Some(process) => process.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Stops nobody from now on, and resumes those that are stopped.
    fn stop_no_more(&mut self, why: &str) {
        let now = Instant::now();
        let is_closed = self.map.close(|pid| self.unguarded.push((pid, now)));
        if let Some(process) = self.process.take() {
            process.kill();
        }
        if is_closed {
            log::warn!(
                "{why}; no process is stopped any more, and stacks through newly loaded code may be cut short"
            );
        } else {
            log::warn!(
                "{why}, and the kernel goes on stopping processes: end memtap, and send SIGCONT to its targets"
            );
        }
        for (pid, _) in &self.unguarded {
            send_continue(*pid);
        }
    }

    fn resume_unguarded(&mut self) {
        for (pid, since) in &mut self.unguarded {
            if proc_fs::is_stopped(*pid) {
                send_continue(*pid);
                *since = Instant::now();
            }
        }
        self.unguarded.retain(|(_, since)| since.elapsed() < STOP_LIMIT);
    }

    /// Ends the guard once all probes are detached. What is stopped runs again.
    pub(super) fn finish(&mut self) {
        self.process = None;
        while !self.unguarded.is_empty() {
            self.resume_unguarded();
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns the number of stops that ended with a resumed process.
    pub(super) fn stops(&self) -> u64 {
        self.stops
    }
}

/// The guard's process as memtap sees it.
#[derive(Debug)]
struct GuardProcess {
    connection: GuardConnection,
    pidfd: AsyncFd<OwnedFd>,
}

/// The way to a guard. Dropping it ends the guard, and waits for that.
#[derive(Debug)]
struct GuardConnection {
    // Closes when memtap ends, however it ends; and here before the guard's end is waited for.
    requests: UnixStream,
    _keeper: Keeper,
}

/// The time in which the guard answers. A request takes it some microseconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

impl GuardProcess {
    fn start(stopped: RawFd) -> io::Result<Self> {
        let (reader, requests) = UnixStream::pair()?;
        requests.set_read_timeout(Some(ANSWER_LIMIT))?;
        let memtap = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
        let keeper = server::fork(server::Inherited {
            requests: reader.as_raw_fd(),
            stopped,
            memtap: memtap.as_raw_fd(),
            memtap_pid: std::process::id(),
            title: Title::new(),
            room: released::room(),
        })?;
        // The guard alone has the other end: its death is the end of the stream.
        drop(reader);
        let mut connection = GuardConnection {
            requests,
            _keeper: keeper,
        };
        let mut pid: Request = [0; 4];
        connection.requests.read_exact(&mut pid)?;
        let pid = i32::from_ne_bytes(pid);
        let guard = match pid {
            ..0 => return Err(io::Error::from_raw_os_error(pid.saturating_neg())),
            _ => Pid::from_raw(pid).ok_or_else(|| io::Error::other("it has no process id"))?,
        };
        let pidfd = pidfd_open(guard, PidfdFlags::empty())?;
        // A service's end kills everything in its cgroup, memtap and its guard alike.
        for error in cgroup::move_to_top(pid.cast_unsigned()) {
            log::debug!("{error}: the guard of stopped processes ends if its cgroup is killed as a whole");
        }
        // SAFETY: the pidfd is owned, and stays the same and open until it is dropped.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, tokio::io::Interest::READABLE) };
        Ok(Self {
            connection,
            pidfd: pidfd?,
        })
    }

    /// Has the guard resume a process, and waits until it has. A repeated request that the guard
    /// reads when the process is about to stop for the next time would remove that stop from the
    /// map.
    fn request(&mut self, pid: u32) -> io::Result<()> {
        self.send(pid.to_ne_bytes())
    }

    fn send(&mut self, request: Request) -> io::Result<()> {
        self.connection.requests.write_all(&request)?;
        self.connection.requests.read_exact(&mut [0])
    }

    /// Returns true if the guard has ended: its end of the stream is closed then.
    fn has_ended(&mut self) -> bool {
        let requests = &mut self.connection.requests;
        let answer = requests
            .set_nonblocking(true)
            .and_then(|()| requests.read(&mut [0]));
        let is_open = matches!(&answer, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        !is_open || requests.set_nonblocking(false).is_err()
    }

    async fn ended(&self) {
        if let Err(error) = self.pidfd.readable().await {
            log::debug!("the guard's end is not waited for: {error}");
            std::future::pending::<()>().await;
        }
    }

    /// Kills a guard that does not answer: a late request of it would resume a process that
    /// somebody else has stopped.
    fn kill(&self) {
        if let Err(error) = pidfd_send_signal(&self.pidfd, Signal::KILL) {
            log::debug!("the guard has gone: {error}");
        }
    }
}

impl Drop for GuardProcess {
    fn drop(&mut self) {
        let requests = &mut self.connection.requests;
        let ended = requests
            .write_all(&ALL_DETACHED)
            .and_then(|()| requests.read(&mut [0]));
        if let Err(error) = ended {
            log::debug!("the guard does not end: {error}");
            self.kill();
        }
    }
}

fn send_continue(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    if let Err(error) = rustix::process::kill_process(pid, Signal::CONT) {
        log::debug!("process {}: {error}", pid.as_raw_nonzero());
    }
}
