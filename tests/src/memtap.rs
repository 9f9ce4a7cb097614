//! memtap, run as a user runs it, with its outputs in a directory of the test's own.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::run::{LIMIT, RunningProgram, eventually};
use crate::{Context, Fixture, MemtapRecording};

/// The ways to meet calls whose blocks are followed, for `--probes`: inside their functions where
/// that can be, or at entry and return. Either must find the same.
pub const ARMS: [&str; 2] = ["auto", "two"];

/// The variable that pins `--probes` of every recording that follows blocks and does not pin it
/// itself.
const PROBES: &str = "MEMTAP_PROBES";

fn is_among(arguments: &[OsString], wanted: &str) -> bool {
    arguments.iter().any(|argument| argument == wanted)
}

/// Returns whether blocks are followed: in a recording that asks for it, or by `memtap live`.
fn follows_blocks(arguments: &[OsString]) -> bool {
    is_among(arguments, "--live") || arguments.first().is_some_and(|command| command == "live")
}

/// A call of memtap that is being put together.
#[derive(Debug)]
pub struct Memtap<'a> {
    context: &'a Context,
    directory: TempDir,
    arguments: Vec<OsString>,
    command: Vec<OsString>,
    environment: Vec<(String, String)>,
    prelude: Option<String>,
    metric: &'static str,
    has_outputs: bool,
    is_privileged: bool,
}

impl<'a> Memtap<'a> {
    /// `memtap record`, with a summary and a folded file.
    pub fn record(context: &'a Context) -> Result<Self> {
        let mut memtap = Self::bare(context)?.argument("record");
        memtap.has_outputs = true;
        Ok(memtap)
    }

    /// `memtap` with nothing but the arguments that are added.
    pub fn bare(context: &'a Context) -> Result<Self> {
        Ok(Self {
            context,
            directory: tempfile::tempdir()?,
            arguments: Vec::new(),
            command: Vec::new(),
            environment: Vec::new(),
            prelude: None,
            metric: "alloc-bytes",
            has_outputs: false,
            is_privileged: true,
        })
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        let arguments = arguments.into_iter().map(|one| one.as_ref().to_owned());
        self.arguments.extend(arguments);
        self
    }

    /// Adds `-p PID`.
    #[must_use]
    pub fn process(self, pid: u32) -> Self {
        self.argument("-p").argument(pid.to_string())
    }

    /// Adds `--metric NAME`; the folded file's total is checked against the summary by it.
    #[must_use]
    pub fn metric(mut self, metric: &'static str) -> Self {
        self.metric = metric;
        self.argument("--metric").argument(metric)
    }

    /// Adds `-- COMMAND ARGS…`.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(mut self, command: impl IntoIterator<Item = S>) -> Self {
        self.command = command.into_iter().map(|one| one.as_ref().to_owned()).collect();
        self
    }

    /// Adds `-- FIXTURE`.
    #[must_use]
    pub fn fixture(self, fixture: &Fixture) -> Self {
        self.command([&fixture.path])
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs memtap in a mount namespace of its own, after shell commands that must all succeed.
    #[must_use]
    pub fn after(mut self, prelude: &str) -> Self {
        self.prelude = Some(prelude.to_owned());
        self
    }

    /// Leaves out the summary and the folded file.
    #[must_use]
    pub fn without_outputs(mut self) -> Self {
        self.has_outputs = false;
        self
    }

    /// Runs memtap as a user who is not root.
    #[must_use]
    pub fn unprivileged(mut self) -> Self {
        self.is_privileged = false;
        self
    }

    /// The test's own directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs it to its end.
    pub fn run(self) -> Result<MemtapRecording> {
        self.start()?.finish()
    }

    /// Starts it.
    pub fn start(self) -> Result<MemtapSession<'a>> {
        let mut program = self.context.memtap.clone();
        if !self.is_privileged {
            // Where the build is may be closed to others.
            program = self.directory.path().join("memtap");
            std::fs::copy(&self.context.memtap, &program)?;
            std::fs::set_permissions(self.directory.path(), PermissionsExt::from_mode(0o777))?;
        }
        let mut words = vec![program.into_os_string()];
        let pinned = std::env::var_os(PROBES)
            .filter(|_| follows_blocks(&self.arguments) && !is_among(&self.arguments, "--probes"));
        let is_whole = wants_all(&self.arguments);
        words.extend(self.arguments);
        if let Some(pinned) = pinned {
            words.push("--probes".into());
            words.push(pinned);
        }
        if is_whole {
            words.extend(["--sample", "1", "--max-overhead", "off"].map(OsString::from));
        }
        if self.has_outputs {
            words.push("--summary".into());
            words.push(self.directory.path().join("summary.json").into());
            words.push("-o".into());
            words.push(self.directory.path().join("stacks.folded").into());
        }
        if !self.command.is_empty() {
            words.push("--".into());
            words.extend(self.command);
        }
        if let Some(prelude) = self.prelude {
            let script = format!("set -e; {prelude}; exec \"$@\"");
            let wrapper = ["unshare", "-m", "sh", "-c", &script, "sh"];
            words.splice(0..0, wrapper.map(OsString::from));
        }
        let mut words = words.into_iter();
        let program = words.next().context("no program")?;
        let mut command: Command = if self.is_privileged {
            self.context.privileged(program)
        } else {
            self.context.unprivileged(program)
        };
        command.args(words).current_dir(self.directory.path());
        // Whatever the suite's own environment asks for.
        command.env_remove("NO_COLOR").env_remove("RUST_LOG");
        command.envs(self.environment);
        Ok(MemtapSession {
            context: self.context,
            running: RunningProgram::start(command)?,
            directory: self.directory,
            metric: self.metric,
        })
    }
}

