//! The signal that ended a process which is no child of memtap's.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::proc_fs;

/// `struct pidfd_info` of the kernel's `include/uapi/linux/pidfd.h`, as of its first version.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`: the exit code is wanted, or there.
const INFO_EXIT: u64 = 1 << 3;

/// `PIDFD_GET_INFO`: `_IOWR(0xFF, 11, struct pidfd_info)`.
const GET_INFO: libc::Ioctl = 3 << 30 | (size_of::<PidfdInfo>() as libc::Ioctl) << 16 | 0xff << 8 | 0x0b;

const _: () = assert!(size_of::<PidfdInfo>() == 64);

/// A process that may end.
#[derive(Debug)]
pub(crate) struct ExitWatch {
    pid: u32,
    pidfd: OwnedFd,
}

impl ExitWatch {
    /// Watches a process that runs.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pidfd = pidfd_open(raw.ok_or(io::ErrorKind::NotFound)?, PidfdFlags::empty())?;
        Ok(Self { pid, pidfd })
    }

    /// The process.
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// The signal that has ended it. `None` for one that runs, or has ended otherwise, and where
    /// the kernel does not tell: before Linux 6.15, of one whose parent has waited for it.
    pub(crate) fn signal(&self) -> Option<i32> {
        let status = self.reaped().or_else(|| proc_fs::zombie_status(self.pid))?;
        libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
    }

    /// The status of one whose parent has waited for it.
    fn reaped(&self) -> Option<i32> {
        let mut info = PidfdInfo {
            mask: INFO_EXIT,
            ..PidfdInfo::default()
        };
        // SAFETY: the request writes as many bytes as its number says, the structure's.
        let outcome = unsafe { libc::ioctl(self.pidfd.as_raw_fd(), GET_INFO, &raw mut info) };
        (outcome == 0 && info.mask & INFO_EXIT != 0).then_some(info.exit_code)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn signal_of_a_process_that_has_ended() {
        let mut child = Command::new("sleep").arg("100").spawn().expect("a program");
        let watch = ExitWatch::open(child.id()).expect("a process");
        assert_eq!(watch.signal(), None, "it runs");
        child.kill().expect("sent");
        while watch.signal().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(watch.signal(), Some(libc::SIGKILL), "not waited for yet");
        child.wait().expect("ended");
        // Linux 6.15 and later still tell.
        assert!(matches!(watch.signal(), None | Some(libc::SIGKILL)));
    }

    #[test]
    fn no_process() {
        assert!(ExitWatch::open(0).is_err());
        assert!(ExitWatch::open(u32::MAX).is_err());
    }
}
