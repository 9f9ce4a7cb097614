//! From a profile to a pprof file.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;

use flate2::{Compression, GzBuilder};
use prost::Message as _;
use tracer_ebpf::{Function, StackEnd};

use super::document::{ProfileDocument, SCHEMA, SavedFrame, SavedView};
use super::figures::FigureColumns;
use super::messages::{ProtoLabel, ProtoMapping, ProtoProfile, ProtoSample, ProtoValueType};
use super::sample_types::{self, SampleType};
use super::tables::{LocationTable, StringTable, as_read, ordered};
use super::{FUNCTION, IMAGE, LOST, PID, PROCESS, STACK_END};
use crate::message::escape::one_line;
use crate::profile::{Frame, FrameName, GroupVariance, Metric, ObjectFile, Profile, Session, Stack};
use crate::report::source::{ForeignFacts, Origin, ReportSource};
use crate::report::{ExportOptions, Written, losses, units};

/// Writes the profile as a pprof file, and flushes `out`. The metric of `options` is the sample
/// type that viewers show first.
///
/// Fails only as `out` fails.
pub(crate) fn write(
    source: &ReportSource<'_>,
    options: ExportOptions,
    out: &mut dyn Write,
) -> io::Result<Written> {
    let mut written = Written {
        stacks: source.profile.stacks.len(),
        total: 0,
    };
    for stack in &source.profile.stacks {
        written.total += options.metric.weight(stack).map_or(0, u128::from);
    }
    compress(&message(source, options.metric)?, out)?;
    Ok(written)
}

/// Writes a message, compressed, and flushes `out`.
pub(super) fn compress(message: &ProtoProfile, out: &mut dyn Write) -> io::Result<()> {
    // Without a time or a name of its own: equal profiles are equal files.
    let mut packed = GzBuilder::new().write(out, Compression::default());
    packed.write_all(&message.encode_to_vec())?;
    packed.finish()?.flush()
}

/// A stack's sample before it is written.
struct SampleRow<'a> {
    /// The new index of its process.
    process: usize,
    locations: Vec<u64>,
    stack: &'a Stack,
}

/// Makes the message.
pub(super) fn message(source: &ReportSource<'_>, metric: Metric) -> io::Result<ProtoProfile> {
    let profile = source.profile;
    let (process_order, process_place) = ordered(&profile.processes);
    let (object_order, object_place) = ordered(&objects(profile));
    let locations = LocationTable::of(profile, &object_place);

    let mut rows: Vec<SampleRow<'_>> = profile
        .stacks
        .iter()
        .map(|stack| SampleRow {
            process: process_place[stack.process],
            locations: locations.stack(&stack.frames, stack.end),
            stack,
        })
        .collect();
    rows.sort_unstable_by(compare);

    let mut strings = StringTable::new();
    let mut types = sample_types::sample_types(&source.origin.metrics());
    if matches!(source.origin, Origin::Foreign(_)) {
        // The figures that it has are the metrics' weights alone.
        types.retain(|it| sample_types::default_type(it.metric) == it.name);
    }
    let mut message = ProtoProfile {
        sample_type: types.iter().map(|it| value_type(it, &mut strings)).collect(),
        default_sample_type: strings.index(sample_types::default_type(metric)),
        period_type: Some(ProtoValueType {
            r#type: strings.index("space"),
            unit: strings.index("bytes"),
        }),
        ..ProtoProfile::default()
    };
    let (began_unix_ns, period) = match source.origin {
        Origin::Recording(session) => (session.began_unix_ns, profile.sample_bytes.unwrap_or(1)),
        Origin::Foreign(facts) => (facts.began_unix_ns, facts.period_bytes),
    };
    message.period = signed(period.max(1));
    message.time_nanos = signed(began_unix_ns);
    let duration = source.origin.duration().unwrap_or_default();
    message.duration_nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    message.sample = samples(&rows, profile, &types, &mut strings);
    message.mapping = mappings(profile, &object_order, &locations, &mut strings);
    (message.location, message.function) = locations.messages(&mut strings);
    let comments = match source.origin {
        Origin::Recording(session) => comments(session),
        Origin::Foreign(facts) => foreign_comments(facts),
    };
    message.comment = comments.iter().map(|it| strings.index(it)).collect();
    message.string_table = strings.into_strings();
    if let Origin::Recording(session) = source.origin {
        let document = ProfileDocument {
            schema: SCHEMA.to_owned(),
            digest: digest(&message),
            view: SavedView::of(source.view),
            session: session.clone(),
            processes: picked(&profile.processes, &process_order),
            objects: picked(&profile.objects, &object_order),
            held: profile.held,
            together: together(profile, &process_place),
            has_ages: profile.has_ages,
            sample_bytes: profile.sample_bytes,
            marks: profile.marks,
            frames: inexact_frames(&locations),
            figures: FigureColumns::of(&rows.iter().map(|row| &row.stack.values).collect::<Vec<_>>()),
        };
        // The last text and the last comment: without them the digest is that of the rest.
        let json = format!("#{}", serde_json::to_string(&document)?);
        message
            .comment
            .push(i64::try_from(message.string_table.len()).unwrap_or(i64::MAX));
        message.string_table.push(json.into_bytes());
    }
    Ok(message)
}

/// The digest of a message without the document.
pub(super) fn digest(message: &ProtoProfile) -> u32 {
    crc32fast::hash(&message.encode_to_vec())
}

/// The order of samples.
fn compare(a: &SampleRow<'_>, b: &SampleRow<'_>) -> Ordering {
    let (one, other) = (a.stack, b.stack);
    (a.process, one.function, one.end)
        .cmp(&(b.process, other.function, other.end))
        .then_with(|| a.locations.cmp(&b.locations))
        .then_with(|| one.values.cmp(&other.values))
}

