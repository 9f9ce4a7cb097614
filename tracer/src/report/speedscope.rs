//! A file for speedscope: a sampled profile per metric, with frames that all of them share.
//!
//! ```json
//! { "shared": { "frames": [{ "name": "main", "file": "/src/main.c", "line": 12 }] },
//!   "profiles": [{ "type": "sampled", "name": "alloc-bytes", "unit": "bytes",
//!                  "samples": [[0, 3, 7]], "weights": [64000] }] }
//! ```
//!
//! The layout is that of `file-format-schema.json` in speedscope's own package. A sample is a
//! stack, from the process to the function that was called; its weight is that of the stack. Frames
//! are as in folded stacks, `[truncated]` and `[stack lost]` too, and inlined functions are frames
//! of their own; those of one function are apart where their lines differ.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};
use tracer_ebpf::Function;

use super::merge::{Completeness, Groups, ProcessGrouping, StackKey, group_processes};
use super::weighed::{self, WeighedStack};
use super::{ExportOptions, ReportSource, Written, label, title, units};
use crate::message::escape::one_line;
use crate::profile::{Frame, Metric};

/// The identity of the format.
const SCHEMA: &str = "https://www.speedscope.app/file-format-schema.json";

/// Writes the profile for speedscope, and flushes `out`.
///
/// Fails only as `out` fails.
pub(crate) fn write(
    source: &ReportSource<'_>,
    options: ExportOptions,
    out: &mut dyn Write,
) -> io::Result<Written> {
    let file = SpeedscopeFile::of(source, options);
    let mut out = BufWriter::new(out);
    serde_json::to_writer(&mut out, &file)?;
    writeln!(out)?;
    out.flush()?;
    Ok(file.written())
}

/// A file, which is written from the merged stacks as it goes.
struct SpeedscopeFile {
    name: String,
    frames: Vec<SpeedscopeFrame>,
    metrics: Vec<Metric>,
    stacks: Vec<SampledStack>,
    sample_bytes: Option<u64>,
}

/// A frame as speedscope shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct SpeedscopeFrame {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

impl SpeedscopeFrame {
    /// A frame that has a name alone.
    const fn plain(name: String) -> Self {
        Self {
            name,
            file: None,
            line: None,
        }
    }

    /// A frame of a profile.
    fn of(frame: &Frame) -> Self {
        let source = frame.source.as_ref();
        Self {
            name: label::frame(frame),
            file: source.map(|it| one_line(&it.file).into_owned()),
            line: source.map(|it| it.line),
        }
    }
}

/// A stack as indices into the frames, from the process to the function, with its weights.
struct SampledStack {
    frames: Vec<usize>,
    weights: Vec<Option<u128>>,
}

impl SpeedscopeFile {
    fn of(source: &ReportSource<'_>, options: ExportOptions) -> Self {
        let profile = source.profile;
        let metrics = weighed::metrics(options.metric, source.origin);
        let processes = group_processes(profile, ProcessGrouping::per_pid(options.per_pid));
        let groups = Groups::of(profile.frames.iter().map(SpeedscopeFrame::of));
        let weighed = weighed::stacks(profile, &metrics, &processes, &groups);

        let mut frames = vec![
            SpeedscopeFrame::plain(label::TRUNCATED.to_owned()),
            SpeedscopeFrame::plain(label::STACK_LOST.to_owned()),
        ];
        let mut functions: BTreeMap<Function, usize> = BTreeMap::new();
        for stack in &weighed {
            functions.insert(stack.place.function, 0);
        }
        for (function, index) in &mut functions {
            *index = frames.len();
            frames.push(SpeedscopeFrame::plain(function.name().to_owned()));
        }
        let places = FrameIndices {
            functions,
            processes: frames.len(),
            frames: frames.len() + processes.first.len(),
        };
        frames.extend(
            processes
                .first
                .iter()
                .map(|it| SpeedscopeFrame::plain(label::process(&profile.processes[*it], options.per_pid))),
        );
        frames.extend(
            groups
                .first
                .iter()
                .map(|it| SpeedscopeFrame::of(&profile.frames[*it])),
        );

        let whose = title::processes(profile);
        Self {
            name: if whose.is_empty() {
                "memtap".to_owned()
            } else {
                format!("memtap: {whose}")
            },
            frames,
            metrics,
            stacks: weighed.into_iter().map(|stack| places.sampled(stack)).collect(),
            sample_bytes: profile.sample_bytes,
        }
    }

    /// Returns the stacks that the metric of this number applies to, and their weights.
    fn weighed(&self, metric: usize) -> impl Iterator<Item = (&SampledStack, u128)> {
        self.stacks
            .iter()
            .filter_map(move |stack| Some((stack, stack.weights[metric]?)))
    }

