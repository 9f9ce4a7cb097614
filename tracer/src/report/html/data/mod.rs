//! The data of a page.
//!
//! Each property of stacks is an array of its own, since thousands of small objects are larger and
//! slower to read. Strings are kept once. Stacks are sorted by their frames, and each has what it
//! does not share with the one before it.

mod frames;

use std::io::{self, Write};

use serde::Serialize;
use tracer_ebpf::Function;

use super::escape::ScriptFormatter;
use super::facts::{self, FactSection};
use crate::profile::{Marks, Metric, Profile, ProfiledProcess};
use crate::report::merge::{Completeness, Groups, ProcessGrouping, group_processes};
use crate::report::own_code::{self, CodeClass, CodeRules};
use crate::report::source::Origin;
use crate::report::weighed::{self, WeighedStack};
use crate::report::{ExportOptions, ReportSource, Written, label, title};
use frames::{FrameColumns, FrameKey, PageStrings, UsedFrames};

/// The version of the layout, for the page's own script.
const SCHEMA: &str = "memtap.page/1";

/// The index of what is not there.
const NONE: i64 = -1;

/// The data of a page.
#[derive(Debug, Serialize)]
pub(super) struct PageData {
    schema: &'static str,
    title: String,
    /// Seconds, where they are known.
    duration: Option<f64>,
    /// True if figures are estimates.
    sampled: bool,
    /// The number of losses, where they are counted.
    lost: Option<u128>,
    metrics: Vec<MetricColumn>,
    strings: Vec<String>,
    frames: FrameColumns,
    processes: Vec<ProcessEntry>,
    functions: Vec<&'static str>,
    stacks: StackColumns,
    /// Live blocks with their ages, where these were tracked.
    #[serde(skip_serializing_if = "Option::is_none")]
    aged: Option<AgedColumns>,
    /// Blocks by size and lifetime, where blocks were tracked.
    #[serde(skip_serializing_if = "Option::is_none")]
    histograms: Option<HistogramColumns>,
    facts: Vec<FactSection>,
    #[serde(skip)]
    written: Written,
}

/// The weights of all stacks by one metric.
#[derive(Debug, Serialize)]
struct MetricColumn {
    name: &'static str,
    /// True for bytes.
    bytes: bool,
    /// The noun that is counted, where it is not bytes.
    noun: &'static str,
    /// 0 where the metric does not apply to the stack.
    weights: Vec<u128>,
    /// The variances of estimates, to three digits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    variances: Vec<f64>,
}

/// A process image.
#[derive(Debug, Serialize)]
struct ProcessEntry {
    /// The name of the root frame.
    root: String,
    /// Name and number.
    label: String,
}

/// The stacks.
#[derive(Debug, Default, Serialize)]
struct StackColumns {
    process: Vec<usize>,
    function: Vec<usize>,
    /// 0 for a whole stack, 1 for a truncated one, 2 for a lost one.
    walk: Vec<u8>,
    /// The frame that is the site of the stack.
    site: Vec<i64>,
    /// The number of outer frames that the stack has in common with the one before it.
    shared: Vec<usize>,
    /// The number of frames that follow these.
    added: Vec<usize>,
    /// The added frames of all stacks, outer ones first.
    frames: Vec<usize>,
    calls: Vec<u128>,
    bytes: Vec<u128>,
}

/// Live blocks of each stack, in processes that still have their memory.
#[derive(Debug, Default, Serialize)]
struct AgedColumns {
    /// The times of the marks and of the end, in seconds; nothing where the recording was too short
    /// to tell growth.
    marks: Option<[f64; Marks::COUNT + 1]>,
    live: Vec<u128>,
    live_bytes: Vec<u128>,
    oldest_ms: Vec<u64>,
    half_live: Vec<u128>,
    kept: Vec<u128>,
    /// The bytes that were live at each mark.
    marks_bytes: [Vec<u128>; Marks::COUNT],
}

/// For each stack the number of filled buckets, then the number of each and what is in it.
#[derive(Debug, Default, Serialize)]
struct HistogramColumns {
    sizes: Vec<u64>,
    lifetimes: Vec<u64>,
}

impl PageData {
    /// Collects the data.
    pub(super) fn of(source: &ReportSource<'_>, rules: &CodeRules, options: ExportOptions) -> Self {
        let profile = source.profile;
        let session = match source.origin {
            Origin::Recording(session) => Some(session),
            Origin::Foreign(_) => None,
        };
        let sampled = profile.sample_bytes.is_some();
        let has_blocks = session.is_some_and(|it| it.settings.traced.live);
        let metrics = weighed::metrics(options.metric, source.origin);
        let classes = rules.classes(profile);
        let processes = group_processes(profile, ProcessGrouping::Images);
        let groups =
            Groups::of((0..profile.frames.len()).map(|index| FrameKey::of(profile, &classes, index)));
        let mut stacks = weighed::stacks(profile, &metrics, &processes, &groups);
        // By frames first, so that neighbours share them; other processes have the same ones.
        stacks.sort_by(|a, b| {
            let key = |it: &WeighedStack| (it.place.walk, it.place.function, it.place.process);
            a.place
                .frames
                .cmp(&b.place.frames)
                .then_with(|| key(a).cmp(&key(b)))
        });

        let used = UsedFrames::of(&stacks, groups.first.len());
        let mut strings = PageStrings::default();
        let frames = FrameColumns::of(profile, &classes, used.originals(&groups), &mut strings);
        // The classes of groups, for the site of each stack.
        let group_classes: Vec<CodeClass> = groups.first.iter().map(|it| classes[*it]).collect();

        let mut functions: Vec<Function> = stacks.iter().map(|it| it.place.function).collect();
        functions.sort_unstable();
        functions.dedup();

        let chosen = || stacks.iter().filter_map(|it| it.weights[0]);
        let written = Written {
            stacks: chosen().count(),
            total: chosen().sum(),
        };
        Self {
            schema: SCHEMA,
            title: title::processes(profile),
            duration: source.origin.duration().map(|it| it.as_secs_f64()),
            sampled,
            lost: session.map(|it| it.losses.total()),
            metrics: MetricColumn::all(&metrics, &stacks, sampled && session.is_some()),
            strings: strings.strings,
            frames,
            processes: processes
                .first
                .iter()
                .map(|it| ProcessEntry::of(&profile.processes[*it], options.per_pid))
                .collect(),
            functions: functions.iter().map(|it| it.name()).collect(),
            stacks: StackColumns::of(&stacks, &used, &group_classes, &functions),
            aged: profile.has_ages.then(|| AgedColumns::of(profile, &stacks)),
            histograms: has_blocks.then(|| HistogramColumns::of(&stacks)),
            facts: facts::sections(source),
            written,
        }
    }

