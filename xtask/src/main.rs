//! A developer's commands, as `cargo xtask COMMAND`.
//!
//! Each command does its own set-up, builds as the caller, and uses `sudo` for tracing alone.

mod apt_sources;
mod bpf_linker;
mod debian;
mod demo;
mod dist;
mod ebpf;
mod kernels;
mod lint;
mod measuring;
mod private_apt;
mod rust_src;
mod setup;
mod test;
mod test_output;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use test_support::{packages, privilege, process, product, workspace};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, version)]
struct XtaskArguments {
    #[command(subcommand)]
    command: XtaskCommand,
}

#[derive(Subcommand)]
enum XtaskCommand {
    /// Put in place what the eBPF side's build needs: rust-src and bpf-linker
    Setup(setup::SetupOptions),
    /// Build memtap, trace a workload, show its top stacks and leave a flame graph
    Demo,
    /// Write man pages and completions for bash, zsh and fish
    Dist,
    /// Check formatting, clippy, documentation, spelling, licences, and the repository's own rules
    Lint(lint::LintOptions),
    /// Build the eBPF side alone, and see that this kernel's verifier takes it
    Ebpf,
    /// Everything that CI runs: lint, unit tests, and traces of real programs
    Test(test::TestOptions),
    /// Measure what tracing costs loops and real programs, beside other tools
    #[command(disable_help_flag = true)]
    Bench(measuring::PassedArguments),
    /// Boot other kernels and run the core of the suite on each
    Kernels(kernels::KernelsOptions),
    /// Compare memtap's stacks with gdb's, frame by frame, on programs as they are shipped
    #[command(disable_help_flag = true)]
    Truth(measuring::PassedArguments),
}

fn main() -> ExitCode {
    let result = match XtaskArguments::parse().command {
        XtaskCommand::Setup(options) => setup::run(&options).and_then(|()| lint::tools::ensure()),
        XtaskCommand::Demo => demo::run(),
        XtaskCommand::Dist => dist::run(),
        // Clippy compiles both sides, so it needs what a build needs.
        XtaskCommand::Lint(options) => {
            setup::run(&setup::SetupOptions::default()).and_then(|()| lint::run(&options))
        }
        XtaskCommand::Ebpf => ebpf::run(),
        XtaskCommand::Test(options) => test::run(&options),
        XtaskCommand::Bench(options) => measuring::run("bench", &options),
        // As the command in the guest ends, so does this.
        XtaskCommand::Kernels(options) => match kernels::run(&options) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        XtaskCommand::Truth(options) => measuring::run("truth", &options),
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
                if let Err(error) = XtaskArguments::try_parse_from(words) {
                    panic!("{command}: {error}");
                }
                commands += 1;
            }
        }
        assert!(commands > 20, "{commands} commands");
    }
}
