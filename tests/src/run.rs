//! Programs run under a time limit, with what they say kept.

use std::io::Read;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use test_support::child::{ChildGuard, Scope};

use crate::journal;

/// The time that one run, or one wait, may take before it counts as failed. It is that long for
/// emulated kernels, whose processors are 10 to 30 times slower and share the host with compilers.
pub const LIMIT: Duration = Duration::from_mins(3);

const POLL: Duration = Duration::from_millis(5);

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its command line.
    pub command: String,
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// The exit code as a shell shows it: 128 + N for signal N.
    #[must_use]
    pub fn code(&self) -> i32 {
        let status = self.status;
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
    }

    /// The lines of standard error that are not empty.
    #[must_use]
    pub fn stderr_lines(&self) -> Vec<&str> {
        self.stderr
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect()
    }

    /// Fails unless the program ended with 0.
    pub fn succeeded(self) -> Result<Self> {
        if self.code() != 0 {
            bail!("`{}` ended with {}", self.command, self.code());
        }
        Ok(self)
    }
}

/// Runs a program to its end, [`LIMIT`] at the most.
pub fn run(command: Command) -> Result<Finished> {
    RunningProgram::start(command)?.finish(LIMIT)
}

/// Waits until something is true, at most `limit`; says whether it came true.
pub fn eventually(limit: Duration, mut is_true: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        if is_true()? {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        sleep(POLL);
    }
}

/// A program that runs, in a process group of its own; dropping it kills the group.
#[derive(Debug)]
pub struct RunningProgram {
    command: String,
    child: ChildGuard,
    stdout: Stream,
    stderr: Stream,
}

impl RunningProgram {
    /// Starts a program with nothing on its standard input.
    pub fn start(mut command: Command) -> Result<Self> {
        let text = shown(&command);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = ChildGuard::spawn(&mut command, Scope::Group)
            .with_context(|| format!("failed to run `{text}`"))?;
        let stdout = child.take_stdout().context("no standard output")?;
        let stderr = child.take_stderr().context("no standard error")?;
        Ok(Self {
            command: text,
            child,
            stdout: Stream::read_from(stdout),
            stderr: Stream::read_from(stderr),
        })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Returns what it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Returns what it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Returns whether it still runs.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.status()?.is_none())
    }

    /// Waits for its end; after `limit` it is killed, which is an error.
    pub fn finish(mut self, limit: Duration) -> Result<Finished> {
        let ended = self.child.wait_within(limit, || Ok(()))?;
        let late = ended.is_none();
        let status = match ended {
            Some(status) => status,
            None => self.child.end()?,
        };
        let finished = Finished {
            command: self.command.clone(),
            status,
            stdout: self.stdout.close(),
            stderr: self.stderr.close(),
        };
        journal::add(&finished);
        if late {
            bail!(
                "`{}` was still running after {} s and was killed",
                finished.command,
                limit.as_secs()
            );
        }
        Ok(finished)
    }
}

/// A stream that a thread of its own reads, so that the writer never waits.
#[derive(Debug)]
struct Stream {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    fn read_from(mut source: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(len @ 1..) = source.read(&mut buffer) {
                sink.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(&buffer[..len]);
            }
        });
        Self {
            text,
            reader: Some(reader),
        }
    }

    fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Everything up to the stream's end. A process that was left behind can hold the stream open:
    /// half a second after the program's end, what is there has to do.
    fn close(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let deadline = Instant::now() + Duration::from_millis(500);
            while !reader.is_finished() && Instant::now() < deadline {
                sleep(POLL);
            }
        }
        self.text()
    }
}

fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
