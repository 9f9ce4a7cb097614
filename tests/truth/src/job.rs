//! One program to run under either tracer, so that both see the same addresses and the same
//! decisions.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::UnwindOption;
use super::compare::ComparisonScope;
use super::gdb::{GdbEnd, GdbStacks};
use test_support::{privilege, process, workspace};

/// A program with everything that decides what it does.
pub(crate) struct TracedJob {
    /// Absolute and without symbolic links.
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// All variables that it has, beside PATH and those that every workload has.
    pub(crate) environment: Vec<(&'static str, OsString)>,
    /// The working directory.
    pub(crate) directory: PathBuf,
    pub(crate) input: Option<PathBuf>,
    /// Whom to become first.
    pub(crate) user: Option<&'static str>,
    /// Files that it changes: put in place again before each run, from a copy.
    pub(crate) restored: Option<Restored>,
    /// True if it has code without tables, which keeps a chain of frame pointers: gdb has to be
    /// told.
    pub(crate) has_generated_code: bool,
    /// The part that can be compared.
    pub(crate) kind: JobKind,
}

/// The threads and frames that can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobKind {
    /// One thread: every stack.
    OneThread,
    /// Several threads, whose order is not the same each time: the main thread's stacks, among all
    /// of memtap's.
    MainThread,
    /// One thread of a program with frame pointers: every frame, or, by frame pointers, those up to
    /// `main`.
    FramePointers,
}

/// A directory and the copy that it is restored from.
pub(crate) struct Restored {
    pub(crate) directory: PathBuf,
    pub(crate) copy: PathBuf,
}

/// No address is random, and no hash seed; `/bin` for what a program starts itself.
const ENVIRONMENT: &[(&str, &str)] = &[("PATH", "/usr/bin:/bin"), ("LC_ALL", "C"), ("TZ", "UTC")];

/// A run that takes longer hangs.
const LIMIT_SECONDS: u64 = 1200;

impl TracedJob {
    /// A program without anything special.
    pub(crate) fn new<A: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        directory: &Path,
    ) -> Result<Self> {
        Ok(Self {
            program: program
                .canonicalize()
                .with_context(|| format!("failed to find {}", program.display()))?,
            arguments: arguments.into_iter().map(|one| one.as_ref().to_owned()).collect(),
            environment: vec![("HOME", directory.into())],
            directory: directory.to_path_buf(),
            input: None,
            user: None,
            restored: None,
            has_generated_code: false,
            kind: JobKind::OneThread,
        })
    }

    /// The command line: programs that each set one thing and execute the next.
    pub(crate) fn chain(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["setarch".into(), "-R".into()];
        if let Some(user) = self.user {
            words.extend(become_user(user).map(OsString::from));
        }
        words.extend(["env".into(), "-i".into()]);
        let common = ENVIRONMENT.iter().map(|&(name, value)| (name, OsStr::new(value)));
        let own = self
            .environment
            .iter()
            .map(|(name, value)| (*name, value.as_os_str()));
        words.extend(common.chain(own).map(|(name, value)| {
            let mut assignment = OsString::from(name);
            assignment.push("=");
            assignment.push(value);
            assignment
        }));
        words.push(self.program.clone().into_os_string());
        words.extend(self.arguments.iter().cloned());
        words
    }

    /// Runs the program by itself: what fails here is not the tracers' fault.
    pub(crate) fn run_alone(&self, out: &Path, name: &str) -> Result<()> {
        let chain = self.chain();
        let mut command = workspace::untouched(Path::new(&chain[0]));
        command.args(&chain[1..]);
        self.run(
            command,
            &out.join(format!("{name}.alone")),
            "run the workload by itself",
        )
    }

    /// Runs `command`, which runs the chain, in the job's directory and with its input. Output and
    /// messages go to `files` with `.stdout` and `.stderr` appended.
    pub(crate) fn run(&self, mut command: Command, files: &Path, what: &str) -> Result<()> {
        self.restore()?;
        let file = |extension: &str| {
            let path = files.with_added_extension(extension);
            File::create(&path).with_context(|| format!("failed to create {}", path.display()))
        };
        let input = match &self.input {
            None => Stdio::null(),
            Some(path) => File::open(path)
                .with_context(|| format!("failed to open {}", path.display()))?
                .into(),
        };
        command
            .current_dir(&self.directory)
            .stdin(input)
            .stdout(file("stdout")?)
            .stderr(file("stderr")?);
        let status = process::status(&mut command, what)?;
        if !status.success() {
            let messages = fs::read(files.with_added_extension("stderr")).unwrap_or_default();
            let messages = String::from_utf8_lossy(&messages);
            let mut lines = messages.lines().filter(|line| !line.trim().is_empty());
            let first_error = lines.clone().find(|line| line.starts_with("error"));
            let words = first_error.or(lines.next_back()).unwrap_or("it said nothing");
            bail!("failed to {what}: it ended with {status}: {words}");
        }
        Ok(())
    }

    fn restore(&self) -> Result<()> {
        let Some(Restored { directory, copy }) = &self.restored else {
            return Ok(());
        };
        if directory.exists() {
            fs::remove_dir_all(directory)
                .with_context(|| format!("failed to remove {}", directory.display()))?;
        }
        let mut cp = Command::new("cp");
        cp.arg("-a").arg(copy).arg(directory);
        process::output(&mut cp, "put the workload's files in place").map(drop)
    }

    /// Returns what a comparison of this job compares.
    pub(crate) fn scope(&self, unwind: Option<UnwindOption>, truth: &GdbStacks) -> ComparisonScope {
        ComparisonScope {
            whole_run: truth.end != GdbEnd::Cut,
            main_thread_only: self.kind == JobKind::MainThread,
            program: (self.kind == JobKind::FramePointers && unwind == Some(UnwindOption::Fp))
                .then(|| self.program.clone()),
        }
    }
}

/// Returns what stands in front of a command to run it as `user`, who must not be the caller.
pub(crate) fn become_user(user: &str) -> [String; 4] {
    [
        "setpriv".to_owned(),
        format!("--reuid={user}"),
        format!("--regid={user}"),
        "--clear-groups".to_owned(),
    ]
}

/// `timeout` in front of a program, as root where the program has to be.
pub(crate) fn limited(program: &Path, as_root: bool) -> Command {
    let timeout = Path::new("timeout");
    let mut command = if as_root {
        privilege::elevated(timeout)
    } else {
        workspace::untouched(timeout)
    };
    command
        .args(["--foreground", "--kill-after=10"])
        .arg(LIMIT_SECONDS.to_string())
        .arg(program);
    command
}
