//! One walk at each call and nothing else: `tracer/examples/walk_cost.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{RunningTracer, SeenCalls, Tracer};
use crate::target::LoopTarget;
use test_support::privilege;

/// The work at each hit, by the name that the program takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WalkKind {
    /// Nothing: the program returns at once.
    Empty,
    /// `bpf_get_stackid`.
    KernelKept,
    /// `bpf_get_stack`.
    Kernel,
    /// memtap's walk of a stack that it does not know.
    Fresh,
    /// memtap's walk of the same stack again.
    Remembered,
}

impl WalkKind {
    fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::KernelKept => "stackid",
            Self::Kernel => "stack",
            Self::Fresh => "fresh",
            Self::Remembered => "remembered",
        }
    }
}

/// The program that attaches a walker.
pub(crate) struct WalkCost {
    pub(crate) binary: PathBuf,
    pub(crate) walker: WalkKind,
}

impl Tracer for WalkCost {
    fn missing(&self) -> Option<String> {
        None
    }

    fn attach(&self, target: &LoopTarget, directory: &Path) -> Result<RunningTracer> {
        let mut command = privilege::elevated(&self.binary);
        command.args([self.walker.name(), &target.pid().to_string()]);
        RunningTracer::start(&mut command, directory)
    }

    fn seen(&self, directory: &Path) -> Result<SeenCalls> {
        let text =
            fs::read_to_string(directory.join("stdout")).context("failed to read the walker's counts")?;
        seen(self.walker, &text)
    }
}

/// The counts that a walker printed, if they say that it did at every hit what it is there for.
fn seen(walker: WalkKind, text: &str) -> Result<SeenCalls> {
    let counts: serde_json::Value =
        serde_json::from_str(text).context("failed to read the walker's counts")?;
    let count = |name: &str| {
        counts[name]
            .as_u64()
            .with_context(|| format!("failed to find {name} in the walker's counts"))
    };
    let (hits, frames) = (count("hits")?, count("frames")?);
    let (failed, remembered) = (count("failed")?, count("remembered")?);
    if walker == WalkKind::Empty {
        return Ok(SeenCalls::Nothing);
    }
    if failed > 0 {
        bail!("{failed} of {hits} walks failed");
    }
    // The first walk of a stack cannot be remembered.
    let expected = if walker == WalkKind::Remembered {
        hits.saturating_sub(1)
    } else {
        0
    };
    if remembered != expected {
        bail!("{remembered} of {hits} walks were answered from memory, not {expected}");
    }
    if hits == 0 || frames == 0 || frames % hits != 0 {
        bail!("{hits} hits have {frames} frames together: not every walk found the same");
    }
    Ok(SeenCalls::Walks {
        calls: hits,
        frames: frames / hits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_that_was_not_done_is_no_figure() {
        let text = |hits: u64, frames: u64, failed: u64, remembered: u64| {
            format!(r#"{{"hits":{hits},"frames":{frames},"failed":{failed},"remembered":{remembered}}}"#)
        };
        let walks = SeenCalls::Walks {
            calls: 10,
            frames: 12,
        };
        assert_eq!(seen(WalkKind::Fresh, &text(10, 120, 0, 0)).ok(), Some(walks));
        assert_eq!(seen(WalkKind::Remembered, &text(10, 120, 0, 9)).ok(), Some(walks));
        assert!(seen(WalkKind::Fresh, &text(10, 120, 0, 9)).is_err());
        assert!(seen(WalkKind::Remembered, &text(10, 120, 0, 0)).is_err());
        assert!(seen(WalkKind::KernelKept, &text(10, 120, 1, 0)).is_err());
        assert!(seen(WalkKind::KernelKept, &text(10, 0, 0, 0)).is_err());
        assert!(seen(WalkKind::Kernel, &text(10, 121, 0, 0)).is_err());
        assert_eq!(
            seen(WalkKind::Empty, &text(0, 0, 0, 0)).ok(),
            Some(SeenCalls::Nothing)
        );
    }
}
