//! Settings of commands: of the recording, and of its outputs.

use std::path::PathBuf;
use std::time::Duration;

use crate::profile::Metric;
use crate::report::Format;
use crate::report::own_code::CodeRules;
use crate::report::table::live::LiveSort;
use crate::report::table::{GroupBy, SortColumn, StackDetail, TreeDirection};
use crate::settings::Record;

/// Settings of `record` and `live`.
#[derive(Debug, Clone)]
pub(super) struct RecordSettings {
    /// The recording.
    pub(super) record: Record,
    /// Its outputs.
    pub(super) report: ReportSettings,
}

/// The outputs of a recording.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of its own on the command line"
)]
pub(super) struct ReportSettings {
    /// Profiles to write.
    pub(super) outputs: Vec<ProfileOutput>,
    /// The path of the summary, where one is written.
    pub(super) summary: Option<PathBuf>,
    /// The path of the stacks as addresses, where they are written.
    pub(super) raw: Option<PathBuf>,
    /// The weight of stacks in the table.
    pub(super) metric: Metric,
    /// Tell processes of the same name apart.
    pub(super) per_pid: bool,
    /// The rows of the table.
    pub(super) table: TableSettings,
    /// The report on live blocks, where it replaces the table.
    pub(super) live: Option<LiveSettings>,
    /// Fail if anything was lost.
    pub(super) strict: bool,
    /// Print nothing but errors.
    pub(super) quiet: bool,
    /// Show how it goes meanwhile, on a terminal.
    pub(super) progress: bool,
}

/// The rows of a table.
#[derive(Debug, Clone)]
pub(super) struct TableSettings {
    /// The number of rows.
    pub(super) top: usize,
    /// The property of stacks that makes a row.
    pub(super) by: GroupBy,
    /// A tree in place of rows.
    pub(super) tree: Option<TreeDirection>,
    /// The part of stacks that is shown.
    pub(super) stacks: StackDetail,
    /// The order of rows, where it is not the metric's.
    pub(super) sort: Option<SortColumn>,
    /// The order of rows of the report on live blocks.
    pub(super) live_sort: LiveSort,
    /// The share in percent below which rows are left out.
    pub(super) min_percent: f64,
    /// Names of functions are short.
    pub(super) short_names: bool,
    /// The rules by which the program's own code is told.
    pub(super) rules: CodeRules,
}

/// A profile to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProfileOutput {
    /// The weight of its stacks.
    pub(super) metric: Metric,
    /// Its format.
    pub(super) format: Format,
    /// Its path; `-` is standard output.
    pub(super) path: PathBuf,
}

impl ReportSettings {
    /// Returns true if a profile goes to standard output.
    pub(super) fn is_piped(&self) -> bool {
        self.outputs.iter().any(|output| output.path.as_os_str() == "-")
    }
}

/// The report on live blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LiveSettings {
    /// The age from which on blocks count in the table of stacks.
    pub(super) older_than: Option<Duration>,
    /// The time between two reports.
    pub(super) interval: Option<Duration>,
    /// The growth of live bytes in the second half above which the command fails.
    pub(super) growth_max_bytes: Option<u64>,
}
