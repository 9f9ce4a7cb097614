//! Programs that load libraries which memtap cannot know of, and allocate from each at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Fixture, FoldedStackLine, Memtap, Recipe, Reported};

use crate::stacks::walked::Walked;

/// The libraries, each a file of its own, and the files by which a program is told to begin and
/// tells its end.
pub(super) struct Bursts {
    libraries: Vec<PathBuf>,
    /// The program waits for it, if it was asked to.
    pub(super) go: PathBuf,
    done: PathBuf,
    waits: bool,
}

impl Bursts {
    /// Makes `count` libraries in a directory.
    pub(super) fn new(context: &Context, directory: &Path, count: usize) -> Result<Self> {
        let library = Recipe::plain_c("burst").shared().build(context)?;
        let libraries = (0..count)
            .map(|number| {
                let path = directory.join(format!("libburst{number}.so"));
                std::fs::copy(&library.path, &path)?;
                Ok(path)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            libraries,
            go: directory.join("go"),
            done: directory.join("done"),
            waits: false,
        })
    }

    /// Lets the program wait until [`begin`](Self::begin).
    pub(super) fn waiting(mut self) -> Self {
        self.waits = true;
        self
    }

    /// The program that does it on the main thread, or on others.
    pub(super) fn program(context: &Context) -> Result<Fixture> {
        Recipe::plain_c("bursts").flags(["-ldl"]).build(context)
    }

    /// Words for a shell to read a program's name, as `$program`, from a file in a directory: it
    /// cannot be known before.
    pub(super) fn to_be_read(program: &Fixture, directory: &Path) -> Result<String> {
        let list = directory.join("programs");
        let path = program.path.to_str().context("not a plain path")?;
        std::fs::write(&list, format!("{path}\n"))?;
        Ok(format!("read -r program < {}", list.display()))
    }

    /// Returns what the program reads in its environment.
    fn environment(&self) -> Result<Vec<(&'static str, String)>> {
        let plain = |path: &Path| path.to_str().map(str::to_owned).context("not a plain path");
        let libraries = self.libraries.iter().map(|path| plain(path));
        let libraries = libraries.collect::<Result<Vec<_>>>()?.join(":");
        let mut environment = vec![("BURST_LIBRARIES", libraries), ("BURST_DONE", plain(&self.done)?)];
        if self.waits {
            environment.push(("BURST_GO", plain(&self.go)?));
        }
        Ok(environment)
    }

    /// Gives memtap the environment, which the command inherits.
    pub(super) fn of_memtap<'a>(&self, memtap: Memtap<'a>) -> Result<Memtap<'a>> {
        let environment = self.environment()?;
        Ok(environment
            .iter()
            .fold(memtap, |memtap, (name, value)| memtap.environment(name, value)))
    }

    /// Gives a command the environment.
    pub(super) fn of_command(&self, command: &mut Command) -> Result<()> {
        command.envs(self.environment()?);
        Ok(())
    }

    /// Lets a waiting program begin.
    pub(super) fn begin(&self) -> Result<()> {
        Ok(std::fs::write(&self.go, "")?)
    }

    /// Returns whether the program has made its last call.
    pub(super) fn is_done(&self) -> bool {
        self.done.exists()
    }
}

/// Fails unless every chain is exact, every stack whole, and all that was copied was finished.
/// Gives the block `unwind_tables` of the summary.
pub(super) fn is_whole(walked: &Walked, reported: &Reported) -> Result<BTreeMap<String, u64>> {
    let rest = walked.holds(reported)?;
    // The dynamic linker's own, and a thread's.
    let strays: Vec<&FoldedStackLine> = rest.iter().filter(|line| line.passes("burst_")).collect();
    ensure!(strays.is_empty(), "these stacks are of no chain: {strays:#?}");
    walked.ends_are("complete")?;
    let tables = tables(walked)?;
    ensure!(
        tables["unfinished"] == 0 && tables["awaited"] == 0,
        "walks were left as they were: {tables:?}"
    );
    Ok(tables)
}

/// The block `unwind_tables` of the summary.
pub(super) fn tables(walked: &Walked) -> Result<BTreeMap<String, u64>> {
    let tables = &walked.recording.summary()?.json["unwind_tables"];
    let tables = tables.as_object().context("the summary has no unwind_tables")?;
    tables
        .iter()
        .map(|(name, figure)| {
            let figure = figure
                .as_u64()
                .with_context(|| format!("{name} is no whole number"))?;
            Ok((name.clone(), figure))
        })
        .collect()
}