    fn written(&self) -> Written {
        Written {
            stacks: self.weighed(0).count(),
            total: self.weighed(0).map(|(_, weight)| weight).sum(),
        }
    }
}

/// The first indices of frames by their kinds.
struct FrameIndices {
    functions: BTreeMap<Function, usize>,
    processes: usize,
    frames: usize,
}

impl FrameIndices {
    fn sampled(&self, stack: WeighedStack) -> SampledStack {
        let WeighedStack { place, weights, .. } = stack;
        let StackKey {
            process,
            function,
            walk,
            frames: callers,
        } = place;
        let marker = match walk {
            Completeness::Whole => None,
            Completeness::Truncated => Some(0),
            Completeness::Lost => Some(1),
        };
        let mut frames = Vec::with_capacity(callers.len() + 3);
        frames.push(self.processes + process);
        frames.extend(marker);
        frames.extend(callers.into_iter().map(|it| self.frames + it));
        frames.extend(self.functions.get(&function));
        SampledStack { frames, weights }
    }
}

impl Serialize for SpeedscopeFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut file = serializer.serialize_map(Some(6))?;
        file.serialize_entry("$schema", SCHEMA)?;
        file.serialize_entry("exporter", "memtap")?;
        file.serialize_entry("name", &self.name)?;
        file.serialize_entry("activeProfileIndex", &0)?;
        file.serialize_entry("shared", &SharedFrames { frames: &self.frames })?;
        let profiles: Vec<_> = (0..self.metrics.len())
            .map(|metric| SampledProfile { file: self, metric })
            .collect();
        file.serialize_entry("profiles", &profiles)?;
        file.end()
    }
}

#[derive(Serialize)]
struct SharedFrames<'a> {
    frames: &'a [SpeedscopeFrame],
}

/// The stacks by one metric.
struct SampledProfile<'a> {
    file: &'a SpeedscopeFile,
    metric: usize,
}

impl SampledProfile<'_> {
    /// The metric's name, and the source of estimates.
    fn name(&self, metric: Metric) -> String {
        match self.file.sample_bytes {
            Some(bytes) if metric != Metric::RegionBytes => {
                format!("{} (estimates from {})", metric.name(), units::samples(bytes))
            }
            _ => metric.name().to_owned(),
        }
    }
}

impl Serialize for SampledProfile<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let metric = self.file.metrics[self.metric];
        let weighed = || self.file.weighed(self.metric);
        let mut profile = serializer.serialize_struct("SampledProfile", 7)?;
        profile.serialize_field("type", "sampled")?;
        profile.serialize_field("name", &self.name(metric))?;
        profile.serialize_field("unit", if metric.is_bytes() { "bytes" } else { "none" })?;
        profile.serialize_field("startValue", &0)?;
        profile.serialize_field("endValue", &weighed().map(|(_, weight)| weight).sum::<u128>())?;
        profile.serialize_field("samples", &Sequence(|| weighed().map(|(stack, _)| &stack.frames)))?;
        profile.serialize_field("weights", &Sequence(|| weighed().map(|(_, weight)| weight)))?;
        profile.end()
    }
}

/// A sequence that is made as it is written.
struct Sequence<F>(F);

