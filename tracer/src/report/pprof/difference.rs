//! The difference of two profiles as a pprof file: the second minus the first.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::messages::{
    ProtoFunction, ProtoLabel, ProtoLine, ProtoLocation, ProtoProfile, ProtoSample, ProtoValueType,
};
use super::sample_types;
use super::tables::StringTable;
use super::writer::compress;
use super::{FUNCTION, PROCESS};
use crate::profile::Metric;
use crate::report::diff::{DiffKey, ProfileDiff};
use crate::report::merge::Completeness;
use crate::report::{Written, label};
use tracer_ebpf::Function;

/// Writes the difference, and flushes `out`: a sample for each stack of which a figure changed. The
/// metric is the sample type that viewers show first.
///
/// Fails only as `out` fails.
pub(crate) fn write_difference(
    diff: &ProfileDiff,
    metric: Metric,
    out: &mut dyn Write,
) -> io::Result<Written> {
    let message = message(diff, metric);
    compress(&message, out)?;
    Ok(Written {
        stacks: message.sample.len(),
        total: diff.growth(metric).unsigned_abs(),
    })
}

/// Makes the message.
pub(super) fn message(diff: &ProfileDiff, metric: Metric) -> ProtoProfile {
    let mut types = sample_types::sample_types(&diff.metrics);
    types.retain(|it| sample_types::default_type(it.metric) == it.name);
    let mut strings = StringTable::new();
    let mut value_type = |r#type: &str, unit: &str| ProtoValueType {
        r#type: strings.index(r#type),
        unit: strings.index(unit),
    };
    let mut message = ProtoProfile {
        sample_type: types.iter().map(|it| value_type(it.name, it.unit)).collect(),
        period_type: Some(value_type("space", "bytes")),
        period: 1,
        ..ProtoProfile::default()
    };
    message.default_sample_type = strings.index(sample_types::default_type(metric));
    let mut functions = DiffFunctions::default();
    for stack in &diff.stacks {
        let value: Vec<i64> = types.iter().map(|it| clamped(stack.change(it.metric))).collect();
        if value.iter().all(|it| *it == 0) {
            continue;
        }
        let key = &stack.key;
        let mut text = |key, value: &str| ProtoLabel {
            key: strings.index(key),
            str: strings.index(value),
            ..ProtoLabel::default()
        };
        let mut label = vec![text(PROCESS, &diff.processes[key.process])];
        if key.function != Function::Unknown {
            label.push(text(FUNCTION, key.function.name()));
        }
        message.sample.push(ProtoSample {
            location_id: functions.stack(diff, key),
            value,
            label,
        });
    }
    for (id, (name, file)) in (1..).zip(&functions.order) {
        let name = strings.index(name);
        message.function.push(ProtoFunction {
            id,
            name,
            system_name: name,
            filename: strings.index(file),
            start_line: 0,
        });
        message.location.push(ProtoLocation {
            id,
            line: vec![ProtoLine {
                function_id: id,
                ..ProtoLine::default()
            }],
            ..ProtoLocation::default()
        });
    }
    let comment = format!(
        "memtap {}: the difference of two profiles, the second minus the first",
        env!("CARGO_PKG_VERSION")
    );
    message.comment.push(strings.index(&comment));
    message.string_table = strings.into_strings();
    message
}

fn clamped(change: i128) -> i64 {
    i64::try_from(change.clamp(i64::MIN.into(), i64::MAX.into())).unwrap_or_default()
}

/// Functions by number, from 1; a location stands for one function.
#[derive(Default)]
struct DiffFunctions {
    order: Vec<(String, String)>,
    numbers: BTreeMap<(String, String), u64>,
}

impl DiffFunctions {
    /// The locations of a stack, the innermost first.
    fn stack(&mut self, diff: &ProfileDiff, key: &DiffKey) -> Vec<u64> {
        let frames = key.frames.iter().rev().map(|it| {
            let frame = &diff.frames[*it];
            (frame.name.clone(), frame.file.clone())
        });
        let mark = match key.walk {
            Completeness::Whole => None,
            Completeness::Truncated => Some(label::TRUNCATED),
            Completeness::Lost => Some(label::STACK_LOST),
        };
        let mark = mark.map(|name| (name.to_owned(), String::new()));
        let frames: Vec<_> = frames.chain(mark).collect();
        frames.into_iter().map(|frame| self.number(frame)).collect()
    }

    fn number(&mut self, function: (String, String)) -> u64 {
        if let Some(number) = self.numbers.get(&function) {
            return *number;
        }
        self.order.push(function.clone());
        let number = self.order.len() as u64;
        self.numbers.insert(function, number);
        number
    }
}