/// Returns whether processes that run are recorded and the test says nothing of how much is
/// followed: what tests expect are exact figures, and by default memtap keeps to a budget there.
fn wants_all(arguments: &[OsString]) -> bool {
    let has = |words: &[&str]| {
        arguments
            .iter()
            .any(|argument| words.iter().any(|word| argument == word))
    };
    let records = arguments
        .first()
        .is_some_and(|command| command == "record" || command == "live");
    records
        && has(&["-p", "--pid", "-a", "--all", "--comm", "--cgroup"])
        && !has(&["--sample", "--max-overhead"])
}

/// memtap while it runs; dropping it kills it.
#[derive(Debug)]
pub struct MemtapSession<'a> {
    context: &'a Context,
    running: RunningProgram,
    directory: TempDir,
    metric: &'static str,
}

impl MemtapSession<'_> {
    /// Waits until memtap has said how many probes it has attached.
    pub fn wait_until_tracing(&mut self) -> Result<()> {
        let is_ready = eventually(LIMIT, || {
            if !self.running.is_alive()? {
                bail!("memtap ended before it traced: {}", self.running.stderr());
            }
            Ok(self.running.stderr().contains("probe"))
        })?;
        if !is_ready {
            bail!(
                "memtap named no probes for {} s; it said: {}",
                LIMIT.as_secs(),
                self.running.stderr()
            );
        }
        Ok(())
    }

    /// Waits until memtap has said a line that holds all of `words`.
    pub fn wait_until_said(&mut self, words: &[&str]) -> Result<()> {
        let was_said = eventually(LIMIT, || {
            let said = self.running.stderr();
            let is_there = said
                .lines()
                .any(|line| words.iter().all(|word| line.contains(word)));
            if !is_there && !self.running.is_alive()? {
                bail!("memtap ended before it said {words:?}; it said: {said}");
            }
            Ok(is_there)
        })?;
        if !was_said {
            bail!(
                "memtap did not say {words:?} for {} s; it said: {}",
                LIMIT.as_secs(),
                self.running.stderr()
            );
        }
        Ok(())
    }

    /// memtap's own process, which is not the one that was started if sudo was.
    pub fn pid(&self) -> Result<u32> {
        self.context.behind_sudo(self.running.pid(), "memtap")
    }

    /// Sends memtap a signal.
    pub fn signal(&self, signal: &str) -> Result<()> {
        self.context.signal(self.pid()?, signal)
    }

    /// Returns what memtap has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.running.stdout()
    }

    /// Waits for memtap's end, and reads and audits what it has written.
    pub fn finish(self) -> Result<MemtapRecording> {
        let finished = self.running.finish(LIMIT)?;
        MemtapRecording::read(finished, self.directory, self.metric)
    }
}
