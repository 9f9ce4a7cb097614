//! `cargo xtask bench` and `cargo xtask truth`: crates of their own below `tests/`, built and run.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;

use anyhow::{Error, Result};
use clap::Args;

use crate::{setup, workspace};

/// Arguments that are passed on; the crate itself has the help on them.
#[derive(Args)]
pub(crate) struct PassedArguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// Sets up, since these crates build memtap, and becomes `cargo run` of `package`. Returns where
/// that fails.
pub(crate) fn run(package: &str, options: &PassedArguments) -> Result<()> {
    setup::run(&setup::SetupOptions::default())?;
    let mut command = workspace::cargo();
    command
        .args(["run", "--quiet", "--release", "--package", package, "--"])
        .args(&options.arguments);
    Err(Error::new(command.exec()).context(format!("failed to start cargo for {package}")))
}