/// The objects as they are sorted: programs before libraries, since pprof takes the first for the
/// main one.
fn objects(profile: &Profile) -> Vec<(bool, &ObjectFile)> {
    let programs: HashSet<&Path> = profile
        .processes
        .iter()
        .filter_map(|it| it.exe.as_deref())
        .collect();
    let is_library = |object: &ObjectFile| !programs.contains(&*object.path);
    profile.objects.iter().map(|it| (is_library(it), it)).collect()
}

fn picked<T: Clone>(items: &[T], order: &[usize]) -> Vec<T> {
    order.iter().map(|it| items[*it].clone()).collect()
}

/// The variances of groups, in an order of their own.
fn together(profile: &Profile, process_place: &[usize]) -> Vec<GroupVariance> {
    let mut together: Vec<GroupVariance> = profile
        .together
        .iter()
        .map(|group| GroupVariance {
            process: group.process.map(|it| process_place[it]),
            ..*group
        })
        .collect();
    together.sort_unstable();
    together
}

fn value_type(it: &SampleType, strings: &mut StringTable) -> ProtoValueType {
    ProtoValueType {
        r#type: strings.index(it.name),
        unit: strings.index(it.unit),
    }
}

fn signed(figure: u64) -> i64 {
    i64::try_from(figure).unwrap_or(i64::MAX)
}

/// The samples, with the labels by which stacks of equal locations are told apart.
fn samples(
    rows: &[SampleRow<'_>],
    profile: &Profile,
    types: &[SampleType],
    strings: &mut StringTable,
) -> Vec<ProtoSample> {
    let mut samples = Vec::with_capacity(rows.len());
    for row in rows {
        let stack = row.stack;
        let process = &profile.processes[stack.process];
        let mut text = |key, value: &str| ProtoLabel {
            key: strings.index(key),
            str: strings.index(value),
            ..ProtoLabel::default()
        };
        let mut label = vec![text(PROCESS, &process.comm)];
        if stack.function != Function::Unknown {
            label.push(text(FUNCTION, stack.function.name()));
        }
        match stack.end {
            Some(StackEnd::Complete) => {}
            end => label.push(text(STACK_END, end.map_or(LOST, StackEnd::label))),
        }
        let mut number = |key, num| ProtoLabel {
            key: strings.index(key),
            num,
            ..ProtoLabel::default()
        };
        if process.pid != 0 {
            label.push(number(PID, process.pid.into()));
        }
        label.push(number(IMAGE, signed(row.process as u64 + 1)));
        samples.push(ProtoSample {
            location_id: row.locations.clone(),
            value: types.iter().map(|it| signed((it.of)(stack))).collect(),
            label,
        });
    }
    samples
}

/// The mappings: one for each object. At which addresses they were is not kept; all addresses are
/// those of the file.
fn mappings(
    profile: &Profile,
    order: &[usize],
    locations: &LocationTable,
    strings: &mut StringTable,
) -> Vec<ProtoMapping> {
    let mut mappings: Vec<ProtoMapping> = (1..)
        .zip(order)
        .map(|(id, old)| {
            let object = &profile.objects[*old];
            ProtoMapping {
                id,
                filename: strings.index(&path_text(&object.path)),
                build_id: strings.index(object.build_id.as_deref().unwrap_or_default()),
                ..ProtoMapping::default()
            }
        })
        .collect();
    for frame in locations.locations().flatten() {
        let Some(mapping) = frame.object.and_then(|it| mappings.get_mut(it)) else {
            continue;
        };
        mapping.has_functions |= matches!(frame.name, FrameName::Symbol(_));
        mapping.has_filenames |= frame.source.is_some();
        mapping.has_line_numbers |= frame.source.is_some();
        mapping.has_inline_frames |= frame.inlined;
    }
    mappings
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The frames that a reader would take for others.
fn inexact_frames(locations: &LocationTable) -> Vec<SavedFrame> {
    let mut frames = Vec::new();
    for (location, lines) in (1..).zip(locations.locations()) {
        let object = lines.last().and_then(|it| it.object);
        for (line, frame) in lines.iter().enumerate() {
            let frame: &Frame = frame;
            if as_read(frame, line + 1 == lines.len(), object) != *frame {
                frames.push(SavedFrame {
                    location,
                    line,
                    frame: frame.clone(),
                });
            }
        }
    }
    frames
}

/// The facts of a recording for people.
fn comments(session: &Session) -> Vec<String> {
    let mut comments = vec![format!("memtap {}", env!("CARGO_PKG_VERSION"))];
    if !session.command.is_empty() {
        // pprof prints comments as they are.
        let command = session.command.join(" ");
        comments.push(format!("command: {}", one_line(&command)));
    }
    if !session.kernel.is_empty() {
        comments.push(format!("kernel: {}", session.kernel));
    }
    if session.settings.traced.sampled {
        let samples = units::samples(session.settings.sample_bytes);
        comments.push(format!("estimates from {samples}"));
    }
    let lost = losses::phrases(&session.losses);
    if lost.is_empty() {
        comments.push("nothing lost".to_owned());
    }
    comments.extend(lost.into_iter().map(|it| format!("lost: {it}")));
    comments
}

fn foreign_comments(facts: &ForeignFacts) -> Vec<String> {
    let written = format!(
        "written by memtap {} from another file",
        env!("CARGO_PKG_VERSION")
    );
    let mut comments = facts.comments.clone();
    if !comments.contains(&written) {
        comments.push(written);
    }
    comments
}
