//! `cargo xtask demo`: memtap at work on a small program that ships with the project.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::setup::{self, SetupOptions};
use crate::{ebpf, privilege, process, workspace};

/// Sets up, builds, traces the workload, shows its top stacks, and leaves files for a closer look.
pub(crate) fn run() -> Result<()> {
    privilege::prime()?;
    setup::run(&SetupOptions::default())?;
    let memtap = ebpf::build_memtap()?;
    let directory = workspace::target_dir()?.join("demo");
    fs::create_dir_all(&directory).with_context(|| format!("failed to create {}", directory.display()))?;
    let workload = build_workload(&directory)?;
    privilege::prime()?;

    eprintln!("xtask: memtap record --table -o … -- {}", workload.display());
    let files = [
        "demo.folded",
        "demo.svg",
        "demo.html",
        "demo.pb.gz",
        "summary.json",
    ]
    .map(|name| directory.join(name));
    let [stacks, flame_graph, page, profile, summary] = &files;
    let mut options: Vec<&Path> = ["--table", "--top", "10", "--summary"].map(Path::new).into();
    options.push(summary);
    for file in [stacks, flame_graph, page, profile] {
        options.extend([Path::new("-o"), file]);
    }
    record(&memtap, &options, &workload)?;
    eprintln!();
    eprintln!("folded stacks  {}", stacks.display());
    eprintln!("flame graph    {}  (open it in a browser)", flame_graph.display());
    eprintln!("page           {}  (open it in a browser)", page.display());
    eprintln!("profile        {}  (for `memtap report`)", profile.display());
    eprintln!("summary        {}", summary.display());
    Ok(())
}

fn record(memtap: &Path, options: &[&Path], workload: &Path) -> Result<()> {
    let mut command = privilege::elevated(memtap);
    command.arg("record").args(options).arg("--").arg(workload);
    process::run(
        &mut command,
        "trace the demo's workload; `memtap doctor` shows what this machine lacks",
    )
}

/// Compiled with frame pointers, and with debug information so that inlined functions have names.
fn build_workload(directory: &Path) -> Result<PathBuf> {
    let binary = directory.join("word-index");
    let mut rustc = workspace::rustc();
    rustc
        .args([
            "--edition",
            "2024",
            "-O",
            "-g",
            "-C",
            "force-frame-pointers=yes",
            "-o",
        ])
        .arg(&binary)
        .arg("xtask/demo/word_index.rs");
    process::run(&mut rustc, "compile the demo's workload")?;
    Ok(binary)
}
