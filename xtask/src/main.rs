//! A developer's commands, as `cargo xtask COMMAND`.
//!
//! Each command does its own set-up, builds as the caller, and uses `sudo` for tracing alone.

mod apt_sources;
mod bpf_linker;
mod debian;
mod demo;
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
    /// Check formatting, clippy on both sides, and the repository's own rules
    Lint,
    /// Everything that CI runs: lint, unit tests, and traces of real programs
    Test(test::Options),
    /// Measure what tracing costs loops and real programs, beside other tools
    #[command(disable_help_flag = true)]
    Bench(measuring::Options),
    /// Boot other kernels and run the core of the suite on each
    Kernels(kernels::Options),
    /// Compare memtap's stacks with gdb's, frame by frame, on programs as they are shipped
    #[command(disable_help_flag = true)]
    Truth(measuring::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup(options) => setup::run(&options),
        Command::Demo => demo::run(),
        // Clippy compiles both sides, so it needs what a build needs.
        Command::Lint => setup::run(&setup::Options::default()).and_then(|()| lint::run()),
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => measuring::run("bench", &options),
        // As the command in the guest ends, so does this.
        Command::Kernels(options) => match kernels::run(&options) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::Truth(options) => measuring::run("truth", &options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