impl<F, I> Serialize for Sequence<F>
where
    F: Fn() -> I,
    I: Iterator<Item: Serialize>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tracer_ebpf::StackEnd;

    use super::super::golden;
    use super::super::sample::{SampleProfile, mixed, options, session, source};
    use super::*;
    use crate::profile::Profile;

    fn text(profile: &Profile, options: ExportOptions) -> String {
        let mut out = Vec::new();
        write(&source(profile, &session()), options, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The stacks of a profile of the file, by the names of their frames.
    fn folded(file: &Value, profile: usize) -> Vec<(String, u64)> {
        let names = file["shared"]["frames"].as_array().unwrap();
        let profile = &file["profiles"][profile];
        let samples = profile["samples"].as_array().unwrap();
        let weights = profile["weights"].as_array().unwrap();
        assert_eq!(samples.len(), weights.len());
        let name = |index: &Value| {
            let index = usize::try_from(index.as_u64().unwrap()).unwrap();
            names[index]["name"].as_str().unwrap().replace(';', ":")
        };
        let line = |sample: &Value| {
            let names: Vec<String> = sample.as_array().unwrap().iter().map(name).collect();
            names.join(";")
        };
        let weights = weights.iter().map(|it| it.as_u64().unwrap());
        samples.iter().map(line).zip(weights).collect()
    }

    #[test]
    fn mixed_profile() {
        golden::check("mixed.speedscope.json", || {
            let value: Value = serde_json::from_str(&text(&mixed(), options())).unwrap();
            let mut text = serde_json::to_string_pretty(&value).unwrap();
            text.push('\n');
            text
        });
    }

    #[test]
    fn stacks_are_those_of_the_folded_file() {
        for metric in [Metric::AllocBytes, Metric::AllocCount, Metric::RegionBytes] {
            for per_pid in [false, true] {
                let options = ExportOptions { metric, per_pid };
                let file: Value = serde_json::from_str(&text(&mixed(), options)).unwrap();
                let mut sums: BTreeMap<String, u64> = BTreeMap::new();
                for (line, weight) in folded(&file, 0) {
                    *sums.entry(line).or_default() += weight;
                }
                let mut lines: Vec<String> = sums
                    .iter()
                    .map(|(line, weight)| format!("{line} {weight}"))
                    .collect();
                lines.sort();
                let mut out = Vec::new();
                super::super::folded::write(&mixed(), options, &mut out).unwrap();
                let expected = String::from_utf8(out).unwrap();
                assert_eq!(lines, expected.lines().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn order_in_the_profile_does_not_matter() {
        let mut other = mixed();
        other.stacks.reverse();
        assert_eq!(text(&mixed(), options()), text(&other, options()));
    }

    #[test]
    fn every_metric_has_its_unit_and_its_sum() {
        let mut session = session();
        session.settings.traced.live = true;
        let options = ExportOptions {
            metric: Metric::LiveCount,
            per_pid: false,
        };
        let mut out = Vec::new();
        let written = write(&source(&mixed(), &session), options, &mut out).unwrap();
        let file: Value = serde_json::from_slice(&out).unwrap();
        let profiles = file["profiles"].as_array().unwrap();
        assert_eq!(profiles.len(), Metric::ALL.len());
        assert_eq!(profiles[0]["name"], "live-count");
        assert_eq!(
            profiles[0]["endValue"].as_u64().map(u128::from),
            Some(written.total)
        );
        assert_eq!(profiles[0]["samples"].as_array().unwrap().len(), written.stacks);
        for (index, profile) in profiles.iter().enumerate() {
            let bytes = profile["name"].as_str().unwrap().ends_with("bytes");
            assert_eq!(profile["unit"], if bytes { "bytes" } else { "none" });
            let sum: u64 = folded(&file, index).iter().map(|(_, weight)| weight).sum();
            assert_eq!(profile["endValue"].as_u64(), Some(sum));
        }
    }

    #[test]
    fn lines_and_inlined_functions_are_frames() {
        let mut sample = SampleProfile::default();
        let process = sample.process(1, "p");
        let main = sample.line("main", "/a.c", 3);
        let inlined = sample.line("f\u{1b}", "/b\n.h", 4);
        sample.profile.frames[inlined].inlined = true;
        sample.heap(process, Function::Calloc, &[main, inlined], 1, 8);
        let file: Value = serde_json::from_str(&text(&sample.profile, options())).unwrap();
        assert_eq!(folded(&file, 0), [("p;main;f\\u{1b};calloc".to_owned(), 8)]);
        let frames = file["shared"]["frames"].as_array().unwrap();
        let frame = serde_json::json!({"name": "f\\u{1b}", "file": "/b .h", "line": 4});
        assert!(frames.contains(&frame), "{frames:?}");
    }

    #[test]
    fn estimates_say_so_and_sums_outgrow_64_bits() {
        let mut sample = SampleProfile::default();
        let process = sample.process(1, "p");
        for function in [Function::Malloc, Function::Calloc] {
            sample
                .stack(process, function, &[], Some(StackEnd::Complete))
                .bytes = u64::MAX;
        }
        sample.profile.sample_bytes = Some(512 << 10);
        let text = text(&sample.profile, options());
        assert!(
            text.contains(r#""name":"alloc-bytes (estimates from one sample per 512.0 KiB)""#),
            "{text}"
        );
        assert!(text.contains(&format!(r#""endValue":{},"#, u128::from(u64::MAX) * 2)));
        assert!(text.contains(r#""name":"region-bytes""#));
    }

    #[test]
    fn nothing_gives_empty_profiles() {
        let file: Value = serde_json::from_str(&text(&Profile::default(), options())).unwrap();
        assert_eq!(file["name"], "memtap");
        assert_eq!(file["profiles"][0]["samples"], serde_json::json!([]));
    }

    #[test]
    fn a_writer_that_fails_is_an_error() {
        let mut out: &mut [u8] = &mut [0; 4];
        let error = write(&source(&mixed(), &session()), options(), &mut out).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }
}
