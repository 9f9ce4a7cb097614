//! Tracing needs root, building must not have it: `sudo` goes in front of single commands.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::{process, workspace};

/// Returns whether this process runs as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `program`, run as root: as it is where the caller is root, else through `sudo`. [`prime`] must
/// have been called, so that no password is asked for in the middle of a measurement.
#[must_use]
pub fn elevated(program: &Path) -> Command {
    if is_root() {
        return workspace::untouched(program);
    }
    let mut command = workspace::untouched(Path::new("sudo"));
    command.arg("-n").arg("--").arg(program);
    command
}

/// Makes sure that [`elevated`] works, asking for the password where sudo wants one. Called before
/// a long build, so that nobody waits for it in vain, and after it, when sudo may have forgotten.
pub fn prime() -> Result<()> {
    if is_root() {
        return Ok(());
    }
    if !workspace::in_path("sudo") {
        bail!("failed to become root for tracing: there is no sudo here; run the command as root");
    }
    // `sudo -v` may ask for a password that running a command does not need.
    let without_password = process::output(Command::new("sudo").args(["-n", "true"]), "become root");
    if without_password.is_ok() {
        return Ok(());
    }
    process::run(Command::new("sudo").arg("-v"), "become root for tracing")
}

/// Says what is wrong with running all of xtask under `sudo`: caches and build output would be
/// root's.
pub fn warn_of_sudo() {
    if is_root() && std::env::var_os("SUDO_UID").is_some() {
        eprintln!(
            "xtask: running under sudo: build output and caches will belong to root; run `cargo xtask` as \
             yourself, it calls sudo where it must"
        );
    }
}
