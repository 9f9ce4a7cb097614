//! Profiles of other programs.

use super::*;
use crate::profile::{FrameName, SourceLine};
use crate::report::pprof::messages::{
    ProtoFunction, ProtoLabel, ProtoLine, ProtoLocation, ProtoMapping, ProtoSample,
};

/// A heap profile as Go writes it: four types, no labels of memtap's, inlined lines.
pub(super) fn go_heap(default: i64, values: &[[i64; 4]]) -> ProtoProfile {
    let texts = [
        "",
        "alloc_objects",
        "count",
        "alloc_space",
        "bytes",
        "inuse_objects",
        "inuse_space",
        "space",
        "/usr/bin/app",
        "main.fill",
        "/src/main.go",
        "main.main",
        "runtime.main",
        "/go/proc.go",
        "bytes_label",
    ];
    let value_type = |r#type, unit| ProtoValueType { r#type, unit };
    let function = |id, name, filename| ProtoFunction {
        id,
        name,
        system_name: name,
        filename,
        start_line: 0,
    };
    let line = |function_id, line| ProtoLine {
        function_id,
        line,
        column: 0,
    };
    let location = |id, address, line| ProtoLocation {
        id,
        mapping_id: 1,
        address,
        line,
        is_folded: false,
    };
    ProtoProfile {
        sample_type: vec![
            value_type(1, 2),
            value_type(3, 4),
            value_type(5, 2),
            value_type(6, 4),
        ],
        sample: values
            .iter()
            .map(|value| ProtoSample {
                location_id: vec![7, 9],
                value: value.to_vec(),
                label: vec![ProtoLabel {
                    key: 14,
                    num: 48,
                    ..ProtoLabel::default()
                }],
            })
            .collect(),
        mapping: vec![ProtoMapping {
            id: 1,
            memory_start: 0x40_0000,
            memory_limit: 0x50_0000,
            filename: 8,
            has_functions: true,
            ..ProtoMapping::default()
        }],
        location: vec![
            location(7, 0x40_1000, vec![line(1, 12), line(2, 30)]),
            location(9, 0x40_2000, vec![line(3, 250)]),
            location(11, 0x40_3000, vec![]),
        ],
        function: vec![function(1, 9, 10), function(2, 11, 10), function(3, 12, 13)],
        string_table: texts.map(|it| it.as_bytes().to_vec()).to_vec(),
        period_type: Some(value_type(7, 4)),
        period: 524_288,
        default_sample_type: default,
        time_nanos: 5,
        ..ProtoProfile::default()
    }
}

#[test]
fn profiles_of_other_programs_are_read_as_far_as_they_go() {
    let mut message = go_heap(6, &[[10, 4800, 4, 1920], [1, 48, 0, 0]]);
    message.sample[1].location_id = vec![11, 9];
    let read = read(&plain(&message)).unwrap();
    assert_eq!(read.view.metric, Metric::LiveBytes);
    let SavedOrigin::Foreign(facts) = &read.origin else {
        panic!("it is not memtap's");
    };
    assert_eq!(
        facts.metrics,
        [
            Metric::AllocCount,
            Metric::AllocBytes,
            Metric::LiveCount,
            Metric::LiveBytes
        ]
    );
    assert_eq!((facts.duration, facts.period_bytes), (None, 524_288));
    let folded = |metric| {
        let mut out = Vec::new();
        let options = ExportOptions {
            metric,
            per_pid: false,
        };
        folded::write(&read.profile, options, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        folded(Metric::AllocBytes),
        "app;runtime.main;[app+0x3000];[allocation] 48\n\
         app;runtime.main;main.main;main.fill;[allocation] 4800\n"
    );
    assert_eq!(
        folded(Metric::LiveCount),
        "app;runtime.main;main.main;main.fill;[allocation] 4\n"
    );
    let frame = read.profile.frames.iter().find(|it| it.inlined).unwrap();
    assert_eq!(frame.name, FrameName::Symbol("main.fill".into()));
    assert_eq!(
        frame.source,
        Some(SourceLine {
            file: "/src/main.go".into(),
            line: 12
        })
    );
    // Written by memtap it has the same figures, and no others.
    let again = super::message(&file(&read.source()));
    assert_eq!(again.sample_type.len(), 4);
    let mut sums = [0; 4];
    for sample in &again.sample {
        for (sum, value) in sums.iter_mut().zip(&sample.value) {
            *sum += value;
        }
    }
    assert_eq!(sums, [11, 4848, 4, 1920]);
    assert!(
        !text(&again).contains("memtap.profile"),
        "no recording is made up"
    );
}

#[test]
fn allocator_functions_are_known_by_their_names() {
    let mut message = go_heap(0, &[[1, 2, 0, 0]]);
    message.string_table[9] = b"malloc".to_vec();
    let read = read(&plain(&message)).unwrap();
    assert_eq!(read.profile.stacks[0].function, Function::Malloc);
    assert_eq!(read.profile.stacks[0].frames.len(), 2);
    // Without a default pprof shows the last type.
    assert_eq!(read.view.metric, Metric::LiveBytes);
}

#[test]
fn estimates_may_have_more_in_use_than_was_allocated() {
    let read = read(&plain(&go_heap(0, &[[1, 10, 2, 30]]))).unwrap();
    let values = &read.profile.stacks[0].values;
    assert_eq!((values.live(), values.live_bytes()), (2, 30));
}
