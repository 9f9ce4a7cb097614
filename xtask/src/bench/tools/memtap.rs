//! memtap itself, as it is used on a running process.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{Running, Seen, Tracer};
use crate::bench::target::Target;
use crate::privilege;

/// What becomes of the blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocks {
    /// Only their allocation is looked at.
    Counted,
    /// They are followed to their free, by `--live`.
    Followed,
}

/// The release binary.
pub(crate) struct Memtap {
    pub(crate) binary: PathBuf,
    /// How it walks stacks, as `--unwind` has it.
    pub(crate) unwind: &'static str,
    pub(crate) blocks: Blocks,
}

impl Tracer for Memtap {
    fn missing(&self) -> Option<String> {
        None
    }

    fn attach(&self, target: &Target, folder: &Path) -> Result<Running> {
        let mut command = privilege::elevated(&self.binary);
        command.args(["record", "-p", &target.pid().to_string(), "--unwind", self.unwind]);
        if self.blocks == Blocks::Followed {
            command.arg("--live");
        }
        command.arg("-o").arg(folder.join("memtap.folded"));
        command.arg("--summary").arg(folder.join("summary.json"));
        Running::start(&mut command, folder)
    }

    fn seen(&self, folder: &Path) -> Result<Seen> {
        let text =
            fs::read_to_string(folder.join("summary.json")).context("failed to read memtap's summary")?;
        let summary: serde_json::Value =
            serde_json::from_str(&text).context("failed to read memtap's summary")?;
        seen(&summary["totals"], self.blocks)
    }
}

/// The calls of malloc, if no block is left of those that were followed.
fn seen(totals: &serde_json::Value, blocks: Blocks) -> Result<Seen> {
    if blocks == Blocks::Followed {
        let live = &totals["live"]["bytes"];
        ensure!(
            live.as_u64() == Some(0),
            "{live} bytes are live in memtap's summary, and the loop keeps none"
        );
    }
    totals["functions"]["malloc"]["calls"]
        .as_u64()
        .map(Seen::Calls)
        .context("failed to find the calls of malloc in memtap's summary")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks_that_stay_are_no_figure() {
        let totals = |bytes: u64| json!({"functions": {"malloc": {"calls": 80}}, "live": {"bytes": bytes}});
        assert_eq!(seen(&totals(0), Blocks::Followed).ok(), Some(Seen::Calls(80)));
        assert!(seen(&totals(64), Blocks::Followed).is_err());
        let without = json!({"functions": {"malloc": {"calls": 80}}});
        assert!(seen(&without, Blocks::Followed).is_err());
        assert_eq!(seen(&without, Blocks::Counted).ok(), Some(Seen::Calls(80)));
    }
}
