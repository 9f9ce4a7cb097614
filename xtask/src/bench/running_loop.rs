//! A running loop, led through its steps by its standard input and output.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Effort, SIZE_BYTES};

/// What a tool that started the loop may take to write its report after it.
const FINISH_LIMIT: Duration = Duration::from_mins(1);

/// The loop, or the tool that started it; made to end when dropped.
pub(crate) struct Loop {
    pub(super) child: Child,
    /// The loop ends with it.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// The address of its malloc.
    pub(super) malloc: u64,
}

impl Loop {
    /// Starts it by `command`, to which its arguments are added, and returns when it is ready.
    pub(crate) fn start(mut command: Command, depth: u32, effort: &Effort) -> Result<Self> {
        command
            .args([depth.to_string(), SIZE_BYTES.to_string()])
            .args([effort.pairs.to_string(), effort.batches.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("failed to start the measured loop")?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
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

    /// Lets it run, and returns each batch's nanoseconds of CPU time.
    pub(crate) fn run(&mut self) -> Result<Vec<u64>> {
        self.input
            .as_mut()
            .context("the measured loop has ended")?
            .write_all(b"go\n")
            .context("failed to start the measured loop's batches")?;
        let mut batches = Vec::new();
        loop {
            let line = self.line()?;
            if line == "done" {
                return Ok(batches);
            }
            batches.push(
                line.parse()
                    .with_context(|| format!("failed to read a batch's time: {line:?}"))?,
            );
        }
    }

    /// Lets it end, and waits until a tool that started it has written its report.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.input = None;
        let mut rest = String::new();
        self.output
            .read_to_string(&mut rest)
            .context("failed to read from the measured loop")?;
        let status = self
            .ended_within(FINISH_LIMIT)?
            .context("failed to see the measured loop end")?;
        ensure!(status.success(), "the measured loop ended with {status}");
        Ok(())
    }

    fn ended_within(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let started = Instant::now();
        loop {
            let status = self
                .child
                .try_wait()
                .context("failed to wait for the measured loop")?;
            if status.is_some() || started.elapsed() > limit {
                return Ok(status);
            }
            sleep(Duration::from_millis(5));
        }
    }

    fn line(&mut self) -> Result<String> {
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
}

/// A loop that waits ends with its input, and the tool that started it cleans up after it.
const END_LIMIT: Duration = Duration::from_secs(5);

impl Drop for Loop {
    fn drop(&mut self) {
        self.input = None;
        if !matches!(self.ended_within(END_LIMIT), Ok(Some(_))) {
            // It may have ended by itself, which is just as good.
            self.child.kill().unwrap_or_default();
            self.child.wait().map(drop).unwrap_or_default();
        }
    }
}
