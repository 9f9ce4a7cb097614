//! The facts of a recording beside its stacks: settings, probes, events, losses.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::cost::Cost;
use super::losses::Losses;
use super::text;
use crate::settings::Probed;

/// The circumstances of a profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// The time at which it began, in nanoseconds of Unix time; 0 where that is not known.
    pub began_unix_ns: u64,
    /// The command that was traced, each word made text; empty where there was none.
    pub command: Vec<String>,
    /// The duration of the recording.
    pub duration: Duration,
    /// The kernel's release, as `uname -r` has it.
    pub kernel: String,
    /// The settings, those that were chosen for the user too.
    pub settings: SessionSettings,
    /// The probes that were attached.
    pub probes: Vec<Probe>,
    /// The counts of events.
    pub events: EventCounts,
    /// The losses.
    pub losses: Losses,
    /// The memory of the kernel side's maps.
    pub memory: Vec<MapMemory>,
    /// The unwind tables, where stacks were walked by them.
    pub tables: Option<TableUsage>,
    /// The cost of tracing, where it was measured.
    pub cost: Option<Cost>,
}

/// The settings of the recording, as reports show them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionSettings {
    /// The kinds of events.
    pub traced: Traced,
    /// The sample: one allocation per this many bytes on average; 1 is every allocation.
    pub sample_bytes: u64,
    /// The unwinder: `dwarf` or `fp`.
    pub unwind: String,
    /// The processes that were to get probes, where allocators have some: `tree` or `machine`.
    pub scope: Option<Probed>,
    /// Those that had them at the end.
    pub scope_at_end: Option<Probed>,
    /// True if children were traced, where that was a choice.
    pub follow: Option<bool>,
    /// The smallest size that was traced, in bytes, where there was a limit.
    pub min_size: Option<u64>,
    /// The largest size that was traced, in bytes, where there was a limit.
    pub max_size: Option<u64>,
}

/// The kinds of events that were traced, which decide the figures that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each kind was traced or not by itself"
)]
pub(crate) struct Traced {
    /// Calls to allocators.
    pub heap: bool,
    /// `mmap`, `munmap`, `mremap` and `brk`.
    pub region: bool,
    /// Returns of allocators too, so that failed calls are known.
    pub live: bool,
    /// A sample of the calls to allocators: their figures are estimates, and say how sure they are.
    pub sampled: bool,
}

/// A probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probe {
    /// The file that it is in.
    #[serde(with = "text::path")]
    pub object: PathBuf,
    /// The function.
    pub symbol: String,
    /// The offset in the file, in bytes.
    #[serde(serialize_with = "hex", deserialize_with = "from_hex")]
    pub offset: u64,
    /// The place of the probe in the call.
    pub kind: ProbeKind,
    /// True if the kernel must single-step the instruction, which costs many times as much.
    pub single_stepped: bool,
}

/// The place of a probe in the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProbeKind {
    /// The entry of the function.
    Entry,
    /// The return of the function.
    Return,
    /// Inside, where its size and its result are known.
    Single,
    /// Inside, where its size is known.
    Request,
    /// Inside, where its result is known, after a [`Request`](Self::Request).
    Result,
}

/// The counts of events. `seen` is the sum of the others and of the losses that are events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EventCounts {
    /// Probe hits, and returns of memory-map system calls.
    pub seen: u64,
    /// Events in the sums, with their stack.
    #[serde(rename = "tallied")]
    pub recorded: u64,
    /// Calls that an allocator made to do its own work.
    pub nested: u64,
    /// Calls of sizes that were not asked for.
    pub filtered: u64,
    /// Events of processes that are not targets.
    pub foreign: u64,
    /// Calls that no sample point fell into.
    pub unsampled: u64,
}

/// The memory of one map of the kernel side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MapMemory {
    /// The map's name.
    pub name: String,
    /// The bytes that it takes.
    pub bytes: u64,
}

/// The unwind tables in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableUsage {
    /// Files with a table.
    pub files: u64,
    /// Files without: they have no unwind information, or there was no room.
    pub files_without: u64,
    /// Bytes of the arrays that are in use at the end.
    pub bytes: u64,
    /// The most that were in use.
    pub bytes_most: u64,
    /// The bytes of the arrays.
    pub bytes_capacity: u64,
    /// Tables that were freed, since the last process that had their file mapped had ended.
    pub files_released: u64,
    /// Walks that took the identity of the thread's last one, since they would have read the very
    /// same.
    pub remembered: u64,
    /// Walks that were finished in user space, from a copy of the stack, since they came to code
    /// whose table was still being made.
    pub finished_from_copies: u64,
    /// Deferred walks that could not be finished: their stacks end there.
    pub unfinished: u64,
    /// Walks that took frame pointers through such code, since no copy of the stack could be sent.
    pub awaited: u64,
    /// Look-ups of mappings that found the address space being changed.
    pub mappings_busy: u64,
    /// The number of times that a process was stopped until the table of its code was made.
    pub stops: u64,
}

/// A number as hexadecimal text: JSON has no other, and a reader compares it with `objdump`.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) fn hex<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{number:#x}"))
}

/// Reads what [`hex`] wrote.
fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.strip_prefix("0x")
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| D::Error::custom("an offset is no hexadecimal number"))
}
