//! `cargo xtask dist`: what a package of memtap has beside the program.

use std::fs;

use anyhow::{Context as _, Result};

use crate::setup::{self, SetupOptions};
use crate::{process, workspace};

/// Writes man pages and completions to `dist/` in cargo's target directory, from the command line's
/// own definition.
pub(crate) fn run() -> Result<()> {
    setup::run(&SetupOptions::default())?;
    let directory = workspace::target_dir()?.join("dist");
    fs::create_dir_all(&directory).with_context(|| format!("failed to create {}", directory.display()))?;
    let mut cargo = workspace::cargo();
    cargo
        .args(["run", "--quiet", "--package", "memtap", "--example", "dist", "--"])
        .arg(&directory);
    process::run(&mut cargo, "write man pages and completions")?;
    eprintln!("man pages    {}", directory.join("man/man1").display());
    eprintln!("completions  {}", directory.join("completions").display());
    Ok(())
}
