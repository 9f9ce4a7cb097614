//! A process under load: a target that attaching and detaching must not disturb.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Fixture, LIMIT, RunningProgram, eventually};
use tempfile::TempDir;

/// A process under load, and the file in which its threads count their rounds.
pub(crate) struct ProcessUnderLoad {
    running: RunningProgram,
    pid: u32,
    progress: PathBuf,
    /// Removed with it.
    _directory: TempDir,
}

impl ProcessUnderLoad {
    /// Starts one, and waits until all its threads are at it.
    pub(crate) fn start(context: &Context) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let progress = directory.path().join("progress");
        let mut command = Fixture::c(context, "under_load")?.command();
        command.arg(&progress);
        let running = RunningProgram::start(command)?;
        let pid = running.pid();
        Self::begin(running, pid, progress, directory)
    }

    /// Starts one in a root directory of its own, with copies of the libraries that it needs.
    pub(crate) fn start_in_chroot(context: &Context) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let root = directory.path();
        let fixture = Fixture::c(context, "under_load")?;
        std::fs::copy(&fixture.path, root.join("under_load"))?;
        copy_libraries(&fixture.path, root)?;
        let mut command = context.privileged("chroot");
        command
            .arg(root)
            .args(["/under_load", "/progress"])
            .env("LD_LIBRARY_PATH", "/lib");
        let progress = root.join("progress");
        let running = RunningProgram::start(command)?;
        let pid = running.pid();
        let mut target = Self::begin(running, pid, progress, directory)?;
        target.pid = context.behind_sudo(pid, "under_load")?;
        Ok(target)
    }

    fn begin(running: RunningProgram, pid: u32, progress: PathBuf, directory: TempDir) -> Result<Self> {
        let mut target = Self {
            running,
            pid,
            progress,
            _directory: directory,
        };
        target.advances()?;
        Ok(target)
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Fails unless every thread goes on counting.
    pub(crate) fn advances(&mut self) -> Result<()> {
        let before = rounds(&self.progress);
        let advanced = eventually(Duration::from_secs(10), || {
            ensure!(self.running.is_alive()?, "the process under load has ended");
            let now = rounds(&self.progress);
            Ok(now.len() == 3
                && now
                    .iter()
                    .enumerate()
                    .all(|(at, rounds)| *rounds > before.get(at).copied().unwrap_or_default()))
        })?;
        ensure!(
            advanced,
            "the process under load stands still: {before:?}, {:?}",
            rounds(&self.progress)
        );
        Ok(())
    }

    /// Ends it; it must have found all of its blocks as it left them.
    pub(crate) fn stop(mut self, context: &Context) -> Result<()> {
        self.advances()?;
        context.signal(self.pid(), "TERM")?;
        let finished = self.running.finish(LIMIT)?;
        ensure!(
            finished.code() == 0,
            "the process under load ended with {}",
            finished.code()
        );
        Ok(())
    }
}

/// The rounds of each thread; nothing before the file is there.
fn rounds(progress: &Path) -> Vec<u64> {
    std::fs::read(progress)
        .unwrap_or_default()
        .chunks_exact(8)
        .filter_map(|chunk| chunk.try_into().ok().map(u64::from_le_bytes))
        .collect()
}

/// Copies the libraries that a program needs into another root directory, below `/lib`.
pub(crate) fn copy_libraries(program: &Path, root: &Path) -> Result<()> {
    std::fs::create_dir_all(root.join("lib"))?;
    for library in libraries(program)? {
        let name = library.file_name().context("a library has no name")?;
        std::fs::copy(&library, root.join("lib").join(name))?;
        // The dynamic linker is asked for by its whole path.
        let whole = root.join(library.strip_prefix("/")?);
        std::fs::create_dir_all(whole.parent().context("no directory")?)?;
        std::fs::copy(&library, whole)?;
    }
    Ok(())
}

/// Returns what the dynamic linker would load, itself too.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8(output.stdout)?;
    let paths: Vec<_> = text
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect();
    ensure!(paths.len() >= 2, "ldd shows no libraries: {text}");
    Ok(paths)
}
