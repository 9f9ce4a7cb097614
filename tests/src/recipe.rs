//! Compilation of fixtures.

use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};

use crate::{Context, Fixture};

/// Fixtures that this process has begun to compile.
static MADE: AtomicU32 = AtomicU32::new(0);

/// Stacks that frame pointers lead through, and every call as it is written.
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

/// No frame pointers, and no debug information, whose inlined functions would be frames too. Calls
/// stay calls.
const PLAIN_C_FLAGS: &[&str] = &[
    "-O2",
    "-fomit-frame-pointer",
    "-fno-optimize-sibling-calls",
    "-fno-ipa-icf",
    "-w",
    "-pthread",
];
const PLAIN_RUST_FLAGS: &[&str] = &[
    "--edition=2024",
    "-O",
    "-Cstrip=debuginfo",
    "-Csymbol-mangling-version=v0",
];

/// A source, a compiler and its arguments.
#[derive(Debug, Clone, Hash)]
pub struct Recipe {
    name: String,
    source: String,
    compiler: &'static str,
    flags: Vec<OsString>,
}

impl Recipe {
    /// A C program with frame pointers and debug information: `fixtures/NAME.c`.
    #[must_use]
    pub fn c(name: &str) -> Self {
        Self::new(name, format!("{name}.c"), "cc", C_FLAGS)
    }

    /// A Rust program with frame pointers and debug information: `fixtures/NAME.rs`.
    #[must_use]
    pub fn rust(name: &str) -> Self {
        Self::new(name, format!("{name}.rs"), "rustc", RUST_FLAGS)
    }

    /// A C program as it is shipped, without frame pointers: `fixtures/stacks/NAME.c`.
    #[must_use]
    pub fn plain_c(name: &str) -> Self {
        Self::new(name, format!("stacks/{name}.c"), "cc", PLAIN_C_FLAGS)
    }

    /// A C++ program as it is shipped, without frame pointers: `fixtures/stacks/NAME.cpp`.
    #[must_use]
    pub fn plain_cpp(name: &str) -> Self {
        Self::new(name, format!("stacks/{name}.cpp"), "c++", PLAIN_C_FLAGS)
    }

    /// A Rust program as it is shipped, with nothing said of frame pointers:
    /// `fixtures/stacks/NAME.rs`.
    #[must_use]
    pub fn plain_rust(name: &str) -> Self {
        Self::new(name, format!("stacks/{name}.rs"), "rustc", PLAIN_RUST_FLAGS)
    }

    /// A C program that knows what it keeps: `fixtures/live/NAME.c`.
    #[must_use]
    pub fn live_c(name: &str) -> Self {
        Self::new(name, format!("live/{name}.c"), "cc", C_FLAGS)
    }

    /// A C++ program that knows what it keeps: `fixtures/live/NAME.cpp`.
    #[must_use]
    pub fn live_cpp(name: &str) -> Self {
        Self::new(name, format!("live/{name}.cpp"), "c++", C_FLAGS)
    }

    /// A Rust program that knows what it keeps: `fixtures/live/NAME.rs`.
    #[must_use]
    pub fn live_rust(name: &str) -> Self {
        Self::new(name, format!("live/{name}.rs"), "rustc", RUST_FLAGS)
    }

    /// A C program about allocators: `fixtures/allocators/NAME.c`.
    #[must_use]
    pub fn allocator_c(name: &str) -> Self {
        Self::new(name, format!("allocators/{name}.c"), "cc", C_FLAGS)
    }

    /// A C++ program about allocators: `fixtures/allocators/NAME.cpp`.
    #[must_use]
    pub fn allocator_cpp(name: &str) -> Self {
        Self::new(name, format!("allocators/{name}.cpp"), "c++", C_FLAGS)
    }

    /// A C program as it is shipped, but with debug information: `fixtures/symbols/NAME.c`.
    #[must_use]
    pub fn symbols_c(name: &str) -> Self {
        Self::new(name, format!("symbols/{name}.c"), "cc", PLAIN_C_FLAGS).flags(["-g"])
    }

    /// A C program or library that memtap must not trust, with debug information:
    /// `fixtures/foreign/NAME.c`.
    #[must_use]
    pub fn foreign_c(name: &str) -> Self {
        Self::new(name, format!("foreign/{name}.c"), "cc", PLAIN_C_FLAGS).flags(["-g", "-ldl"])
    }

    fn new(name: &str, source: String, compiler: &'static str, flags: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            source,
            compiler,
            flags: flags.iter().map(OsString::from).collect(),
        }
    }

    /// Makes a shared library of it, `libNAME.so`.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.name = format!("lib{}.so", self.name);
        self.flags(["-shared", "-fPIC"])
    }

    /// Gives the file another name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Takes another compiler, which must know the same arguments.
    #[must_use]
    pub fn compiler(mut self, compiler: &'static str) -> Self {
        self.compiler = compiler;
        self
    }

    /// Adds arguments for the compiler, after the source.
    #[must_use]
    pub fn flags<S: AsRef<OsStr>>(mut self, flags: impl IntoIterator<Item = S>) -> Self {
        self.flags
            .extend(flags.into_iter().map(|flag| flag.as_ref().to_owned()));
        self
    }

    /// Links it with a library that is a fixture: without a name of its own it is asked for by its
    /// path.
    #[must_use]
    pub fn with_library(self, library: &Fixture) -> Self {
        self.flags([&library.path])
    }

    /// Compiles the source into a directory that is named after everything that the result depends
    /// on, so that it is compiled once; the file itself keeps its plain name, which is what stacks
    /// begin with.
    pub fn build(&self, context: &Context) -> Result<Fixture> {
        let Self {
            name,
            source,
            compiler,
            flags,
        } = self;
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let source = sources.join(source);
        let mut hasher = DefaultHasher::new();
        let mut files = headers(&sources)?;
        files.push(source.clone());
        for file in files {
            std::fs::read(&file)
                .with_context(|| format!("failed to read {}", file.display()))?
                .hash(&mut hasher);
        }
        let version = Command::new(compiler)
            .arg("--version")
            .output()
            .with_context(|| format!("failed to run {compiler}"))?;
        (self, version.stdout).hash(&mut hasher);
        let dir = context.work.join(format!("{:016x}", hasher.finish()));
        let path = dir.join(name);
        if !path.exists() {
            std::fs::create_dir_all(&dir)?;
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let making = dir.join(format!("{name}.{}-{number}", std::process::id()));
            // Libraries among the flags are looked into for what the source needs: they come after
            // it.
            let output = Command::new(compiler)
                .arg(&source)
                .args(flags)
                .arg("-o")
                .arg(&making)
                .output()?;
            if !output.status.success() {
                bail!(
                    "failed to compile the fixture {}:\n{}",
                    source.display(),
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            // Whole or not at all, should two tests or two suites be at it.
            std::fs::rename(making, &path)?;
        }
        Ok(Fixture {
            path,
            comm: name.chars().take(15).collect(),
        })
    }
}

/// Returns where a fixture is that has crates of its own.
pub(crate) fn crate_directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Returns what any fixture may include.
fn headers(sources: &Path) -> Result<Vec<PathBuf>> {
    let mut headers = Vec::new();
    for directory in [sources, &sources.join("live"), &sources.join("stacks")] {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "h") {
                headers.push(path);
            }
        }
    }
    headers.sort();
    Ok(headers)
}