    /// Writes the block.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut serializer = serde_json::Serializer::with_formatter(out, ScriptFormatter);
        Ok(self.serialize(&mut serializer)?)
    }

    /// Returns the stacks that the chosen metric applies to.
    pub(super) const fn written(&self) -> Written {
        self.written
    }
}

impl MetricColumn {
    fn all(metrics: &[Metric], stacks: &[WeighedStack], sampled: bool) -> Vec<Self> {
        let column = |(index, metric): (usize, &Metric)| Self {
            name: metric.name(),
            bytes: metric.is_bytes(),
            noun: metric.counts(),
            weights: stacks.iter().map(|it| it.weights[index].unwrap_or(0)).collect(),
            variances: if sampled {
                stacks
                    .iter()
                    .map_while(|it| {
                        let variance = metric.variance(&it.sums.variances)?;
                        Some(it.weights[index].map_or(0.0, |_| three_digits(variance)))
                    })
                    .collect()
            } else {
                Vec::new()
            },
        };
        metrics.iter().enumerate().map(column).collect()
    }
}

/// A variance to three digits: it is the base of a margin, which has two.
#[expect(clippy::cast_precision_loss, reason = "three digits are kept")]
fn three_digits(variance: u128) -> f64 {
    let variance = variance as f64;
    format!("{variance:.2e}").parse().unwrap_or(variance)
}

impl ProcessEntry {
    fn of(process: &ProfiledProcess, per_pid: bool) -> Self {
        Self {
            root: label::process(process, per_pid),
            label: label::process_and_number(process),
        }
    }
}

impl StackColumns {
    fn of(stacks: &[WeighedStack], used: &UsedFrames, classes: &[CodeClass], functions: &[Function]) -> Self {
        let mut columns = Self::default();
        let mut before: &[usize] = &[];
        for stack in stacks {
            let place = &stack.place;
            let shared = before
                .iter()
                .zip(&place.frames)
                .take_while(|(before, frame)| before == frame)
                .count();
            columns.process.push(place.process);
            let function = functions.binary_search(&place.function).unwrap_or_default();
            columns.function.push(function);
            columns.walk.push(match place.walk {
                Completeness::Whole => 0,
                Completeness::Truncated => 1,
                Completeness::Lost => 2,
            });
            let site = own_code::site(&place.frames, classes).map(|at| used.numbers[place.frames[at]]);
            let site = site.and_then(|it| i64::try_from(it).ok());
            columns.site.push(site.unwrap_or(NONE));
            columns.shared.push(shared);
            columns.added.push(place.frames.len() - shared);
            let added = place.frames[shared..].iter().map(|it| used.numbers[*it]);
            columns.frames.extend(added);
            columns.calls.push(stack.sums.calls);
            columns.bytes.push(stack.sums.bytes);
            before = &place.frames;
        }
        columns
    }
}

impl AgedColumns {
    fn of(profile: &Profile, stacks: &[WeighedStack]) -> Self {
        let mut columns = Self {
            marks: profile.marks.map(|marks| {
                let [a, b, c] = marks.at;
                [a, b, c, marks.end].map(|it| it.as_secs_f64())
            }),
            ..Self::default()
        };
        for stack in stacks {
            let aged = &stack.sums.aged;
            columns.live.push(aged.live);
            columns.live_bytes.push(aged.live_bytes);
            columns.oldest_ms.push(aged.oldest_ns / 1_000_000);
            columns.half_live.push(aged.half_live);
            columns.kept.push(aged.kept);
            for (column, bytes) in columns.marks_bytes.iter_mut().zip(aged.marks_bytes) {
                column.push(bytes);
            }
        }
        columns
    }
}

impl HistogramColumns {
    fn of(stacks: &[WeighedStack]) -> Self {
        let mut columns = Self::default();
        for stack in stacks {
            push_filled(&mut columns.sizes, &stack.sums.sizes.0);
            push_filled(&mut columns.lifetimes, &stack.sums.lifetimes.0);
        }
        columns
    }
}

/// Adds the number of filled buckets, and each of them with its count.
fn push_filled(column: &mut Vec<u64>, buckets: &[u64]) {
    let filled = || (0..).zip(buckets).filter(|(_, count)| **count > 0);
    column.push(filled().map(|_| 1).sum());
    for (bucket, count) in filled() {
        column.extend([bucket, *count]);
    }
}
