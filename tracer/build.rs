//! Builds the eBPF side from source, and puts the object where `src/bpf/load.rs` embeds it.

#[path = "build/object.rs"]
mod object;

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("no CARGO_MANIFEST_DIR")?);
    let workspace = manifest
        .parent()
        .context("the manifest's directory has no parent")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").context("no OUT_DIR")?);
    for watched in object::SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    println!("cargo::rerun-if-changed=build/object.rs");
    println!("cargo::rerun-if-env-changed={}", object::LINKER_OVERRIDE);

    let features: Vec<&str> = [
        ("hot-log", "CARGO_FEATURE_HOT_LOG"),
        ("bench", "CARGO_FEATURE_BENCH"),
    ]
    .into_iter()
    .filter(|(_, variable)| env::var_os(variable).is_some())
    .map(|(feature, _)| feature)
    .collect();
    let bytes = object::build(workspace, &target_dir(&out), &features)?;
    std::fs::write(out.join("memtap-ebpf.o"), bytes).context("failed to write the eBPF object")?;
    Ok(())
}

/// The directory that all profiles' builds of the object share, so that it is made once for all of
/// them: `ebpf` in cargo's target directory, which is four levels above
/// `PROFILE/build/PACKAGE/out`.
fn target_dir(out: &Path) -> PathBuf {
    out.ancestors().nth(4).unwrap_or(out).join("ebpf")
}
