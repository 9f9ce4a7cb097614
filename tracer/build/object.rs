//! The recipe of the eBPF object: the one for `tracer/build.rs` and for `cargo xtask ebpf`, which
//! both include this file.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The version of bpf-linker that `cargo xtask setup` installs: it loads the LLVM that ships with
/// the pinned rustc.
pub(crate) const LINKER_VERSION: &str = "0.10.1";

/// Names the linker to use in place of the one that set-up installs.
pub(crate) const LINKER_OVERRIDE: &str = "MEMTAP_BPF_LINKER";

/// Files and directories, below the repository's root, that the object is made of.
#[allow(dead_code, reason = "one of the two users of this file watches them")]
pub(crate) const SOURCES: [&str; 4] = [
    "tracer-ebpf/src",
    "tracer-ebpf/Cargo.toml",
    "Cargo.lock",
    "rust-toolchain.toml",
];

/// Builds the eBPF side of `workspace` from source, for `bpfel-unknown-none`, with the pinned
/// stable toolchain. What cargo keeps is below `target_dir`, which has to be none that another
/// cargo waits in. Returns the object as the kernel takes it.
pub(crate) fn build(workspace: &Path, target_dir: &Path, features: &[&str]) -> Result<Vec<u8>> {
    let linker = linker()?;
    require_rust_src()?;
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
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Variables that cargo has set for its caller are about the host's build.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_") && text != "CARGO_HOME" || text.starts_with("RUSTC") {
            command.env_remove(&name);
        }
    }
    command
        .current_dir(workspace)
        .env_remove("RUSTFLAGS")
        // Set for a build script alone; aya's own are run again where it differs from the last
        // time.
        .env_remove("HOST")
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
        .arg(target_dir);
    for feature in features {
        command.args(["--features", feature]);
    }
    let status = command
        .status()
        .context("failed to start cargo for the eBPF side")?;
    if !status.success() {
        bail!("failed to build the eBPF side: {status}");
    }
    let object = target_dir.join("bpfel-unknown-none/release/memtap-ebpf");
    let mut bytes = std::fs::read(&object).with_context(|| format!("failed to read {}", object.display()))?;
    name_unions(&mut bytes);
    Ok(bytes)
}

/// Gives generic unions names that the kernel takes. It refuses type information whose names are no
/// C names; bpf-linker rewrites those of structs, and leaves those of unions, of which
/// `MaybeUninit` is one (in aya-log's level). Without type information there are no global
/// functions, and loops are verified turn by turn.
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

fn linker() -> Result<PathBuf> {
    if let Some(path) = env::var_os(LINKER_OVERRIDE) {
        return Ok(path.into());
    }
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        // As the XDG specification says: other paths are to be ignored.
        .filter(|path| path.is_absolute())
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set, so the set-up cannot be found")?;
    let directory = cache.join("memtap").join(format!("bpf-linker-{LINKER_VERSION}"));
    let path = directory.join("bin/bpf-linker");
    if !path.exists() {
        bail!("bpf-linker {LINKER_VERSION} is missing: run `cargo xtask setup` once");
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
