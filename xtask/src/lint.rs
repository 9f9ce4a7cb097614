//! `cargo xtask lint`: formatting, clippy on both sides, and the repository's own rules.

mod text;

use anyhow::{Result, bail};

use crate::{process, workspace};

/// Flags of the eBPF side's build that decide which code is compiled; `tracer/build.rs` has them all.
const EBPF_FLAGS: &[&str] = &[
    "--cfg",
    "bpf_target_arch=\"x86_64\"",
    "-C",
    "panic=abort",
    "-C",
    "target-cpu=v3",
];

/// Runs every check, and fails after the last one with the names of those that failed.
pub(crate) fn run() -> Result<()> {
    let checks = [
        ("fmt", fmt as fn() -> Result<()>),
        ("clippy", clippy),
        ("clippy of the eBPF side", clippy_ebpf),
        ("text", text::check),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        if let Err(error) = check() {
            eprintln!("xtask: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {}; see above", failed.join(", "));
    }
    Ok(())
}

fn fmt() -> Result<()> {
    process::run(
        workspace::cargo().args(["fmt", "--all", "--check"]),
        "find the tree formatted; run `cargo fmt --all`",
    )
}

/// All that ships, and what measures walks, which nothing else compiles.
fn clippy() -> Result<()> {
    let ships = ["--workspace", "--all-targets"].as_slice();
    let measures = [
        "-p",
        "memtap",
        "--lib",
        "--example",
        "walk_cost",
        "--features",
        "bench",
    ];
    [ships, &measures].into_iter().try_for_each(|what| {
        let mut command = workspace::cargo();
        command.arg("clippy").args(what).args(["--", "-D", "warnings"]);
        process::run(&mut command, "pass clippy")
    })
}

/// The kernel side is empty on the host, so clippy has to see it built for its own target: as it ships, and
/// with what is for development alone, which nothing else compiles.
fn clippy_ebpf() -> Result<()> {
    [[].as_slice(), &["--features", "hot-log,bench"]]
        .into_iter()
        .try_for_each(clippy_ebpf_with)
}

fn clippy_ebpf_with(features: &[&str]) -> Result<()> {
    let mut command = workspace::cargo();
    command
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", EBPF_FLAGS.join("\x1f"))
        .args(["clippy", "-p", "tracer-ebpf", "--lib", "--bins"])
        .args(features)
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"])
        // A folder of its own: other flags would make the host's clippy start over each time.
        .arg("--target-dir")
        .arg(workspace::target_dir()?.join("lint-ebpf"))
        .args(["--", "-D", "warnings"]);
    process::run(&mut command, "pass clippy for bpfel-unknown-none")
}
