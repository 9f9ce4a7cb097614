//! A running loop, led through its steps by its standard input and output.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use test_support::child::{ChildGuard, Scope, end_with_parent};

use super::{SIZE_BYTES, interrupt};

/// The time that a tool that started the loop may take to write its report after it.
const FINISH_LIMIT: Duration = Duration::from_mins(1);

/// The loop's arguments.
pub(crate) struct Turns {
    /// Functions of the program between main and malloc.
    pub(crate) depth: u32,
    pub(crate) pairs: u64,
    pub(crate) batches: u64,
    pub(crate) threads: u32,
    /// True if even a single thread is one that main starts.
    pub(crate) starts_one: bool,
}

impl Turns {
    /// The calls of malloc that this makes: the batch that warms up is among them.
    pub(crate) fn calls(&self) -> u64 {
        (self.batches + 1) * self.pairs * u64::from(self.threads)
    }
}

/// The time that a batch took a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) cpu_ns: u64,
    pub(crate) wall_ns: u64,
}

/// The loop, or the tool that started it; made to end when dropped.
pub(crate) struct Loop {
    pub(super) child: ChildGuard,
    /// The loop ends with it.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// The address of its malloc.
    pub(super) malloc: u64,
}

impl Loop {
    /// Starts it by `command`, to which its arguments are added, and returns when it is ready.
    pub(crate) fn start(mut command: Command, turns: &Turns) -> Result<Self> {
        command
            .args([turns.depth.to_string(), SIZE_BYTES.to_string()])
            .args([turns.pairs.to_string(), turns.batches.to_string()])
            .arg(turns.threads.to_string());
        if turns.starts_one {
            command.arg("started");
        }
        Self::start_with_arguments(command)
    }

    /// Starts a command that has its arguments, and that says that it is ready and leads to its end
    /// as the loop does.
    pub(crate) fn start_with_arguments(mut command: Command) -> Result<Self> {
        end_with_parent(&mut command, Signal::KILL);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = ChildGuard::spawn(&mut command, Scope::Process)?;
        let (Some(input), Some(output)) = (child.take_stdin(), child.take_stdout()) else {
            bail!("failed to open pipes to the measured loop");
        };
        let mut started = Self {
            child,
            input: Some(input),
            output: BufReader::new(output),
            malloc: 0,
        };
        started.malloc = started.ready()?;
        Ok(started)
    }

    /// The address of malloc that it is ready with. A tool that starts it may say something first.
    fn ready(&mut self) -> Result<u64> {
        loop {
            let line = self.line()?;
            if let Some(address) = line.strip_prefix("ready ") {
                return address
                    .parse()
                    .with_context(|| format!("failed to read the address of malloc: {line:?}"));
            }
        }
    }

    /// Lets it run, and returns what each thread's batches took.
    pub(crate) fn run(&mut self) -> Result<Vec<Batch>> {
        self.go()?;
        let mut batches = Vec::new();
        loop {
            let line = self.line()?;
            if line == "done" {
                return Ok(batches);
            }
            let (cpu_ns, wall_ns) = pair(&line)?;
            batches.push(Batch { cpu_ns, wall_ns });
        }
    }

    /// Sends the line that it waits for.
    pub(crate) fn go(&mut self) -> Result<()> {
        self.input
            .as_mut()
            .context("the measured loop has ended")?
            .write_all(b"go\n")
            .context("failed to start the measured loop's batches")
    }

    /// Closes its input, which ends it.
    pub(crate) fn end_input(&mut self) {
        self.input = None;
    }

    /// Lets it end, and waits until a tool that started it has written its report.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.input = None;
        let mut rest = String::new();
        self.output
            .read_to_string(&mut rest)
            .context("failed to read from the measured loop")?;
        let status = self
            .child
            .wait_within(FINISH_LIMIT, interrupt::check)?
            .context("failed to see the measured loop end")?;
        ensure!(status.success(), "the measured loop ended with {status}");
        Ok(())
    }

    /// Its next line.
    pub(crate) fn line(&mut self) -> Result<String> {
        self.wait_for_output()?;
        let mut line = String::new();
        let length = self
            .output
            .read_line(&mut line)
            .context("failed to read from the measured loop")?;
        if length == 0 {
            bail!("failed to follow the measured loop: it ended early");
        }
        Ok(line.trim_end().to_owned())
    }

    /// Returns when there is something to read, or nothing will come any more.
    fn wait_for_output(&self) -> Result<()> {
        while self.output.buffer().is_empty() {
            interrupt::check()?;
            let mut outputs = [PollFd::new(self.output.get_ref(), PollFlags::IN)];
            // A signal ends the call early, with an error: the next turn sees what it asks for.
            if poll(&mut outputs, Some(&POLL)).is_ok_and(|ready| ready > 0) {
                break;
            }
        }
        Ok(())
    }
}

/// The time after which a wait looks whether the bench is to end.
const POLL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Two numbers.
pub(crate) fn pair(line: &str) -> Result<(u64, u64)> {
    let numbers = line
        .split_once(' ')
        .and_then(|(first, second)| Some((first.parse().ok()?, second.parse().ok()?)));
    numbers.with_context(|| format!("failed to read the measured loop's figures: {line:?}"))
}

/// A loop that waits ends with its input, and the tool that started it cleans up after it.
const END_LIMIT: Duration = Duration::from_secs(5);

impl Drop for Loop {
    fn drop(&mut self) {
        self.input = None;
        // The guard kills one that is still there.
        if let Err(error) = self.child.wait_within(END_LIMIT, interrupt::check) {
            eprintln!("xtask: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::pair;

    #[test]
    fn figures_of_a_batch() {
        assert_eq!(pair("12 345").ok(), Some((12, 345)));
        assert!(pair("12").is_err());
        assert!(pair("12 -1").is_err());
    }
}
