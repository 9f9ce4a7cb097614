//! The linker of the eBPF side. It has to load the LLVM of the rustc in use, so its version is
//! pinned.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::ebpf::object::{LINKER_OVERRIDE as OVERRIDE, LINKER_VERSION as VERSION};
use crate::{process, workspace};

/// Prefixes of variables with which a caller shapes its own builds, and that must not shape the
/// linker's.
const BUILD_PREFIXES: &[&str] = &[
    "CARGO_BUILD_",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "CARGO_UNSTABLE_",
    "CARGO_ENCODED_",
    "CARGO_INSTALL_",
];
const BUILD_VARIABLES: &[&str] = &[
    "RUSTFLAGS",
    "RUSTDOCFLAGS",
    "RUSTC_BOOTSTRAP",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
];

/// Makes sure that bpf-linker of the pinned version is where `tracer/build.rs` looks for it.
pub(crate) fn ensure() -> Result<()> {
    if let Some(path) = env::var_os(OVERRIDE) {
        let path = PathBuf::from(path);
        reported_version(&path).with_context(|| format!("failed to use the linker that {OVERRIDE} names"))?;
        return Ok(());
    }
    let root = workspace::cache_dir()?.join(format!("bpf-linker-{VERSION}"));
    let linker = root.join("bin/bpf-linker");
    if reported_version(&linker).is_ok_and(|version| version == VERSION) {
        return Ok(());
    }
    eprintln!(
        "xtask: installing bpf-linker {VERSION} into {}; takes a minute or two",
        root.display()
    );
    let what = format!(
        "install bpf-linker {VERSION}; see cargo's messages above, then run `cargo xtask setup` again or \
         name a linker of your own in {OVERRIDE}"
    );
    process::run(&mut install(&root), &what)?;
    let version = reported_version(&linker)?;
    if version != VERSION {
        bail!(
            "failed to install bpf-linker {VERSION}: {} says it is {version}",
            linker.display()
        );
    }
    Ok(())
}

fn install(root: &Path) -> Command {
    let mut command = workspace::cargo();
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if BUILD_VARIABLES.contains(&&*name) || BUILD_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(&*name);
        }
    }
    // `--force`: cargo would take a binary that does not run for one that is installed.
    command
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--force",
            "--root",
        ])
        .arg(root);
    // Cargo warns that the directory is not in PATH; nobody needs it there.
    let path = env::var_os("PATH").unwrap_or_default();
    let with_bin = env::join_paths(env::split_paths(&path).chain([root.join("bin")]));
    command.env("PATH", with_bin.unwrap_or(path));
    command
}

/// Returns what `bpf-linker --version` says, without the name.
fn reported_version(linker: &Path) -> Result<String> {
    let line = process::output(Command::new(linker).arg("--version"), "run bpf-linker")?;
    line.split_whitespace()
        .nth(1)
        .map(str::to_owned)
        .with_context(|| format!("failed to read a version out of `{}`", line.trim()))
}
