//! bytehound, which no distribution has: it takes part where its library lies beside its program.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{Launcher, SeenCalls};
use test_support::workspace;

/// bytehound's library, loaded before others. Its file is for its own viewer: it is there, or not.
pub(crate) struct Bytehound;

const LIBRARY: &str = "libbytehound.so";
const FILE: &str = "bytehound.dat";

impl Launcher for Bytehound {
    fn missing(&self) -> Option<String> {
        library()
            .is_none()
            .then(|| format!("{LIBRARY} is not in PATH, nor in a lib beside it"))
    }

    fn note(&self) -> Option<String> {
        Some("its calls are not counted".to_owned())
    }

    fn command(&self, binary: &Path, directory: &Path) -> Result<Command> {
        let library = library().with_context(|| format!("failed to find {LIBRARY}"))?;
        let messages = directory.join("stderr");
        let messages =
            File::create(&messages).with_context(|| format!("failed to create {}", messages.display()))?;
        let mut command = workspace::untouched(binary);
        command
            .env("LD_PRELOAD", library)
            .env("MEMORY_PROFILER_OUTPUT", directory.join(FILE))
            .stderr(messages);
        Ok(command)
    }

    fn seen(&self, directory: &Path) -> Result<SeenCalls> {
        let file = directory.join(FILE);
        let length = fs::metadata(&file).map_or(0, |metadata| metadata.len());
        ensure!(length > 0, "bytehound wrote nothing");
        Ok(SeenCalls::Nothing)
    }
}

fn library() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .flat_map(|directory| [directory.join(LIBRARY), directory.join("../lib").join(LIBRARY)])
        .find(|file| file.is_file())
}
