//! Small programs with known totals, compiled when they are first asked for.

use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::Context;

/// Whole stacks without debug information to walk them by, and every call as it is written.
const C_FLAGS: &[&str] = &[
    "-O1",
    "-g",
    "-w",
    "-fno-omit-frame-pointer",
    "-fno-optimize-sibling-calls",
    "-fno-builtin",
    "-pthread",
];
const RUST_FLAGS: &[&str] = &["--edition=2024", "-O", "-g", "-Cforce-frame-pointers=yes"];

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
        Self::build(context, name, &format!("{name}.c"), "cc", C_FLAGS, &[])
    }

    /// A C program without a dynamic linker and without symbols, named `NAME-static`.
    pub fn static_c(context: &Context, name: &str) -> Result<Self> {
        let source = format!("{name}.c");
        let name = format!("{name}-static");
        Self::build(context, &name, &source, "cc", C_FLAGS, &["-static", "-s"])
    }

    /// A shared library of C.
    pub fn library(context: &Context, name: &str) -> Result<Self> {
        let source = format!("{name}.c");
        let name = format!("lib{name}.so");
        Self::build(context, &name, &source, "cc", C_FLAGS, &["-shared", "-fPIC"])
    }

    /// A Rust program.
    pub fn rust(context: &Context, name: &str) -> Result<Self> {
        Self::build(context, name, &format!("{name}.rs"), "rustc", RUST_FLAGS, &[])
    }

    /// The command that runs it.
    #[must_use]
    pub fn command(&self) -> Command {
        Command::new(&self.path)
    }

    /// Compiles a source into a directory that is named after everything that the result depends on, so that
    /// it is compiled once; the file itself keeps its plain name, which is what stacks begin with.
    fn build(
        context: &Context,
        name: &str,
        source: &str,
        compiler: &str,
        flags: &[&str],
        more_flags: &[&str],
    ) -> Result<Self> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let mut hasher = DefaultHasher::new();
        for file in [source, "tally.h"] {
            std::fs::read(sources.join(file))
                .with_context(|| format!("failed to read the fixture {file}"))?
                .hash(&mut hasher);
        }
        let version = Command::new(compiler)
            .arg("--version")
            .output()
            .with_context(|| format!("failed to run {compiler}"))?;
        (flags, more_flags, version.stdout).hash(&mut hasher);
        let dir = context.work.join(format!("{:016x}", hasher.finish()));
        let path = dir.join(name);
        if !path.exists() {
            std::fs::create_dir_all(&dir)?;
            let making = dir.join(format!("{name}.{}", std::process::id()));
            let arguments: [OsString; 3] = [sources.join(source).into(), "-o".into(), making.clone().into()];
            let output = Command::new(compiler)
                .args(flags)
                .args(more_flags)
                .args(arguments)
                .output()?;
            if !output.status.success() {
                bail!(
                    "failed to compile the fixture {source}:\n{}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            // Whole or not at all, should two suites be at it.
            std::fs::rename(making, &path)?;
        }
        Ok(Self {
            path,
            comm: name.chars().take(15).collect(),
        })
    }
}
