//! Paths: the repository, cargo's target directory, the user's cache directory, the compiler.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Variables that `cargo run` sets for xtask itself, and that would mislead a cargo that xtask
/// starts.
const OWN_VARIABLES: &[&str] = &[
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_CRATE_NAME",
    "OUT_DIR",
];
const OWN_PREFIXES: &[&str] = &["CARGO_PKG_", "CARGO_BIN_"];

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest_dir.ancestors().nth(2);
    root.unwrap_or(manifest_dir).to_path_buf()
}

/// The directory that every clone of this repository shares: `$XDG_CACHE_HOME/memtap` or
/// `~/.cache/memtap`.
pub fn cache_dir() -> Result<PathBuf> {
    let absolute = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .context("failed to find the user's cache directory: set HOME or XDG_CACHE_HOME")?;
    Ok(base.join("memtap"))
}

/// Cargo's target directory, wherever the environment or a configuration file puts it.
pub fn target_dir() -> Result<PathBuf> {
    let metadata = process::output(
        cargo().args(["metadata", "--no-deps", "--offline", "--format-version", "1"]),
        "ask cargo for its target directory",
    )?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).context("failed to read cargo's metadata")?;
    metadata["target_directory"]
        .as_str()
        .map(PathBuf::from)
        .context("failed to find target_directory in cargo's metadata")
}

/// A cargo command at the repository's root, with the pinned toolchain.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if OWN_VARIABLES.contains(&&*name) || OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(&*name);
        }
    }
    command
}

/// A rustc command at the repository's root, with the pinned toolchain.
#[must_use]
pub fn rustc() -> Command {
    let mut command = Command::new("rustc");
    command.current_dir(root());
    command
}

/// A program to be measured or traced: without the library path that cargo adds for its own
/// children.
#[must_use]
pub fn untouched(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).env_remove("LD_LIBRARY_PATH");
    command
}

/// The sysroot of the pinned toolchain.
pub fn sysroot() -> Result<PathBuf> {
    let path = process::output(rustc().args(["--print", "sysroot"]), "ask rustc for its sysroot")?;
    Ok(PathBuf::from(path.trim()))
}

/// The version of the pinned toolchain's rustc, such as `1.95.0`.
pub fn rustc_version() -> Result<String> {
    let verbose = process::output(rustc().arg("-vV"), "ask rustc for its version")?;
    match verbose.lines().find_map(|line| line.strip_prefix("release: ")) {
        Some(version) => Ok(version.trim().to_owned()),
        None => bail!("failed to find the version in the output of `rustc -vV`"),
    }
}

/// Returns whether `program` is found through `PATH`, as a shell would find it.
#[must_use]
pub fn in_path(program: &str) -> bool {
    find(program).is_some()
}

/// Returns where `program` is found through `PATH`.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}
