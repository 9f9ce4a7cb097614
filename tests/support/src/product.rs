//! Building memtap itself.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{process, workspace};

/// Builds the release binary, both sides, as the caller. Returns its path.
pub fn build() -> Result<PathBuf> {
    process::run(
        workspace::cargo().args(["build", "--release", "-p", "memtap"]),
        "build memtap",
    )?;
    let binary = workspace::target_dir()?.join("release/memtap");
    if !binary.is_file() {
        bail!(
            "failed to find the binary that cargo built at {}",
            binary.display()
        );
    }
    Ok(binary)
}
