//! Resuming what was stopped, whatever happens to us: a process of our own waits for our end and lets every process go on
//! that the kernel side has stopped.

use std::io::{self, PipeWriter};
use std::os::fd::{AsRawFd as _, RawFd};

use crate::bpf::Object;
use crate::bpf::load::BpfError;
use crate::target::process;

/// The guard process, and whom it guards.
#[derive(Debug)]
pub(super) struct Guard {
    // Closes when we end, however that is.
    alive: Option<PipeWriter>,
    guard: libc::pid_t,
}

impl Guard {
    /// Starts the guard. To be called before any probe is attached: nothing is stopped before.
    pub(super) fn start(object: &Object) -> Result<Self, BpfError> {
        let stopped = object.stopped_fd()?;
        Self::fork(stopped).map_err(|error| BpfError::map("STOPPED", error))
    }

    fn fork(stopped: RawFd) -> io::Result<Self> {
        let (reader, alive) = io::pipe()?;
        let (reader_fd, alive_fd) = (reader.as_raw_fd(), alive.as_raw_fd());
        // SAFETY: the child makes system calls alone, on what is on its stack, and never returns.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: as above.
            0 => unsafe { stand_guard(reader_fd, alive_fd, stopped) },
            guard => Ok(Self {
                alive: Some(alive),
                guard,
            }),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.alive.take());
        // SAFETY: a child of ours that nobody else waits for; no status is wanted.
        if unsafe { libc::waitpid(self.guard, std::ptr::null_mut(), 0) } == -1 {
            log::debug!("failed to wait for the guard: {}", io::Error::last_os_error());
        }
    }
}

/// Lets processes go on whose code has its tables now. Those that have not come to a stop yet stay for the next time.
pub(super) fn resume(object: &mut Object) -> Result<(), BpfError> {
    for pid in object.stopped()? {
        if process::is_running(pid) {
            if !process::is_stopped(pid) {
                continue;
            }
            go_on(pid);
        }
        object.forget_stopped(pid)?;
    }
    Ok(())
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

/// `BPF_MAP_GET_NEXT_KEY` of the kernel's `include/uapi/linux/bpf.h`, and its part of `union bpf_attr`.
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;

#[repr(C)]
struct NextKey {
    map: u32,
    unused: u32,
    key: u64,
    following: u64,
}

/// The guard itself. Signals that end whole groups of processes do not end it.
///
/// # Safety
/// To be called in a child that was just made by fork.
unsafe fn stand_guard(reader: RawFd, alive: RawFd, stopped: RawFd) -> ! {
    // SAFETY: system calls with valid pointers to locals, on descriptors that are open.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        libc::prctl(libc::PR_SET_NAME, c"memtap-guard".as_ptr());
        // Our own copy would keep the pipe open, and other copies other things: everything but these two goes.
        libc::close(alive);
        if libc::dup2(reader, 0) == 0 && libc::dup2(stopped, 1) == 1 {
            libc::syscall(libc::SYS_close_range, 2, u32::MAX, 0);
        } else {
            libc::_exit(1);
        }
        let mut byte = 0u8;
        while libc::read(0, (&raw mut byte).cast(), 1) == -1 {
            if *libc::__errno_location() != libc::EINTR {
                break;
            }
        }
        let (mut pid, mut next) = (0u32, 0u32);
        let mut is_first = true;
        loop {
            let ask = NextKey {
                map: 1,
                unused: 0,
                key: if is_first {
                    0
                } else {
                    (&raw const pid).addr() as u64
                },
                following: (&raw mut next).expose_provenance() as u64,
            };
            if libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_GET_NEXT_KEY,
                &raw const ask,
                size_of::<NextKey>(),
            ) != 0
            {
                libc::_exit(0);
            }
            pid = next;
            is_first = false;
            libc::kill(pid.cast_signed(), libc::SIGCONT);
        }
    }
}
