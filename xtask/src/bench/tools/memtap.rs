//! memtap itself, as it is used on a running process.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Running, Seen, Tracer};
use crate::bench::target::Target;
use crate::privilege;

/// The release binary.
pub(crate) struct Memtap {
    pub(crate) binary: PathBuf,
    /// How it walks stacks, as `--unwind` has it.
    pub(crate) unwind: &'static str,
}

impl Tracer for Memtap {
    fn missing(&self) -> Option<String> {
        None
    }

    fn attach(&self, target: &Target, folder: &Path) -> Result<Running> {
        let mut command = privilege::elevated(&self.binary);
        command.args(["record", "-p", &target.pid().to_string(), "--unwind", self.unwind]);
        command.arg("-o").arg(folder.join("memtap.folded"));
        command.arg("--summary").arg(folder.join("summary.json"));
        Running::start(&mut command, folder)
    }

    fn seen(&self, folder: &Path) -> Result<Seen> {
        let text =
            fs::read_to_string(folder.join("summary.json")).context("failed to read memtap's summary")?;
        let summary: serde_json::Value =
            serde_json::from_str(&text).context("failed to read memtap's summary")?;
        summary["totals"]["functions"]["malloc"]["calls"]
            .as_u64()
            .map(Seen::Calls)
            .context("failed to find the calls of malloc in memtap's summary")
    }
}
