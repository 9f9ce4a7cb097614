//! The measured program: compiled from `xtask/bench/malloc_loop.c`, then led through its steps.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::code::{Code, Probe};
use super::{Effort, SIZE_BYTES};
use crate::{process, workspace};

/// How the loop is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// With frame pointers, so that every tool can walk its stack.
    FramePointers,
    /// Without, as compilers optimize and distributions ship.
    NoFramePointers,
}

impl Build {
    /// What is said of a row that is of this build.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::FramePointers => "yes",
            Self::NoFramePointers => "no",
        }
    }

    fn compile(self, folder: &Path) -> Result<PathBuf> {
        let (name, flag) = match self {
            Self::FramePointers => ("malloc_loop", "-fno-omit-frame-pointer"),
            Self::NoFramePointers => ("malloc_loop_frameless", "-fomit-frame-pointer"),
        };
        let binary = folder.join(name);
        let mut command = Command::new("cc");
        command
            .current_dir(workspace::root())
            .args(["-O2", "-g", flag, "-Wall", "-Wextra", "-o"])
            .arg(&binary)
            .arg("xtask/bench/malloc_loop.c");
        process::run(&mut command, "compile the measured loop")?;
        Ok(binary)
    }
}

/// The loop, compiled in each way.
pub(crate) struct Builds {
    framed: PathBuf,
    frameless: PathBuf,
}

impl Builds {
    /// Compiles the loop.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        Ok(Self {
            framed: Build::FramePointers.compile(folder)?,
            frameless: Build::NoFramePointers.compile(folder)?,
        })
    }

    /// The binary of a build.
    pub(crate) fn binary(&self, build: Build) -> &Path {
        match build {
            Build::FramePointers => &self.framed,
            Build::NoFramePointers => &self.frameless,
        }
    }
}

/// A running loop that waits for its next step; killed when dropped.
pub(crate) struct Target {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    malloc: Code,
}

impl Target {
    /// Starts the loop and returns when it is ready to be attached to.
    pub(crate) fn start(binary: &Path, depth: u32, effort: &Effort) -> Result<Self> {
        let mut child = workspace::untouched(binary)
            .args([depth.to_string(), SIZE_BYTES.to_string()])
            .args([effort.pairs.to_string(), effort.batches.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start the measured loop")?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("failed to open pipes to the measured loop");
        };
        let mut output = BufReader::new(output);
        let ready = line(&mut output)?;
        let address = ready
            .strip_prefix("ready ")
            .and_then(|address| address.parse().ok());
        let address = address
            .with_context(|| format!("failed to follow the measured loop: it is not ready: {ready:?}"))?;
        let malloc = Code::at(child.id(), address)?;
        let target = Self {
            child,
            input,
            output,
            malloc,
        };
        target
            .malloc
            .wait(Probe::Absent)
            .context("another tracer is at work in this libc's malloc")?;
        Ok(target)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The library that the loop's malloc is in.
    pub(crate) fn libc(&self) -> &Path {
        &self.malloc.file
    }

    /// Returns when a probe stands in the loop's malloc.
    pub(crate) fn wait_until_probed(&self) -> Result<()> {
        self.malloc.wait(Probe::Present)
    }

    /// Lets the loop run, and returns each batch's nanoseconds of CPU time.
    pub(crate) fn run(&mut self) -> Result<Vec<u64>> {
        self.input
            .write_all(b"go\n")
            .context("failed to start the measured loop's batches")?;
        let mut batches = Vec::new();
        loop {
            let line = line(&mut self.output)?;
            if line == "done" {
                return Ok(batches);
            }
            batches.push(
                line.parse()
                    .with_context(|| format!("failed to read a batch's time: {line:?}"))?,
            );
        }
    }
}

fn line(output: &mut BufReader<ChildStdout>) -> Result<String> {
    let mut line = String::new();
    let length = output
        .read_line(&mut line)
        .context("failed to read from the measured loop")?;
    if length == 0 {
        bail!("failed to follow the measured loop: it ended early");
    }
    Ok(line.trim_end().to_owned())
}

impl Drop for Target {
    fn drop(&mut self) {
        // It may have ended by itself, which is just as good.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}
