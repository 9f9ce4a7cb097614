//! A run's own directory: what the virtual machine is given, and what it leaves.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::private_apt::remove_dir;
use crate::{privilege, workspace};

/// A directory that is removed when it is dropped.
pub(super) struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// Makes one below cargo's target directory.
    pub(super) fn create(name: &str) -> Result<Self> {
        let name = format!("{name}-{}", std::process::id());
        let path = workspace::target_dir()?.join("kernels").join(name);
        remove_dir(&path)?;
        fs::create_dir_all(&path).with_context(|| format!("failed to create {}", path.display()))?;
        Ok(Self { path })
    }

    /// A new file in it.
    pub(super) fn file(&self, name: &str) -> Result<File> {
        let path = self.path.join(name);
        File::create(&path).with_context(|| format!("failed to create {}", path.display()))
    }

    /// Writes a new file.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        self.file(name)?
            .write_all(content)
            .with_context(|| format!("failed to write {name} in {}", self.path.display()))
    }

    /// Returns what the file holds; nothing if it is not there: the machine may have ended before
    /// it wrote one.
    pub(super) fn read(&self, name: &str) -> String {
        let content = fs::read(self.path.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&content).replace('\r', "")
    }

    /// Returns the name of virtiofsd's socket in it. virtiofsd names its lock file, which all runs
    /// of the machine share, after the socket: each run has a name of its own.
    pub(super) fn socket(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        format!("share-{name}-{}.socket", std::process::id())
    }

    /// Returns whether something of that name is in it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    /// A program in this directory, as root, with a time limit, so that nothing is left behind even
    /// where it cannot be killed: what root runs through sudo is not ours to kill.
    pub(super) fn limited(&self, program: &Path, limit: Duration) -> Command {
        let mut command = privilege::elevated(Path::new("timeout"));
        // In the foreground, so that it hears of Ctrl-C.
        command
            .args(["--foreground", "-s", "KILL"])
            .arg(limit.as_secs().to_string())
            .arg(program)
            .current_dir(&self.path)
            .stdin(Stdio::null());
        command
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if let Err(error) = remove_dir(&self.path) {
            eprintln!("xtask: {error:#}");
        }
    }
}
