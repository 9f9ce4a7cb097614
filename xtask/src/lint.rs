//! `cargo xtask lint`: formatting, clippy on both sides, checkers from elsewhere, and the
//! repository's own rules.

mod layers;
mod layout;
mod modules;
mod prose;
mod source;
mod text;
pub(crate) mod tools;
mod types;

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use self::source::{TextFile, Violation};
use crate::{process, workspace};

/// Flags of the eBPF side's build that decide which code is compiled; `tracer/build.rs` has them
/// all.
const EBPF_FLAGS: &[&str] = &[
    "--cfg",
    "bpf_target_arch=\"x86_64\"",
    "-C",
    "panic=abort",
    "-C",
    "target-cpu=v3",
];

/// The checks to run.
#[derive(Args, Default)]
pub(crate) struct LintOptions {
    /// Run these checks alone
    #[arg(value_enum)]
    checks: Vec<LintCheck>,
}

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LintCheck {
    /// rustfmt
    Fmt,
    /// clippy of the user side
    Clippy,
    /// clippy of the eBPF side
    ClippyEbpf,
    /// Documentation of every item, without a broken link
    Doc,
    /// Spelling, by typos
    Typos,
    /// Layout of manifests, by taplo
    Taplo,
    /// Licences and versions of dependencies, by cargo-deny
    Deny,
    /// Paths of one machine, hosts of registries, unfinished code
    Text,
    /// Layers of the tracer, and cycles of its modules
    Layers,
    /// Documents against the tree: paths, links, tests, the README's length
    Layout,
    /// Width of comments
    Comments,
    /// Words that documentation opens with
    Openings,
    /// Names of types that are given twice
    TypeNames,
    /// Types whose methods are in too many files
    Impls,
    /// Names of maps
    MapNames,
}

impl LintCheck {
    fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    fn run(self) -> Result<()> {
        match self {
            Self::Fmt => fmt(),
            Self::Clippy => clippy(),
            Self::ClippyEbpf => clippy_ebpf(),
            Self::Doc => tools::rustdoc(),
            Self::Typos => tools::ensure().and_then(|()| tools::typos()),
            Self::Taplo => tools::ensure().and_then(|()| tools::taplo()),
            Self::Deny => tools::ensure().and_then(|()| tools::deny()),
            Self::Text
            | Self::Layers
            | Self::Layout
            | Self::Comments
            | Self::Openings
            | Self::TypeNames
            | Self::Impls
            | Self::MapNames => self.run_own(&tracked_files()?),
        }
    }

    /// Runs a rule of the repository's own and prints each breach.
    fn run_own(self, files: &[TextFile]) -> Result<()> {
        let violations = match self {
            Self::Layers => layers::check(files)?,
            Self::Layout => layout::check(files),
            Self::Comments => prose::wide_comments(files),
            Self::Openings => {
                let openings = prose::Openings::read(files);
                eprintln!("xtask: {}", openings.share());
                openings.violations()
            }
            Self::TypeNames => types::names_given_twice(&types::Parsed::of(files)?),
            Self::Impls => types::scattered_methods(&types::Parsed::of(files)?),
            Self::MapNames => types::long_map_names(&types::Parsed::of(files)?),
            _ => text::check(files),
        };
        for Violation { place, message } in &violations {
            eprintln!("error: {place}: {message}");
        }
        if !violations.is_empty() {
            bail!("failed to pass {}: {} errors", self.name(), violations.len());
        }
        Ok(())
    }
}

/// Runs every check, and fails after the last one with the names of those that failed.
pub(crate) fn run(options: &LintOptions) -> Result<()> {
    let checks = if options.checks.is_empty() {
        LintCheck::value_variants()
    } else {
        &options.checks
    };
    let mut failed = Vec::new();
    for check in checks {
        if let Err(error) = check.run() {
            eprintln!("xtask: {error:#}");
            failed.push(check.name());
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {}; see above", failed.join(", "));
    }
    Ok(())
}

/// Every text file that git tracks or would track.
fn tracked_files() -> Result<Vec<TextFile>> {
    let root = workspace::root();
    let listed = process::output(
        workspace::untouched(Path::new("git")).args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]),
        "list the repository's files",
    )?;
    // A file that was deleted is still listed; one that is not text has no lines to check.
    Ok(listed
        .split('\0')
        .filter_map(|name| {
            let text = fs::read_to_string(root.join(name)).ok()?;
            let name = name.to_owned();
            Some(TextFile { name, text })
        })
        .collect())
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

/// The kernel side is empty on the host, so clippy has to see it built for its own target: as it
/// ships, and with what is for development alone, which nothing else compiles.
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
        // A directory of its own: other flags would make the host's clippy start over each time.
        .arg("--target-dir")
        .arg(workspace::target_dir()?.join("lint-ebpf"))
        .args(["--", "-D", "warnings"]);
    process::run(&mut command, "pass clippy for bpfel-unknown-none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_documented() {
        let document = include_str!("../../CONTRIBUTING.md");
        for check in LintCheck::value_variants() {
            let name = check.name();
            assert!(document.contains(&format!("`{name}`")), "{name}");
        }
    }
}
