//! `cargo xtask setup`: what the build of the eBPF side needs, once per machine and user.

use anyhow::Result;
use clap::Args;

use crate::rust_src::SourceOrigin;
use crate::{bpf_linker, packages, privilege, rust_src};

/// The settings of the set-up.
#[derive(Args, Default)]
pub(crate) struct SetupOptions {
    /// Get rust-src by this way alone, so that each way can be tested
    #[arg(long, value_enum, hide = true)]
    rust_src_from: Option<SourceOrigin>,
}

/// Puts everything in place; does nothing, and says nothing, where it already is.
/// Run it as the user who builds, not under `sudo`: the cache directory is that user's.
pub(crate) fn run(options: &SetupOptions) -> Result<()> {
    privilege::warn_of_sudo();
    packages::ensure(packages::BUILD)?;
    rust_src::ensure(options.rust_src_from)?;
    bpf_linker::ensure()
}
