//! The summary file: totals, losses and the heaviest stacks, for programs.
//!
//! A block that does not apply (no `region` events, no `--live`) is left out, never filled with
//! zeros; where it applies, a zero is a zero that was measured. Figures are integers of any size: a
//! sum may be above 2⁶⁴.

mod live;
mod stacks;
mod totals;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::objects::{self, ObjectBlock};
use super::sums::FunctionSums;
use crate::profile::cost::{Cost, ProcessCost};
use crate::profile::session::{EventCounts, Probe, TableUsage};
use crate::profile::{Losses, Metric, Profile, ProfiledProcess, Session};
use crate::settings::Probed;

use live::LiveSummary;
use stacks::{StackCounts, TopStack};
use totals::Totals;

/// The value of [`Summary::schema`]. The number goes up when a reader of the old form would misread
/// the new.
pub(crate) const SCHEMA: &str = "memtap.summary/1";

/// The summary file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The duration of the recording in seconds, to the millisecond.
    pub duration_s: f64,
    /// The kernel's release.
    pub kernel: String,
    /// The settings, those that were chosen for the user too.
    pub settings: SettingsBlock,
    /// The totals of all processes.
    pub totals: Totals,
    /// Each process image, by pid: a process that executed another program is there twice.
    pub processes: Vec<ProcessBlock>,
    /// The probes.
    pub probes: Vec<Probe>,
    /// The ends of the walks.
    pub stacks: StackCounts,
    /// The losses: `total`, then each loss by its label.
    pub losses: Losses,
    /// The cost of tracing, where it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// The counts of events.
    pub events: EventCounts,
    /// The unwind tables, where stacks were walked by them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unwind_tables: Option<TableUsage>,
    /// Bytes of each map of the kernel side by its name, and `total_bytes`.
    pub memory: BTreeMap<String, u128>,
    /// The programs and libraries that frames are in, by path.
    pub objects: Vec<ObjectBlock>,
    /// The live blocks, where their ages were tracked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveSummary>,
    /// The heaviest stacks by `settings.metric`, the heaviest first.
    pub top_stacks: Vec<TopStack>,
}

/// The settings of the recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SettingsBlock {
    /// The kinds of events: `heap`, `region`.
    pub events: Vec<&'static str>,
    /// True if returns were traced.
    pub live: bool,
    /// The sample: one allocation per this many bytes; 1 is every allocation.
    pub sample_bytes: u64,
    /// The unwinder: `dwarf` or `fp`.
    pub unwind: String,
    /// The weight of stacks.
    pub metric: &'static str,
    /// The processes that were to get breakpoints: `tree` or `machine`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Probed>,
    /// Those that had them at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope_at_end: Option<Probed>,
    /// True if children were traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
    /// The smallest size that was traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_size: Option<u64>,
    /// The largest size that was traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u64>,
}

/// A process image and its totals.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ProcessBlock {
    /// The process id, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The process id in the process's own pid namespace, where it is known: what it is called
    /// inside its container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner_pid: Option<u32>,
    /// The name.
    pub comm: String,
    /// The executable, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// True if it had ended.
    pub exited: bool,
    /// Its totals.
    pub totals: Totals,
    /// The cost of tracing it, where that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<ProcessCost>,
}

impl Summary {
    /// The stacks in [`Summary::top_stacks`].
    pub(crate) const TOP: usize = 100;

    /// Sums up a profile; `metric` chooses and sorts the top stacks.
    #[must_use]
    pub(crate) fn of(profile: &Profile, session: &Session, metric: Metric) -> Self {
        let settings = &session.settings;
        let traced = settings.traced;
        let mut events = Vec::new();
        if traced.heap {
            events.push("heap");
        }
        if traced.region {
            events.push("region");
        }
        let mut memory: BTreeMap<String, u128> = BTreeMap::new();
        for map in &session.memory {
            *memory.entry(map.name.clone()).or_default() += u128::from(map.bytes);
        }
        let total_bytes = memory.values().sum();
        memory.insert("total_bytes".to_owned(), total_bytes);
        Self {
            schema: SCHEMA,
            duration_s: (session.duration.as_secs_f64() * 1000.0).round() / 1000.0,
            kernel: session.kernel.clone(),
            settings: SettingsBlock {
                events,
                live: traced.live,
                sample_bytes: settings.sample_bytes,
                unwind: settings.unwind.clone(),
                metric: metric.name(),
                scope: settings.scope,
                scope_at_end: settings.scope_at_end,
                follow: settings.follow,
                min_size: settings.min_size,
                max_size: settings.max_size,
            },
            totals: Totals::of(profile, None, traced),
            processes: processes(profile, session),
            probes: session.probes.clone(),
            stacks: StackCounts::of(profile),
            losses: session.losses.clone(),
            cost: session.cost,
            events: session.events,
            unwind_tables: session.tables,
            memory,
            objects: objects::blocks(profile),
            live: LiveSummary::of(profile),
            top_stacks: stacks::top(profile, traced, metric, Self::TOP),
        }
    }

    /// Writes the file as indented JSON, and flushes `out`.
    ///
    /// Fails only as `out` fails.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut out = io::BufWriter::new(out);
        serde_json::to_writer_pretty(&mut out, self)?;
        writeln!(out)?;
        out.flush()
    }
}

/// The processes with their totals, in an order that does not depend on the profile's.
fn processes(profile: &Profile, session: &Session) -> Vec<ProcessBlock> {
    let sums = FunctionSums::by_process(profile);
    let held = (0..profile.processes.len()).map(|it| totals::held_by(profile, it));
    let sums = sums.into_iter().zip(held);
    let mut processes: Vec<(&ProfiledProcess, _)> = profile.processes.iter().zip(sums).collect();
    processes.sort_by(|(a, _), (b, _)| (a.pid, &a.comm, &a.exe, a).cmp(&(b.pid, &b.comm, &b.exe, b)));
    processes
        .into_iter()
        .map(|(process, (sums, held))| ProcessBlock {
            pid: (process.pid != 0).then_some(process.pid),
            inner_pid: process.inner_pid,
            comm: process.comm.clone(),
            exe: process.exe.as_ref().map(|it| path_text(it)),
            exited: process.exited,
            totals: Totals::of_sums(&sums, session.settings.traced, held),
            cost: session.cost.map(|cost| cost.of(process.hits)),
        })
        .collect()
}

/// The path as text; bytes that are no UTF-8 become the replacement character, since JSON has no
/// others.
fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
