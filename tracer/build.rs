//! Builds the eBPF side from source, for `bpfel-unknown-none`, with the pinned stable toolchain, and puts the
//! object where `src/bpf/load.rs` takes it in.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The version that `cargo xtask setup` installs: it loads the LLVM that ships with the pinned rustc.
const BPF_LINKER: &str = "bpf-linker-0.10.1";

fn main() -> Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("no CARGO_MANIFEST_DIR")?);
    let workspace = manifest
        .parent()
        .context("the manifest's folder has no parent")?
        .to_path_buf();
    let out = PathBuf::from(env::var_os("OUT_DIR").context("no OUT_DIR")?);
    for watched in [
        "tracer-ebpf/src",
        "tracer-ebpf/Cargo.toml",
        "Cargo.lock",
        "rust-toolchain.toml",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    println!("cargo::rerun-if-env-changed=MEMTAP_BPF_LINKER");

    let object = build(&workspace, &out)?;
    let mut bytes = std::fs::read(&object).with_context(|| format!("failed to read {}", object.display()))?;
    name_unions(&mut bytes);
    std::fs::write(out.join("memtap-ebpf.o"), bytes).context("failed to write the eBPF object")?;
    Ok(())
}

/// Gives generic unions names that the kernel takes. It refuses type information whose names are no C names;
/// bpf-linker rewrites those of structs, and leaves those of unions, of which `MaybeUninit` is one (in aya-log's
/// level). Without type information there are no global functions, and loops are verified turn by turn.
fn name_unions(object: &mut [u8]) {
    let name = b"MaybeUninit<";
    let mut at = 0;
    while let Some(found) = object[at..].windows(name.len()).position(|bytes| bytes == name) {
        at += found;
        while object[at] != 0 {
            if !object[at].is_ascii_alphanumeric() {
                object[at] = b'_';
            }
            at += 1;
        }
    }
}

fn build(workspace: &Path, out: &Path) -> Result<PathBuf> {
    let linker = linker()?;
    require_rust_src()?;
    let cargo = env::var_os("CARGO").context("no CARGO")?;
    let target_dir = out.join("ebpf");
    let flags = [
        "--cfg=bpf_target_arch=\"x86_64\"",
        "-Clink-arg=--btf",
        "-Cdebuginfo=2",
        "-Cpanic=abort",
        // Atomic exchange: Linux 5.12.
        "-Ctarget-cpu=v3",
        &format!("-Clinker={}", linker.display()),
    ]
    .join("\x1f");
    let mut command = Command::new(cargo);
    // What cargo set for this script is about the host's build.
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_") && name_text != "CARGO_HOME" || name_text.starts_with("RUSTC") {
            command.env_remove(&name);
        }
    }
    command
        .current_dir(workspace)
        .env_remove("RUSTFLAGS")
        // Nightly options of a stable toolchain: `-Z build-std`, and the atomics of the target.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            "tracer-ebpf",
            "--bin",
            "memtap-ebpf",
        ])
        .args(["-Z", "build-std=core", "--target", "bpfel-unknown-none"])
        .arg("--target-dir")
        .arg(&target_dir);
    for (feature, variable) in [
        ("hot-log", "CARGO_FEATURE_HOT_LOG"),
        ("bench", "CARGO_FEATURE_BENCH"),
    ] {
        if env::var_os(variable).is_some() {
            command.args(["--features", feature]);
        }
    }
    let status = command
        .status()
        .context("failed to start cargo for the eBPF side")?;
    if !status.success() {
        bail!("failed to build the eBPF side: {status}");
    }
    Ok(target_dir.join("bpfel-unknown-none/release/memtap-ebpf"))
}

fn linker() -> Result<PathBuf> {
    if let Some(path) = env::var_os("MEMTAP_BPF_LINKER") {
        return Ok(path.into());
    }
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        // As the XDG specification says: other paths are to be ignored.
        .filter(|path| path.is_absolute())
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set, so the set-up cannot be found")?;
    let path = cache.join("memtap").join(BPF_LINKER).join("bin/bpf-linker");
    if !path.exists() {
        bail!("{BPF_LINKER} is missing: run `cargo xtask setup` once");
    }
    Ok(path)
}

fn require_rust_src() -> Result<()> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let answer = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .context("failed to ask rustc for its sysroot")?;
    let sysroot = String::from_utf8(answer.stdout).context("rustc's sysroot is not UTF-8")?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
    if !library.exists() {
        bail!("the source of Rust's core library is missing: run `cargo xtask setup` once");
    }
    Ok(())
}
