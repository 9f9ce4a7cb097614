//! The process that reads names, as the recording holds it.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::protocol::{self, ReaderReply, ReaderRequest};

/// The time that the process may take to accept a request, whose threads wait for it.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// A running process. Dropping it ends it.
#[derive(Debug)]
pub(super) struct ReaderProcess {
    socket: UnixStream,
    #[cfg(not(test))]
    child: std::process::Child,
}

impl ReaderProcess {
    /// Sends a request with its files.
    pub(super) fn send(&self, request: &ReaderRequest, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        protocol::send(&self.socket, request, files)
    }

    /// Waits for what the process says, until `deadline`; nothing where it has ended.
    pub(super) fn receive(&self, deadline: Instant) -> io::Result<Option<ReaderReply>> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.socket
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        Ok(protocol::receive(&self.socket)?.map(|(reply, _)| reply))
    }

    /// Makes the recording's socket, and the process's.
    fn sockets() -> io::Result<(UnixStream, UnixStream)> {
        let (own, other) = UnixStream::pair()?;
        own.set_write_timeout(Some(SEND_LIMIT))?;
        Ok((own, other))
    }
}

#[cfg(not(test))]
mod imp {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::process::{Command, Stdio};

    use super::ReaderProcess;
    use crate::symbolize::worker::{SUBCOMMAND, sandbox};

    impl ReaderProcess {
        /// Starts the process.
        pub(in crate::symbolize::worker) fn start() -> io::Result<Self> {
            let (socket, other) = Self::sockets()?;
            let mut command = Command::new("/proc/self/exe");
            command
                .arg(SUBCOMMAND)
                .env_clear()
                .stdin(OwnedFd::from(other))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                // Ctrl-C ends the recording, which still needs names.
                .process_group(0);
            Ok(Self {
                socket,
                child: command.spawn()?,
            })
        }

        /// Ends the process, and says why it has ended, if it had by itself.
        pub(in crate::symbolize::worker) fn end(mut self) -> String {
            // What ends it now changes nothing of what has ended it before.
            let status = match self.child.try_wait() {
                Ok(Some(status)) => Ok(status),
                _ => self.child.kill().and_then(|()| self.child.wait()),
            };
            match status.map(|status| status.signal()) {
                Ok(Some(libc::SIGBUS)) => "it was truncated while it was read".to_owned(),
                Ok(Some(libc::SIGABRT)) => {
                    let limit = sandbox::memory_limit_bytes() >> 20;
                    format!("reading it took more than {limit} MiB of memory")
                }
                Ok(Some(signal)) => format!("the process that read it was ended by signal {signal}"),
                Ok(None) | Err(_) => "the process that read it has ended".to_owned(),
            }
        }
    }

    impl Drop for ReaderProcess {
        fn drop(&mut self) {
            if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
                log::debug!("the process that reads names: {error}");
            }
        }
    }
}

/// In unit tests, whose program has no subcommand, a thread is the process.
#[cfg(test)]
mod imp {
    use std::io;

    use super::ReaderProcess;
    use crate::symbolize::worker::server;

    impl ReaderProcess {
        pub(in crate::symbolize::worker) fn start() -> io::Result<Self> {
            let (socket, other) = Self::sockets()?;
            std::thread::spawn(move || server::serve(&other, 1 << 30));
            Ok(Self { socket })
        }

        pub(in crate::symbolize::worker) fn end(self) -> String {
            drop(self);
            "its thread has ended".to_owned()
        }
    }
}
