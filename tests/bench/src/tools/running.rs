//! A tracer that runs beside the loop, perhaps as root while we are not.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use test_support::child::{ChildGuard, Scope, end_with_parent};

/// The time that a tracer may take to read its maps, give the addresses names, and write.
const STOP_LIMIT: Duration = Duration::from_mins(1);

/// The time that one may take whose report is not wanted any more. It is interrupted even then, so
/// that it takes its probes out.
const DROP_LIMIT: Duration = Duration::from_secs(5);

/// A started tracer; stopped when dropped.
pub(crate) struct RunningTracer {
    child: ChildGuard,
    messages: PathBuf,
}

impl RunningTracer {
    /// Starts `command`, with its standard output and its messages in files of `directory`.
    pub(crate) fn start(command: &mut Command, directory: &Path) -> Result<Self> {
        let create = |name: &str| {
            let path = directory.join(name);
            File::create(&path).with_context(|| format!("failed to create {}", path.display()))
        };
        end_with_parent(command, Signal::INT);
        command
            .stdin(Stdio::null())
            .stdout(create("stdout")?)
            .stderr(create("stderr")?);
        Ok(Self {
            child: ChildGuard::spawn(command, Scope::Process)?.ask_first(Signal::INT, DROP_LIMIT),
            messages: directory.join("stderr"),
        })
    }

    /// Returns why the tracer has ended, if it has.
    pub(crate) fn failure(&mut self) -> Option<String> {
        match self.child.status() {
            Ok(Some(status)) => Some(self.describe(status)),
            _ => None,
        }
    }

    /// Interrupts the tracer, as Ctrl-C would, and waits until it has written its report.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.child.signal(Signal::INT)?;
        match self.child.wait_within(STOP_LIMIT, || Ok(()))? {
            // Some end by the signal itself, after their work: what they wrote tells whether it was
            // done.
            Some(status) if status.success() || by_interrupt(status) => Ok(()),
            Some(status) => bail!("{}", self.describe(status)),
            None => bail!("failed to stop the tracer within {} s", STOP_LIMIT.as_secs()),
        }
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
    let number = Signal::INT.as_raw();
    status.signal() == Some(number) || status.code() == Some(128 + number)
}
