//! A program as distributions ship it: stripped, with its debug information elsewhere.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Fixture, FoldedStackLine, Memtap, MemtapRecording, Recipe, run};

/// Rounds of the fixture, and the bytes of each.
pub(crate) const ROUND_BYTES: u64 = 10 * 4321;

/// The fixture's frames below `main`, the inlined one among them.
pub(crate) const CHAIN: [&str; 4] = ["main", "hidden_outer", "inlined_part", "hidden_leaf"];

/// The same from symbol tables, which know nothing of inlining.
pub(crate) const PLAIN_CHAIN: [&str; 3] = ["main", "hidden_outer", "hidden_leaf"];

/// The fixture in a test's own directory.
pub(crate) struct Shipped {
    /// The program, stripped.
    pub(crate) program: Fixture,
    /// Its debug information.
    pub(crate) debug: PathBuf,
    /// The program as it was compiled.
    pub(crate) whole: PathBuf,
}

impl Shipped {
    /// Compiles the fixture with more `flags`, and takes it apart: `bin/hidden` and `hidden.debug`
    /// in `directory`.
    pub(crate) fn build(context: &Context, directory: &Path, flags: &[&str]) -> Result<Self> {
        let whole = Recipe::symbols_c("hidden").flags(flags).build(context)?;
        let bin = directory.join("bin");
        std::fs::create_dir_all(&bin)?;
        let program = bin.join("hidden");
        let debug = directory.join("hidden.debug");
        objcopy([
            "--only-keep-debug".as_ref(),
            whole.path.as_os_str(),
            debug.as_ref(),
        ])?;
        objcopy(["--strip-all".as_ref(), whole.path.as_os_str(), program.as_ref()])?;
        Ok(Self {
            program: Fixture {
                path: program,
                comm: whole.comm.clone(),
            },
            debug,
            whole: whole.path,
        })
    }

    /// Adds `.gnu_debuglink` to the program: the name and the checksum of its debug information.
    pub(crate) fn link(&self) -> Result<()> {
        let mut option = std::ffi::OsString::from("--add-gnu-debuglink=");
        option.push(&self.debug);
        objcopy([option.as_ref(), self.program.path.as_os_str()])
    }

    /// The build id that the linker gave it.
    pub(crate) fn build_id(&self) -> Result<String> {
        build_id(&self.whole)
    }

    /// Copies the debug information to where it is looked for by build id below `directory`.
    pub(crate) fn lay_out_by_id(&self, directory: &Path) -> Result<PathBuf> {
        let path = by_id(directory, &self.build_id()?);
        std::fs::create_dir_all(path.parent().context("no directory")?)?;
        std::fs::copy(&self.debug, &path)?;
        Ok(path)
    }

    /// Moves the debug information to a path.
    pub(crate) fn lay_out_at(&self, path: &Path) -> Result<()> {
        std::fs::create_dir_all(path.parent().context("no directory")?)?;
        std::fs::rename(&self.debug, path)?;
        Ok(())
    }

    /// Records the program.
    pub(crate) fn record(&self, memtap: Memtap<'_>) -> Result<MemtapRecording> {
        memtap.fixture(&self.program).run()?.whole()
    }
}

/// The path below a debug directory.
pub(crate) fn by_id(directory: &Path, id: &str) -> PathBuf {
    let (first, rest) = id.split_at(2);
    directory.join(format!(".build-id/{first}/{rest}.debug"))
}

/// The build id of a file, as readelf tells it.
pub(crate) fn build_id(file: &Path) -> Result<String> {
    let mut command = Command::new("readelf");
    command.arg("-n").arg(file);
    let reported = run(command)?.succeeded()?.stdout;
    let (_, rest) = reported.split_once("Build ID: ").context("no build id")?;
    Ok(rest.split_whitespace().next().context("no build id")?.to_owned())
}

/// Runs objcopy.
pub(crate) fn objcopy<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<()> {
    let mut command = Command::new("objcopy");
    command.args(arguments);
    run(command)?.succeeded()?;
    Ok(())
}

/// Fails unless exactly so many bytes were allocated below these frames.
pub(crate) fn has_chain(recording: &MemtapRecording, chain: &[&str], bytes: u64) -> Result<()> {
    let folded = recording.folded()?;
    let ends = |line: &FoldedStackLine| {
        line.frames
            .iter()
            .rev()
            .zip(chain.iter().rev())
            .all(|(a, b)| a == b)
    };
    let found = folded.weight_of(|line| line.frames.len() >= chain.len() && ends(line));
    ensure!(
        found == bytes,
        "{found} bytes below {chain:?}, not {bytes}:\n{}",
        folded.text
    );
    Ok(())
}

/// Fails unless the fixture's frames have all their names, and the lines of the source.
pub(crate) fn is_named(recording: &MemtapRecording) -> Result<()> {
    has_chain(recording, &CHAIN, ROUND_BYTES)?;
    let summary = recording.summary()?;
    let stacks = summary.json["top_stacks"].as_array().context("no top stacks")?;
    let source = include_str!("../../fixtures/symbols/hidden.c");
    for (function, text) in [
        ("hidden_leaf", "malloc(size)"),
        ("inlined_part", "hidden_leaf(size);"),
        ("hidden_outer", "inlined_part(size);"),
    ] {
        let line = 1 + source
            .lines()
            .position(|line| line.contains(text) && line.contains('='))
            .context("the fixture has no such line")?;
        let is_there = stacks.iter().any(|stack| {
            stack["frames"].as_array().into_iter().flatten().any(|frame| {
                frame["function"] == function
                    && frame["line"] == line
                    && frame["file"]
                        .as_str()
                        .is_some_and(|file| file.ends_with("symbols/hidden.c"))
                    && frame["inlined"].as_bool().unwrap_or(false) == (function == "inlined_part")
            })
        });
        ensure!(is_there, "{function} is not at line {line}: {stacks:#?}");
    }
    Ok(())
}

/// Fails unless the fixture's frames have places instead of names.
pub(crate) fn is_nameless(recording: &MemtapRecording) -> Result<()> {
    let folded = recording.folded()?;
    let nameless = folded.weight_of(|line| {
        !line.passes("hidden_")
            && !line.passes("inlined_part")
            && line
                .frames
                .iter()
                .filter(|frame| frame.starts_with("[hidden+0x"))
                .count()
                >= 3
    });
    ensure!(
        nameless == ROUND_BYTES,
        "{nameless} bytes below frames without a name, not {ROUND_BYTES}:\n{}",
        folded.text
    );
    Ok(())
}

/// Returns what the summary says of a file, by the end of its path.
pub(crate) fn object<'a>(recording: &'a MemtapRecording, name: &str) -> Result<&'a serde_json::Value> {
    let objects = recording.summary()?.json["objects"].as_array();
    objects
        .context("no objects")?
        .iter()
        .find(|object| object["path"].as_str().is_some_and(|path| path.ends_with(name)))
        .with_context(|| format!("{name} is not among the objects"))
}
