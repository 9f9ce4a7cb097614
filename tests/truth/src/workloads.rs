//! Preparation of each workload: its work is the same in every run.

mod postgres;
mod sources;

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::job::{JobKind, TracedJob};
use super::scratch::ScratchDirectory;
use test_support::{process, workspace};

pub(crate) use postgres::prepare as postgres;

/// Commits of the repository that git shows.
const COMMITS: usize = 60;
/// Functions that cc1 compiles.
const FUNCTIONS: usize = 3;

/// A file of `tests/truth/scripts/`.
fn source(name: &str) -> PathBuf {
    workspace::root().join("tests/truth/scripts").join(name)
}

/// A copy in the directory: its path, which a program may keep on its stack or heap, does not
/// depend on where the repository is.
fn copied(scratch: &ScratchDirectory, name: &str) -> Result<PathBuf> {
    let from = source(name);
    let to = scratch.path().join(name);
    std::fs::copy(&from, &to).with_context(|| format!("failed to copy {}", from.display()))?;
    Ok(to)
}

/// The distribution's program where there is one, else the first in PATH.
fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(PathBuf::from("/usr/bin"))
        .chain(std::env::split_paths(&path))
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
        .with_context(|| format!("failed to find {name} in PATH"))
}

/// Named chains of our own, with frame pointers: the one program here that both ways of walking can
/// do.
pub(crate) fn chain(scratch: &ScratchDirectory) -> Result<Option<TracedJob>> {
    let binary = scratch.path().join("chain");
    let mut cc = Command::new("cc");
    cc.args([
        "-O2",
        "-fno-omit-frame-pointer",
        "-fno-inline",
        "-Wall",
        "-Wextra",
        "-o",
    ])
    .arg(&binary)
    .arg(source("chain.c"));
    process::run(&mut cc, "compile the chain of calls")?;
    let mut job = TracedJob::new(&binary, [] as [&str; 0], scratch.path())?;
    job.kind = JobKind::FramePointers;
    Ok(Some(job))
}

/// The distribution's python3, every object by malloc, with extension modules that it loads as it
/// goes.
pub(crate) fn python(scratch: &ScratchDirectory) -> Result<Option<TracedJob>> {
    let script = copied(scratch, "python.py")?;
    let arguments = [OsStr::new("-S"), OsStr::new("-s"), script.as_os_str()];
    let mut job = TracedJob::new(Path::new("/usr/bin/python3"), arguments, scratch.path())?;
    job.environment.extend([
        ("PYTHONMALLOC", "malloc".into()),
        ("PYTHONHASHSEED", "0".into()),
        ("PYTHONDONTWRITEBYTECODE", "1".into()),
    ]);
    Ok(Some(job))
}

/// perl, with an extension that it loads.
pub(crate) fn perl(scratch: &ScratchDirectory) -> Result<Option<TracedJob>> {
    let script = copied(scratch, "perl.pl")?;
    let mut job = TracedJob::new(&program("perl")?, [script], scratch.path())?;
    job.environment.push(("PERL_HASH_SEED", "0".into()));
    Ok(Some(job))
}

/// `git log --stat` of a repository that is made for it.
pub(crate) fn git(scratch: &ScratchDirectory) -> Result<Option<TracedJob>> {
    let git = program("git")?;
    let repository = scratch.path().join("repository");
    let stream = scratch.write("commits", &sources::commits(COMMITS))?;
    let in_repository = |arguments: &[&str]| {
        let mut command = workspace::untouched(&git);
        command
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("HOME", scratch.path())
            .current_dir(scratch.path())
            .args(arguments);
        command
    };
    process::output(
        &mut in_repository(&["init", "-q", "-b", "main", "repository"]),
        "create a repository",
    )?;
    let stream = File::open(&stream).with_context(|| format!("failed to open {}", stream.display()))?;
    process::run(
        in_repository(&["-C", "repository", "fast-import", "--quiet"]).stdin(stream),
        "fill the repository",
    )?;
    let mut job = TracedJob::new(&git, ["log", "--stat", "main"], &repository)?;
    job.environment.push(("GIT_CONFIG_NOSYSTEM", "1".into()));
    Ok(Some(job))
}

/// gcc's compiler proper, optimizing a generated file.
pub(crate) fn cc1(scratch: &ScratchDirectory) -> Result<Option<TracedJob>> {
    let path = process::output(
        Command::new("gcc").arg("-print-prog-name=cc1"),
        "ask gcc for its compiler",
    )?;
    scratch.write("generated.c", &sources::functions(FUNCTIONS))?;
    // Symbols that have to be unique are made of the time without a seed.
    let arguments = [
        "-quiet",
        "-O2",
        "-frandom-seed=1",
        "generated.c",
        "-o",
        "generated.s",
    ];
    TracedJob::new(Path::new(path.trim()), arguments, scratch.path()).map(Some)
}

/// The toolchain's cargo, not rustup's stand-in for it, on this workspace.
pub(crate) fn cargo(scratch: &ScratchDirectory) -> Result<Option<TracedJob>> {
    let cargo = workspace::sysroot()?.join("bin/cargo");
    let mut arguments: Vec<_> = ["metadata", "--offline", "--no-deps", "--format-version=1"]
        .map(Into::into)
        .into();
    arguments.push("--manifest-path".into());
    arguments.push(workspace::root().join("Cargo.toml").into_os_string());
    let mut job = TracedJob::new(&cargo, arguments, scratch.path())?;
    job.environment
        .push(("CARGO_HOME", scratch.path().join("cargo").into()));
    Ok(Some(job))
}

/// node, with as few threads as it can do with.
pub(crate) fn node(scratch: &ScratchDirectory) -> Result<Option<TracedJob>> {
    let script = copied(scratch, "node.js")?;
    // V8 places its memory, and orders its tables, by these seeds.
    let arguments = [
        OsStr::new("--single-threaded"),
        OsStr::new("--predictable"),
        OsStr::new("--random-seed=1"),
        OsStr::new("--hash-seed=1"),
        script.as_os_str(),
    ];
    let mut job = TracedJob::new(&program("node")?, arguments, scratch.path())?;
    job.kind = JobKind::MainThread;
    job.has_generated_code = true;
    Ok(Some(job))
}
