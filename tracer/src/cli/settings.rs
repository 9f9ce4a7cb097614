//! Settings of commands: of the recording, and of its outputs.

use std::path::PathBuf;
use std::time::Duration;

use super::table_request::TableRequest;
use crate::profile::Metric;
use crate::report::diff::DiffBy;
use crate::report::source::{LiveView, ReportView};
use crate::report::table::TableView;
use crate::report::{Format, StackFilter};
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
    /// The paths of summaries.
    pub(super) summaries: Vec<PathBuf>,
    /// Directories of outputs, which are made where they are missing.
    pub(super) directories: Vec<PathBuf>,
    /// The path of the stacks as addresses, where they are written.
    pub(super) raw: Option<PathBuf>,
    /// The weight of stacks in the table.
    pub(super) metric: Metric,
    /// Tell processes of the same name apart.
    pub(super) per_pid: bool,
    /// The rows of the table.
    pub(super) table: TableView,
    /// The report on live blocks, where it replaces the table.
    pub(super) live: Option<LiveSettings>,
    /// Print the table although profiles are written.
    pub(super) table_too: bool,
    /// Fail if anything was lost.
    pub(super) strict: bool,
    /// Print nothing but errors.
    pub(super) quiet: bool,
    /// Show how it goes meanwhile, on a terminal.
    pub(super) progress: bool,
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

/// A profile to write, of which the metric may be left to the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestedOutput {
    /// The weight of its stacks, where it was named.
    pub(super) metric: Option<Metric>,
    /// Its format.
    pub(super) format: Format,
    /// Its path; `-` is standard output.
    pub(super) path: PathBuf,
}

/// Settings of `report`.
#[derive(Debug, Clone)]
pub(super) struct SavedReportSettings {
    /// The saved profile.
    pub(super) file: PathBuf,
    /// Profiles to write.
    pub(super) outputs: Vec<RequestedOutput>,
    /// The weight of stacks, where it is not the recording's.
    pub(super) metric: Option<Metric>,
    /// Tell processes of the same name apart.
    pub(super) per_pid: bool,
    /// The rows of the table, where they are not the recording's.
    pub(super) rows: TableRequest,
    /// The paths of summaries.
    pub(super) summaries: Vec<PathBuf>,
    /// Directories of outputs, which are made where they are missing.
    pub(super) directories: Vec<PathBuf>,
    /// The stacks that are wanted.
    pub(super) filter: StackFilter,
    /// Print nothing but errors.
    pub(super) quiet: bool,
}

impl RequestedOutput {
    /// Returns the output with this metric where none was named.
    pub(super) fn with_default(&self, metric: Metric) -> ProfileOutput {
        ProfileOutput {
            metric: self.metric.unwrap_or(metric),
            format: self.format,
            path: self.path.clone(),
        }
    }
}

/// Settings of `diff`.
#[derive(Debug, Clone)]
pub(super) struct DiffSettings {
    /// The first profile.
    pub(super) before: PathBuf,
    /// The second.
    pub(super) after: PathBuf,
    /// Profiles to write.
    pub(super) outputs: Vec<RequestedOutput>,
    /// The weight of stacks, where it was named.
    pub(super) metric: Option<Metric>,
    /// The rows of the table.
    pub(super) by: DiffBy,
    /// Compare figures per second of recording.
    pub(super) normalize: bool,
    /// Rows in each part of the table.
    pub(super) top: usize,
    /// The growth above which the command fails.
    pub(super) growth_max_bytes: Option<u64>,
    /// Print nothing but errors.
    pub(super) quiet: bool,
}

impl ReportSettings {
    /// Returns true if a profile goes to standard output.
    pub(super) fn is_piped(&self) -> bool {
        self.outputs.iter().any(|output| output.path.as_os_str() == "-")
    }

    /// Returns the report for a terminal, as it is kept with a profile.
    pub(super) fn view(&self) -> ReportView {
        ReportView {
            metric: self.metric,
            per_pid: self.per_pid,
            table: self.table.clone(),
            live: self.live.map(|live| LiveView {
                older_than: live.older_than,
            }),
        }
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
