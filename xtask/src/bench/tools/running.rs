//! A tracer that runs beside the loop, perhaps as root while we are not.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::bench::interrupt;
use crate::{privilege, process};

/// How long a tracer may take to read its maps, give the addresses names, and write.
const STOP_LIMIT: Duration = Duration::from_mins(1);

/// How long one may take that nobody wants a report of any more.
const DROP_LIMIT: Duration = Duration::from_secs(5);

/// A started tracer; stopped when dropped.
pub(crate) struct Running {
    child: Child,
    messages: PathBuf,
}

impl Running {
    /// Starts `command`, with its standard output and its messages in files of `folder`.
    pub(crate) fn start(command: &mut Command, folder: &Path) -> Result<Self> {
        let create = |name: &str| {
            let path = folder.join(name);
            File::create(&path).with_context(|| format!("failed to create {}", path.display()))
        };
        interrupt::tie(command, libc::SIGINT);
        let child = command
            .stdin(Stdio::null())
            .stdout(create("stdout")?)
            .stderr(create("stderr")?)
            .spawn()
            .with_context(|| format!("failed to start {}", command.get_program().display()))?;
        Ok(Self {
            child,
            messages: folder.join("stderr"),
        })
    }

    /// Why the tracer has ended, if it has.
    pub(crate) fn failure(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(Some(status)) => Some(self.describe(status)),
            _ => None,
        }
    }

    /// Interrupts the tracer, as Ctrl-C would, and waits until it has written its report.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.signal("INT")?;
        match self.ended_within(STOP_LIMIT)? {
            // Some end by the signal itself, after their work: what they wrote tells whether it was done.
            Some(status) if status.success() || by_interrupt(status) => Ok(()),
            Some(status) => bail!("{}", self.describe(status)),
            None => bail!("failed to stop the tracer within {} s", STOP_LIMIT.as_secs()),
        }
    }

    fn ended_within(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let started = Instant::now();
        loop {
            let status = self.child.try_wait().context("failed to wait for the tracer")?;
            if status.is_some() || started.elapsed() > limit {
                return Ok(status);
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// By kill(1), since a tracer that runs as root takes no signals from anyone else.
    fn signal(&self, name: &str) -> Result<()> {
        let mut kill = privilege::elevated(Path::new("kill"));
        kill.args(["-s", name, &self.child.id().to_string()]);
        process::output(&mut kill, "signal the tracer").map(drop)
    }

    fn describe(&self, status: ExitStatus) -> String {
        let messages = fs::read_to_string(&self.messages).unwrap_or_default();
        let last = messages
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("it said nothing");
        format!("the tracer ended with {status}: {}", last.trim())
    }
}

fn by_interrupt(status: ExitStatus) -> bool {
    status.signal() == Some(libc::SIGINT) || status.code() == Some(128 + libc::SIGINT)
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // An interrupt first, so that it can take its probes out.
        let ended = self.signal("INT").and_then(|()| self.ended_within(DROP_LIMIT));
        if matches!(ended, Ok(Some(_))) {
            return;
        }
        let killed = self
            .signal("KILL")
            .and_then(|()| Ok(self.child.wait().map(drop)?));
        if let Err(error) = killed {
            eprintln!("xtask: {error:#}");
        }
    }
}
