//! The measured program: compiled from `tests/bench/fixtures/malloc_loop.c`, then led through its
//! steps.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::code::{ProbeState, ProbedCode};
use super::running_loop::{Batch, Loop, Turns};
use test_support::{process, workspace};

/// A way to compile the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// With frame pointers, so that every tool can walk its stack.
    FramePointers,
    /// Without, as compilers optimize and distributions ship.
    NoFramePointers,
}

impl Build {
    fn compile(self, directory: &Path) -> Result<PathBuf> {
        let (name, flag) = match self {
            Self::FramePointers => ("malloc_loop", "-fno-omit-frame-pointer"),
            Self::NoFramePointers => ("malloc_loop_frameless", "-fomit-frame-pointer"),
        };
        compile("malloc_loop.c", &[flag, "-pthread"], directory, name)
    }
}

/// Compiles a file of `tests/bench/fixtures/` to `name` in `directory`, and returns where it is.
pub(crate) fn compile(source: &str, flags: &[&str], directory: &Path, name: &str) -> Result<PathBuf> {
    let binary = directory.join(name);
    let mut command = Command::new("cc");
    command
        .current_dir(workspace::root())
        .args(["-O2", "-g", "-Wall", "-Wextra"])
        .args(flags)
        .arg("-o")
        .arg(&binary)
        .arg(Path::new("tests/bench/fixtures").join(source));
    process::run(&mut command, &format!("compile {source}"))?;
    Ok(binary)
}

/// The loop, compiled in each way.
pub(crate) struct Builds {
    framed: PathBuf,
    frameless: PathBuf,
}

impl Builds {
    /// Compiles the loop.
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        Ok(Self {
            framed: Build::FramePointers.compile(directory)?,
            frameless: Build::NoFramePointers.compile(directory)?,
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

/// A running loop that waits for its next step, and whose malloc is watched.
pub(crate) struct LoopTarget {
    measured: Loop,
    malloc: ProbedCode,
}

impl LoopTarget {
    /// Starts the loop and returns when it is ready to be attached to.
    pub(crate) fn start(binary: &Path, turns: &Turns) -> Result<Self> {
        Self::watch(Loop::start(workspace::untouched(binary), turns)?)
    }

    /// Watches the malloc of a loop that is ready.
    pub(crate) fn watch(measured: Loop) -> Result<Self> {
        let malloc = ProbedCode::at(measured.child.pid(), measured.malloc)?;
        let target = Self { measured, malloc };
        target
            .malloc
            .wait(ProbeState::Absent)
            .context("another tracer is at work in this libc's malloc")?;
        Ok(target)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.measured.child.pid()
    }

    /// The library that the loop's malloc is in.
    pub(crate) fn libc(&self) -> &Path {
        &self.malloc.file
    }

    /// The loop's malloc, as another process maps it.
    pub(crate) fn malloc_in(&self, pid: u32) -> Result<ProbedCode> {
        self.malloc.in_process(pid)
    }

    /// The loop itself.
    pub(crate) fn measured(&mut self) -> &mut Loop {
        &mut self.measured
    }

    /// Returns when no probe stands in the loop's malloc.
    pub(crate) fn wait_until_bare(&self) -> Result<()> {
        self.malloc.wait(ProbeState::Absent)
    }

    /// Returns whether no probe stands there now.
    pub(crate) fn is_bare(&self) -> Result<bool> {
        Ok(self.malloc.probe()? == ProbeState::Absent)
    }

    /// Returns when a probe stands in the loop's malloc.
    pub(crate) fn wait_until_probed(&self) -> Result<()> {
        self.malloc.wait(ProbeState::Present)
    }

    /// Lets the loop run, and returns what each thread's batches took.
    pub(crate) fn run(&mut self) -> Result<Vec<Batch>> {
        self.measured.run()
    }
}
