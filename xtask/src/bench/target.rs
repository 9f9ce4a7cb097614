//! The measured program: compiled from `xtask/bench/malloc_loop.c`, then led through its steps.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Effort;
use super::code::{Code, Probe};
pub(crate) use super::running_loop::Loop;
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

/// A running loop that waits for its next step, and whose malloc is watched.
pub(crate) struct Target {
    measured: Loop,
    malloc: Code,
}

impl Target {
    /// Starts the loop and returns when it is ready to be attached to.
    pub(crate) fn start(binary: &Path, depth: u32, effort: &Effort) -> Result<Self> {
        let measured = Loop::start(workspace::untouched(binary), depth, effort)?;
        let malloc = Code::at(measured.child.id(), measured.malloc)?;
        let target = Self { measured, malloc };
        target
            .malloc
            .wait(Probe::Absent)
            .context("another tracer is at work in this libc's malloc")?;
        Ok(target)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.measured.child.id()
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
        self.measured.run()
    }
}
