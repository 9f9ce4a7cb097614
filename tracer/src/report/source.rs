//! A profile with what is known beside it: the argument of exporters.

use std::time::Duration;

use crate::profile::session::Traced;
use crate::profile::{Metric, Profile, Session};

use super::table::TableView;

/// A profile with its origin, and the report that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReportSource<'a> {
    /// The stacks.
    pub profile: &'a Profile,
    /// The facts beside them.
    pub origin: Origin<'a>,
    /// The report that the recording printed, or would have printed.
    pub view: &'a ReportView,
}

/// The facts beside the stacks, by who recorded them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin<'a> {
    /// memtap.
    Recording(&'a Session),
    /// Another program.
    Foreign(&'a ForeignFacts),
}

/// The facts that a profile of another program has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ForeignFacts {
    /// The metrics that its sample types stand for, in its order.
    pub metrics: Vec<Metric>,
    /// Its length, where it says.
    pub duration: Option<Duration>,
    /// The time at which it began, in nanoseconds of Unix time; 0 where it does not say.
    pub began_unix_ns: u64,
    /// The mean distance of its sample points in bytes; 1 where there are none.
    pub period_bytes: u64,
    /// Its comments.
    pub comments: Vec<String>,
}

/// A report for a terminal, without what depends on the terminal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReportView {
    /// The weight of stacks.
    pub metric: Metric,
    /// Tell processes of the same name apart.
    pub per_pid: bool,
    /// The rows of the table.
    pub table: TableView,
    /// The report on live blocks, where it replaces the table.
    pub live: Option<LiveView>,
}

/// The report on live blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LiveView {
    /// The age from which on blocks count in the table of stacks.
    pub older_than: Option<Duration>,
}

impl ReportView {
    /// Returns a metric's table.
    pub(crate) fn new(metric: Metric) -> Self {
        Self {
            metric,
            per_pid: false,
            table: TableView::default(),
            live: None,
        }
    }
}

impl Origin<'_> {
    /// Returns the metrics that there are figures of.
    #[must_use]
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        match self {
            Self::Recording(session) => {
                let is_traced = |metric: &Metric| applies(session.settings.traced, *metric);
                Metric::ALL.into_iter().filter(is_traced).collect()
            }
            Self::Foreign(facts) => facts.metrics.clone(),
        }
    }

    /// Returns the length of the recording, where it is known.
    #[must_use]
    pub(crate) fn duration(&self) -> Option<Duration> {
        match self {
            Self::Recording(session) => Some(session.duration),
            Self::Foreign(facts) => facts.duration,
        }
    }
}

/// Returns true if figures of the metric were traced.
const fn applies(traced: Traced, metric: Metric) -> bool {
    match metric {
        Metric::RegionBytes => traced.region,
        Metric::AllocBytes | Metric::AllocCount => traced.heap,
        Metric::LiveBytes
        | Metric::LiveCount
        | Metric::FreedBytes
        | Metric::TemporaryCount
        | Metric::PeakBytes => traced.heap && traced.live,
    }
}
