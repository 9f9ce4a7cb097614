//! Child processes that do not outlive their owner.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, set_parent_process_death_signal};

use crate::{privilege, process};

/// The time between two looks at a child that is waited for.
const POLL: Duration = Duration::from_millis(5);

/// Processes that a signal to a child reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The child alone.
    Process,
    /// The child and its descendants: it leads a process group of its own.
    Group,
}

/// A child process. Dropping it asks it to end where [`ask_first`](Self::ask_first) says so, kills
/// it where it has not ended by then, and reaps it.
#[derive(Debug)]
pub struct ChildGuard {
    child: Child,
    scope: Scope,
    request: Option<(Signal, Duration)>,
}

impl ChildGuard {
    /// Starts `command`.
    pub fn spawn(command: &mut Command, scope: Scope) -> Result<Self> {
        if scope == Scope::Group {
            command.process_group(0);
        }
        let child = command
            .spawn()
            .with_context(|| format!("failed to start {}", command.get_program().display()))?;
        Ok(Self {
            child,
            scope,
            request: None,
        })
    }

    /// The guard with a request: the child gets `signal` and has `patience` to end before it is
    /// killed.
    #[must_use]
    pub fn ask_first(mut self, signal: Signal, patience: Duration) -> Self {
        self.request = Some((signal, patience));
        self
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The writing end of its standard input, where that is a pipe that has not been taken.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The reading end of its standard output, likewise.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// The reading end of its standard error, likewise.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// The exit status, if it has ended.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("failed to wait for process {}", self.child.id()))
    }

    /// Waits for its end, however long that takes.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.child
            .wait()
            .with_context(|| format!("failed to wait for process {}", self.child.id()))
    }

    /// Waits for its end, `limit` at the most. `check` is called between looks, and its error ends
    /// the wait.
    pub fn wait_within(
        &mut self,
        limit: Duration,
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.status()?;
            if status.is_some() || Instant::now() > deadline {
                return Ok(status);
            }
            check()?;
            sleep(POLL);
        }
    }

    /// Sends a signal, by kill(1) as root where the caller may not. Does nothing once the child has
    /// been reaped, since its number can be another's then.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.status()?.is_some() {
            return Ok(());
        }
        let number = i32::try_from(self.child.id()).context("failed to read a process id")?;
        let pid = Pid::from_raw(number).context("failed to read a process id")?;
        let sent = match self.scope {
            Scope::Process => kill_process(pid, signal),
            Scope::Group => kill_process_group(pid, signal),
        };
        match sent {
            Err(Errno::PERM) => self.signal_as_root(number, signal),
            sent => sent.with_context(|| format!("failed to signal process {number}")),
        }
    }

    fn signal_as_root(&self, number: i32, signal: Signal) -> Result<()> {
        let target = match self.scope {
            Scope::Process => number,
            Scope::Group => -number,
        };
        let mut kill = privilege::elevated(Path::new("kill"));
        kill.args(["-s", &signal.as_raw().to_string(), "--", &target.to_string()]);
        process::output(&mut kill, "signal a process").map(drop)
    }

    /// Ends it: by its request first, then by SIGKILL. Returns its exit status.
    pub fn end(&mut self) -> Result<ExitStatus> {
        if let Some((signal, patience)) = self.request {
            self.signal(signal)?;
            if let Some(status) = self.wait_within(patience, || Ok(()))? {
                return Ok(status);
            }
        }
        self.signal(Signal::KILL)?;
        self.wait()
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("failed to end a child process: {error:#}");
        }
    }
}

/// Makes the kernel send `signal` to the child when the thread that started it ends, even by
/// SIGKILL. Where the child runs through sudo, sudo resets this; a signal to sudo is passed on.
pub fn end_with_parent(command: &mut Command, signal: Signal) {
    let request = move || set_parent_process_death_signal(Some(signal)).map_err(Into::into);
    // SAFETY: between fork and exec the closure makes one system call; it allocates nothing and
    // takes no lock.
    unsafe { command.pre_exec(request) };
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Stdio;

    use super::*;

    fn shell(script: &str, scope: Scope) -> ChildGuard {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped());
        ChildGuard::spawn(&mut command, scope).expect("sh starts")
    }

    fn first_line(child: &mut ChildGuard) -> String {
        let mut line = String::new();
        let stdout = child.take_stdout().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }

    #[test]
    fn asks_before_it_kills() {
        let mut child = shell(
            "trap 'exit 7' INT; echo ready; while :; do sleep 0.01; done",
            Scope::Process,
        )
        .ask_first(Signal::INT, Duration::from_secs(20));
        assert_eq!(first_line(&mut child), "ready");
        assert_eq!(child.end().expect("it ends").code(), Some(7));
        assert_eq!(child.end().expect("it has ended").code(), Some(7));
    }

    #[test]
    fn kills_one_that_does_not_listen() {
        let mut child = shell(
            "trap '' INT; echo ready; while :; do sleep 0.01; done",
            Scope::Process,
        )
        .ask_first(Signal::INT, Duration::from_millis(50));
        assert_eq!(first_line(&mut child), "ready");
        assert_eq!(child.end().expect("it ends").signal(), Some(9));
    }

    #[test]
    fn a_group_ends_whole() {
        let mut leader = shell("sleep 1000 & echo $!; wait", Scope::Group);
        let member = first_line(&mut leader);
        drop(leader);
        let is_gone = || {
            std::fs::read_to_string(format!("/proc/{member}/stat"))
                .map_or(true, |stat| stat.contains(") Z ") || stat.contains(") X "))
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_gone() && Instant::now() < deadline {
            sleep(POLL);
        }
        assert!(is_gone());
    }

    #[test]
    fn a_wait_has_a_limit_and_a_reason_to_stop() {
        let mut child = shell("sleep 1000", Scope::Group);
        let waited = child.wait_within(Duration::from_millis(20), || Ok(()));
        assert_eq!(waited.expect("it can be waited for"), None);
        let stopped = child.wait_within(Duration::from_mins(1), || anyhow::bail!("enough"));
        assert!(stopped.is_err());
    }
}
