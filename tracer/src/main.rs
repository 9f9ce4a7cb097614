//! The binary `memtap`.

use std::process::ExitCode;

fn main() -> ExitCode {
    memtap::cli::main()
}
