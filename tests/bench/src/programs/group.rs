//! A command and all that it starts, ended together.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use test_support::child::{ChildGuard, Scope, end_with_parent};

use crate::interrupt;

/// The time that it may take to end after it has been asked to.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A process group; ended when dropped.
pub(crate) struct ProcessGroup {
    child: ChildGuard,
    messages: PathBuf,
}

impl ProcessGroup {
    /// Starts a command in a group of its own. What it prints is dropped; its messages go to a file
    /// of `directory`.
    pub(crate) fn start(command: &mut Command, directory: &Path) -> Result<Self> {
        let messages = directory.join("messages");
        let file =
            File::create(&messages).with_context(|| format!("failed to create {}", messages.display()))?;
        end_with_parent(command, Signal::TERM);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let child = ChildGuard::spawn(command, Scope::Group)?.ask_first(Signal::INT, END_LIMIT);
        Ok(Self { child, messages })
    }

    /// Waits until the command has ended by itself, and well.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<()> {
        match self.child.wait_within(limit, interrupt::check)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("it ended with {status}: {}", self.last_words()),
            None => bail!("it takes longer than {} s", limit.as_secs()),
        }
    }

    /// The last line that it said, to say why something failed.
    pub(crate) fn last_words(&self) -> String {
        let messages = fs::read(&self.messages).unwrap_or_default();
        let messages = String::from_utf8_lossy(&messages);
        let last = messages.lines().rev().find(|line| !line.trim().is_empty());
        last.unwrap_or("it said nothing").trim().to_owned()
    }

    /// Returns whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.status(), Ok(None))
    }
}
