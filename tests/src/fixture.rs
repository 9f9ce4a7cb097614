//! Small programs with known totals, compiled when they are first asked for.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{Context, Recipe, recipe};

/// A compiled fixture.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// The executable, or the library.
    pub path: PathBuf,
    /// The name that its process has: the base name of the executable, at most 15 bytes.
    pub comm: String,
}

impl Fixture {
    /// A C program.
    pub fn c(context: &Context, name: &str) -> Result<Self> {
        Recipe::c(name).build(context)
    }

    /// A C program without a dynamic linker and without symbols, named `NAME-static`.
    pub fn static_c(context: &Context, name: &str) -> Result<Self> {
        Recipe::c(name)
            .named(&format!("{name}-static"))
            .flags(["-static", "-s"])
            .build(context)
    }

    /// A shared library of C.
    pub fn library(context: &Context, name: &str) -> Result<Self> {
        Recipe::c(name).shared().build(context)
    }

    /// A Rust program.
    pub fn rust(context: &Context, name: &str) -> Result<Self> {
        Recipe::rust(name).build(context)
    }

    /// A Rust program with crates of its own: `fixtures/NAME`, with one of its features.
    pub fn package(context: &Context, name: &str, feature: &str) -> Result<Self> {
        let target = context.work.join(format!("{name}-{feature}"));
        let mut cargo = Command::new("cargo");
        cargo
            .args(["build", "--release", "--locked", "--quiet", "--features", feature])
            .arg("--target-dir")
            .arg(&target)
            .current_dir(recipe::crate_directory(name));
        // It takes its time: an allocator's configuration alone runs for a minute.
        let output = cargo.output().context("failed to run cargo")?;
        ensure!(
            output.status.success(),
            "failed to build the fixture {name}:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(Self {
            path: target.join("release").join(name),
            comm: name.chars().take(15).collect(),
        })
    }

    /// The command that runs it.
    #[must_use]
    pub fn command(&self) -> Command {
        Command::new(&self.path)
    }
}
