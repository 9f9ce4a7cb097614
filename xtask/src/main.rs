//! What a developer does with this repository, as `cargo xtask COMMAND`.
//!
//! Each command does its own set-up, builds as the caller, and uses `sudo` for tracing alone.

mod apt_sources;
mod bench;
mod bpf_linker;
mod debian;
mod demo;
mod kernels;
mod lint;
mod packages;
mod private_apt;
mod privilege;
mod process;
mod product;
mod rust_src;
mod setup;
mod test;
mod test_output;
mod truth;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put in place what the eBPF side's build needs: rust-src and bpf-linker
    Setup(setup::Options),
    /// Build memtap, trace a workload, show its top stacks and leave a flame graph
    Demo,
    /// Check formatting, clippy, documentation, spelling, licences, and the repository's own rules
    Lint(lint::LintOptions),
    /// Everything that CI runs: lint, unit tests, and traces of real programs
    Test(test::Options),
    /// Measure what tracing costs loops and real programs, beside other tools
    Bench(bench::Options),
    /// Boot other kernels and run the core of the suite on each
    Kernels(kernels::Options),
    /// Compare memtap's stacks with gdb's, frame by frame, on programs as they are shipped
    Truth(truth::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup(options) => setup::run(&options).and_then(|()| lint::tools::ensure()),
        Command::Demo => demo::run(),
        // Clippy compiles both sides, so it needs what a build needs.
        Command::Lint(options) => setup::run(&setup::Options::default()).and_then(|()| lint::run(&options)),
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options),
        // As the command in the guest ends, so does this.
        Command::Kernels(options) => match kernels::run(&options) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::Truth(options) => truth::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands of the documents: lines of their code blocks, and words in backticks.
    #[test]
    fn documented_commands_parse() {
        let documents = [
            include_str!("../../README.md"),
            include_str!("../../CONTRIBUTING.md"),
            include_str!("../../docs/allocators.md"),
            include_str!("../../docs/costs.md"),
        ];
        let mut commands = 0;
        for line in documents.iter().flat_map(|text| text.lines()) {
            let quoted = line.split('`').skip(1).step_by(2);
            for command in std::iter::once(line).chain(quoted) {
                if !command.starts_with("cargo xtask ") || command.contains('…') {
                    continue;
                }
                let command = command.split('#').next().unwrap_or_default();
                let words = command.split_whitespace().skip(1);
                if let Err(error) = Arguments::try_parse_from(words) {
                    panic!("{command}: {error}");
                }
                commands += 1;
            }
        }
        assert!(commands > 20, "{commands} commands");
    }
}
