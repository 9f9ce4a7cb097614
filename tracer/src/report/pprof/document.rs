//! The comment of a pprof file that keeps what pprof has no place for, as JSON.
//!
//! It begins with `#`: pprof's own tool does not print such comments with its reports.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::figures::FigureColumns;
use crate::profile::{Frame, GroupVariance, HeapTotals, Marks, Metric, ObjectFile, ProfiledProcess, Session};
use crate::report::source::{LiveView, ReportView};
use crate::report::table::TableView;

/// The value of [`ProfileDocument::schema`]. The number goes up when a reader of the old form would
/// misread the new.
pub(super) const SCHEMA: &str = "memtap.profile/1";

/// The beginning of the comment, by which it is found: the mark of a hidden comment, and JSON whose
/// first member is the schema.
pub(super) const PREFIX: &str = "#{\"schema\":\"memtap.profile/";

/// Everything of a saved profile that is not in pprof's own tables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ProfileDocument {
    /// [`SCHEMA`]. The first member: see [`PREFIX`].
    pub(super) schema: String,
    /// CRC-32 of the rest of the file, uncompressed: what another program has changed does not
    /// belong to this document any more.
    pub(super) digest: u32,
    /// The report of the recording.
    pub(super) view: SavedView,
    /// The recording.
    pub(super) session: Session,
    /// The process images; the label `image` of a sample is an index into them, from 1.
    pub(super) processes: Vec<ProfiledProcess>,
    /// The programs and libraries, in the order of the mappings.
    pub(super) objects: Vec<ObjectFile>,
    /// The heap of all processes.
    pub(super) held: Option<HeapTotals>,
    /// The variances of groups of stacks.
    pub(super) together: Vec<GroupVariance>,
    /// True if there are ages.
    pub(super) has_ages: bool,
    /// The mean distance of sample points.
    pub(super) sample_bytes: Option<u64>,
    /// The times of the marks.
    pub(super) marks: Option<Marks>,
    /// The frames that pprof's tables do not tell exactly: those without a symbol.
    pub(super) frames: Vec<SavedFrame>,
    /// The figures of the samples.
    pub(super) figures: FigureColumns,
}

/// A line of a location that stands for this frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedFrame {
    /// The location's number.
    pub(super) location: u64,
    /// The index of the line.
    pub(super) line: usize,
    /// The frame.
    pub(super) frame: Frame,
}

/// The first member of any version's document.
#[derive(Debug, Deserialize)]
pub(super) struct DocumentSchema {
    /// The schema.
    pub(super) schema: String,
}

/// A [`ReportView`] as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedView {
    metric: String,
    per_pid: bool,
    table: TableView,
    live: Option<SavedLiveView>,
}

/// A [`LiveView`] as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedLiveView {
    older_than: Option<Duration>,
}

impl SavedView {
    /// Keeps a view.
    pub(super) fn of(view: &ReportView) -> Self {
        Self {
            metric: view.metric.name().to_owned(),
            per_pid: view.per_pid,
            table: view.table.clone(),
            live: view.live.map(|live| SavedLiveView {
                older_than: live.older_than,
            }),
        }
    }

    /// Returns the view; nothing where its metric is not known.
    pub(super) fn view(&self) -> Option<ReportView> {
        Some(ReportView {
            metric: Metric::ALL.into_iter().find(|it| it.name() == self.metric)?,
            per_pid: self.per_pid,
            table: self.table.clone(),
            live: self.live.map(|live| LiveView {
                older_than: live.older_than,
            }),
        })
    }
}
