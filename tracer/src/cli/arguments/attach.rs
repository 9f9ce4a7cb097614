//! The argument of `--attach`, for comparison.

use clap::ValueEnum;

use crate::settings::AttachBy;

/// The argument of `--attach`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Attach {
    /// Links of many uprobes, where the kernel has them
    Auto,
    /// Links of many uprobes
    Multi,
    /// A perf event for each
    Perf,
}

impl From<Attach> for AttachBy {
    fn from(attach: Attach) -> Self {
        match attach {
            Attach::Auto => Self::Auto,
            Attach::Multi => Self::Multi,
            Attach::Perf => Self::Perf,
        }
    }
}
