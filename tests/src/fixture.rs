//! Small programs with known totals, compiled when they are first asked for.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{Context, Recipe};

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

    /// The command that runs it.
    #[must_use]
    pub fn command(&self) -> Command {
        Command::new(&self.path)
    }
}
