//! A command and all that it starts, ended together.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::bench::interrupt;
use crate::{privilege, process};

/// How long it may take to end after it has been asked to.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A process group; ended when dropped.
pub(crate) struct Group {
    child: Child,
    messages: PathBuf,
}

impl Group {
    /// Starts a command in a group of its own. What it prints is dropped; its messages go to a file of `folder`.
    pub(crate) fn start(command: &mut Command, folder: &Path) -> Result<Self> {
        let messages = folder.join("messages");
        let file =
            File::create(&messages).with_context(|| format!("failed to create {}", messages.display()))?;
        interrupt::tie(command, libc::SIGTERM);
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .with_context(|| format!("failed to start {}", command.get_program().display()))?;
        Ok(Self { child, messages })
    }

    /// Waits until the command has ended by itself, and well.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<()> {
        match self.ended_within(limit, true)? {
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

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn ended_within(&mut self, limit: Duration, interruptible: bool) -> Result<Option<ExitStatus>> {
        let started = Instant::now();
        loop {
            let status = self.child.try_wait().context("failed to wait for the program")?;
            if status.is_some() || started.elapsed() > limit {
                return Ok(status);
            }
            if interruptible {
                interrupt::check()?;
            }
            sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, name: &str) -> Result<()> {
        let mut kill = privilege::elevated(Path::new("kill"));
        kill.args(["-s", name, "--", &format!("-{}", self.child.id())]);
        process::output(&mut kill, "end the program").map(drop)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        let ended = self
            .signal("INT")
            .and_then(|()| self.ended_within(END_LIMIT, false));
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
