//! The standard library's source, from which `-Z build-std=core` builds `core` for the eBPF target.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::ValueEnum;

use crate::{debian, process, workspace};

/// An origin of the source.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SourceOrigin {
    /// The toolchain manager's own component.
    Rustup,
    /// Debian's package of the same version, unpacked and not installed.
    Debian,
}

/// The directory in which rustc looks for the library's source, below its sysroot.
const LIBRARY: &str = "lib/rustlib/src/rust/library";

/// Makes sure that the pinned toolchain has its library's source; `only` pins one way of getting
/// it.
pub(crate) fn ensure(only: Option<SourceOrigin>) -> Result<()> {
    let sysroot = workspace::sysroot()?;
    let library = sysroot.join(LIBRARY);
    if is_complete(&library) {
        return Ok(());
    }
    let version = workspace::rustc_version()?;
    eprintln!("xtask: rustc {version} has no library source; getting rust-src");
    match only {
        Some(SourceOrigin::Rustup) => from_rustup(&sysroot, &library)?,
        Some(SourceOrigin::Debian) => from_debian(&version, &library)?,
        None => from_rustup(&sysroot, &library).or_else(|by_rustup| {
            eprintln!("xtask: {by_rustup:#}; trying Debian's package");
            from_debian(&version, &library).map_err(|by_debian| {
                anyhow!(
                    "failed to get rust-src for rustc {version} either way: {by_rustup:#}; {by_debian:#}; \
                     put the library's source at {} by hand, then run `cargo xtask setup` again",
                    library.display()
                )
            })
        })?,
    }
    eprintln!("xtask: rust-src is at {}", library.display());
    Ok(())
}

/// `core` is what gets built, and cargo reads the lock file to build it.
fn is_complete(library: &Path) -> bool {
    library.join("core/Cargo.toml").is_file() && library.join("Cargo.lock").is_file()
}

fn from_rustup(sysroot: &Path, library: &Path) -> Result<()> {
    let what = "add rust-src by rustup";
    // rustup would otherwise add the component to a toolchain that is not the one in use.
    let rustc = process::output(
        Command::new("rustup")
            .args(["which", "rustc"])
            .current_dir(workspace::root()),
        what,
    )?;
    if !same_place(Path::new(rustc.trim()), &sysroot.join("bin/rustc")) {
        bail!(
            "failed to {what}: the rustc in use, of {}, is not rustup's",
            sysroot.display()
        );
    }
    let mut command = Command::new("rustup");
    command
        .args(["component", "add", "rust-src"])
        .current_dir(workspace::root());
    if std::env::var_os("RUSTUP_MAX_RETRIES").is_none() {
        // There is a second way to try, so a network that refuses need not refuse four times.
        command.env("RUSTUP_MAX_RETRIES", "1");
    }
    process::output(&mut command, what)?;
    if !is_complete(library) {
        bail!(
            "failed to {what}: it reports success, but {} is not complete",
            library.display()
        );
    }
    Ok(())
}

fn same_place(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn from_debian(version: &str, library: &Path) -> Result<()> {
    let unpacked = workspace::cache_dir()?.join(format!("rust-src-{version}"));
    if !is_complete(&library_in(&unpacked, version)) {
        debian::unpack_rust_src(version, &unpacked)?;
    }
    let source = library_in(&unpacked, version);
    if !is_complete(&source) {
        bail!(
            "failed to find core and Cargo.lock in Debian's package, at {}",
            source.display()
        );
    }
    link(&source, library)
}

/// Returns where Debian's package keeps the library, below the directory that it was unpacked into.
fn library_in(unpacked: &Path, version: &str) -> PathBuf {
    unpacked.join(format!("usr/src/rustc-{version}/library"))
}

fn link(source: &Path, library: &Path) -> Result<()> {
    let describe = || {
        format!(
            "failed to link {} to {}; make the directory writable, or create the link as its owner",
            library.display(),
            source.display()
        )
    };
    match fs::symlink_metadata(library) {
        // A link that leads to nothing complete is one of ours whose cache was cleared.
        Ok(metadata) if metadata.is_symlink() => fs::remove_file(library).with_context(describe)?,
        Ok(_) => bail!(
            "failed to link the library's source: {} exists and is not complete; remove it and run \
             `cargo xtask setup` again",
            library.display()
        ),
        Err(_) => {
            if let Some(parent) = library.parent() {
                fs::create_dir_all(parent).with_context(describe)?;
            }
        }
    }
    symlink(source, library).with_context(describe)
}
