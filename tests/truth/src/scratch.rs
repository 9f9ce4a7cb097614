//! A directory for a workload's own files, gone when the comparison is over.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A directory that is removed when dropped.
pub(crate) struct ScratchDirectory {
    path: PathBuf,
}

impl ScratchDirectory {
    /// Creates it where other users can reach it: some workloads refuse to run as root, and the
    /// build's directory may be closed to others. Its path has the same length in each run, and so
    /// have arguments made of it.
    pub(crate) fn create(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("memtap-truth-{:08}-{name}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("failed to create {}", path.display()))?;
        let scratch = Self {
            path: path
                .canonicalize()
                .with_context(|| format!("failed to find {}", path.display()))?,
        };
        fs::set_permissions(&scratch.path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("failed to open {} to others", path.display()))?;
        Ok(scratch)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A file with this text. Returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("xtask: failed to remove {}: {error}", self.path.display());
        }
    }
}
