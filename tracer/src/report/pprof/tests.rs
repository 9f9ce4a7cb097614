//! pprof files of small profiles: their text, what is read back, and hostile ones.

use std::fmt::Write as _;

use prost::Message as _;
use tracer_ebpf::{Function, StackEnd};

use super::messages::{
    ProtoFunction, ProtoLabel, ProtoLine, ProtoLocation, ProtoMapping, ProtoProfile, ProtoSample,
    ProtoValueType,
};
use super::reader::PprofError;
use super::*;
use crate::profile::{Frame, FrameName, Metric, Profile, ProfiledProcess, Session, SourceLine, Values};
use crate::report::sample::{SampleProfile, full, live_view, mixed, options, session, source};
use crate::report::source::ReportSource;
use crate::report::summary::Summary;
use crate::report::table::live::{LiveOptions, LiveSort};
use crate::report::table::{self, TableOptions};
use crate::report::{ExportOptions, folded, golden};
use std::time::Duration;

/// The bytes of the file of a profile.
fn file(source: &ReportSource<'_>) -> Vec<u8> {
    let mut file = Vec::new();
    let written = write(source, options(), &mut file).unwrap();
    assert_eq!(written.stacks, source.profile.stacks.len());
    file
}

/// The message in a file.
fn message(file: &[u8]) -> ProtoProfile {
    let mut message = Vec::new();
    let mut unpacked = flate2::read::GzDecoder::new(file);
    std::io::Read::read_to_end(&mut unpacked, &mut message).unwrap();
    ProtoProfile::decode(&*message).unwrap()
}

/// A message as text, without numbers of tables.
fn text(message: &ProtoProfile) -> String {
    let string = |index: i64| {
        let bytes = &message.string_table[usize::try_from(index).unwrap()];
        String::from_utf8(bytes.clone()).unwrap()
    };
    let value = |it: &ProtoValueType| format!("{}/{}", string(it.r#type), string(it.unit));
    let mut text = String::new();
    let types: Vec<String> = message.sample_type.iter().map(value).collect();
    writeln!(text, "types {}", types.join(" ")).unwrap();
    writeln!(text, "default {}", string(message.default_sample_type)).unwrap();
    let period = message.period_type.as_ref().map(value).unwrap();
    writeln!(text, "period {} {period}", message.period).unwrap();
    writeln!(text, "time {} + {}", message.time_nanos, message.duration_nanos).unwrap();
    for it in &message.mapping {
        writeln!(
            text,
            "mapping {} {} build {:?} functions {} files {} lines {} inlined {}",
            it.id,
            string(it.filename),
            string(it.build_id),
            it.has_functions,
            it.has_filenames,
            it.has_line_numbers,
            it.has_inline_frames
        )
        .unwrap();
    }
    for it in &message.location {
        let lines = it.line.iter().map(|line| {
            let function = message
                .function
                .iter()
                .find(|f| f.id == line.function_id)
                .unwrap();
            format!(
                "{:?} ({}:{})",
                string(function.name),
                string(function.filename),
                line.line
            )
        });
        let lines: Vec<String> = lines.collect();
        writeln!(
            text,
            "location {} in {} at {:#x}: {}",
            it.id,
            it.mapping_id,
            it.address,
            lines.join(" in ")
        )
        .unwrap();
    }
    for it in &message.sample {
        let labels = it.label.iter().map(|label| match label.str {
            0 => format!("{}={}", string(label.key), label.num),
            str => format!("{}={:?}", string(label.key), string(str)),
        });
        let labels: Vec<String> = labels.collect();
        writeln!(
            text,
            "sample {:?} {:?} {}",
            it.location_id,
            it.value,
            labels.join(" ")
        )
        .unwrap();
    }
    for it in &message.comment {
        writeln!(text, "comment {}", string(*it)).unwrap();
    }
    text
}

/// A stack with everything that its indices stand for.
type ResolvedStack = (ProfiledProcess, Function, Vec<Frame>, Option<StackEnd>, Values);

/// The stacks of a profile in an order of their own; objects by their paths, which are unique here.
fn resolved(profile: &Profile) -> Vec<(ResolvedStack, Vec<String>)> {
    let mut stacks: Vec<_> = profile
        .stacks
        .iter()
        .map(|stack| {
            let frames: Vec<&Frame> = stack.frames.iter().map(|it| &profile.frames[*it]).collect();
            let object = |frame: &&Frame| match frame.object {
                Some(object) => profile.objects[object].path.display().to_string(),
                None => String::new(),
            };
            let objects = frames.iter().map(object).collect();
            let frames = frames.into_iter().map(|frame| Frame {
                object: None,
                ..frame.clone()
            });
            let process = profile.processes[stack.process].clone();
            let stack = (process, stack.function, frames.collect(), stack.end, stack.values);
            (stack, objects)
        })
        .collect();
    stacks.sort();
    stacks
}

/// Fails unless two profiles are the same but for the order of their tables.
fn assert_same(read: &Profile, written: &Profile) {
    assert_eq!(resolved(read), resolved(written));
    let sorted = |profile: &Profile| {
        let mut processes = profile.processes.clone();
        let mut objects = profile.objects.clone();
        let mut together: Vec<_> = profile
            .together
            .iter()
            .map(|it| (it.process.map(|it| profile.processes[it].clone()), *it))
            .map(|(process, it)| (process, it.function, it.calls_variance, it.bytes_variance))
            .collect();
        processes.sort();
        objects.sort();
        together.sort();
        (processes, objects, together)
    };
    assert_eq!(sorted(read), sorted(written));
    assert_eq!(read.held, written.held);
    assert_eq!(read.has_ages, written.has_ages);
    assert_eq!(read.sample_bytes, written.sample_bytes);
    assert_eq!(read.marks, written.marks);
}

#[test]
fn mixed_profile() {
    golden::check("mixed-pprof.txt", || {
        let message = message(&file(&source(&mixed(), &session())));
        text(&message)
    });
}

#[test]
fn profile_with_everything() {
    let (profile, session) = full();
    golden::check("full-pprof.txt", || {
        text(&message(&file(&source(&profile, &session))))
    });
}

#[test]
fn profiles_come_back_whole() {
    let everything = full();
    let nothing = (Profile::default(), session());
    for (profile, session) in [everything, (mixed(), session()), nothing] {
        let view = live_view();
        let written = ReportSource {
            view: &view,
            ..source(&profile, &session)
        };
        let file = file(&written);
        let read = read(&file).unwrap();
        assert_same(&read.profile, &profile);
        assert_eq!(read.origin, SavedOrigin::Recording(Box::new(session)));
        assert_eq!(read.view, view);
        assert!(!read.is_altered);
        // Written again it is the same file.
        assert!(self::file(&read.source()) == file);
    }
}

/// Every report of two profiles.
fn reports(profile: &Profile, session: &Session) -> Vec<String> {
    let mut reports = Vec::new();
    let mut report = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        reports.push(String::from_utf8(out).unwrap());
    };
    for metric in Metric::ALL {
        for per_pid in [false, true] {
            let options = ExportOptions { metric, per_pid };
            report(&|out| {
                folded::write(profile, options, out).unwrap();
            });
        }
        let options = TableOptions::new(metric);
        report(&|out| table::write(profile, session, &options, out).unwrap());
        let live = LiveOptions {
            sort: LiveSort::Score,
            older_than: Some(Duration::from_millis(1500)),
        };
        report(&|out| table::live::write(profile, session, &options, &live, out).unwrap());
        report(&|out| Summary::of(profile, session, metric).write(out).unwrap());
    }
    reports
}

#[test]
fn reports_of_what_was_read_are_those_of_what_was_written() {
    for (profile, session) in [full(), (mixed(), session())] {
        let read = read(&file(&source(&profile, &session))).unwrap();
        let SavedOrigin::Recording(read_session) = &read.origin else {
            panic!("it is memtap's");
        };
        let (before, after) = (reports(&profile, &session), reports(&read.profile, read_session));
        for (before, after) in before.iter().zip(&after) {
            let difference = before.lines().zip(after.lines()).find(|(a, b)| a != b);
            assert!(before == after, "written and read: {difference:?}");
        }
    }
}

#[test]
fn equal_profiles_are_equal_files() {
    let (profile, session) = full();
    let mut other = profile.clone();
    other.stacks.reverse();
    other.together.reverse();
    other.objects.reverse();
    let last = other.objects.len() - 1;
    for frame in &mut other.frames {
        frame.object = frame.object.map(|it| last - it);
    }
    other.frames.reverse();
    let last = other.frames.len() - 1;
    for frame in other.stacks.iter_mut().flat_map(|it| &mut it.frames) {
        *frame = last - *frame;
    }
    other.processes.reverse();
    let last = other.processes.len() - 1;
    for stack in &mut other.stacks {
        stack.process = last - stack.process;
    }
    for group in &mut other.together {
        group.process = group.process.map(|it| last - it);
    }
    assert!(file(&source(&profile, &session)) == file(&source(&other, &session)));
}

#[test]
fn figures_are_there_where_they_were_traced() {
    let types = |heap, region, live| {
        let mut session = session();
        session.settings.traced.heap = heap;
        session.settings.traced.region = region;
        session.settings.traced.live = live;
        let message = message(&file(&source(&mixed(), &session)));
        let text = text(&message);
        text.lines().next().unwrap().to_owned()
    };
    assert_eq!(
        types(true, false, false),
        "types alloc_objects/count alloc_space/bytes"
    );
    assert_eq!(
        types(false, true, false),
        "types region_calls/count region_space/bytes"
    );
    assert_eq!(
        types(true, false, true),
        "types alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes peak_space/bytes \
         freed_objects/count freed_space/bytes temporary_objects/count"
    );
}

#[test]
fn figures_beyond_pprofs_are_exact_all_the_same() {
    let mut sample = SampleProfile::default();
    let process = sample.process(1, "p");
    sample.heap(process, Function::Malloc, &[], 1, u64::MAX);
    let file = file(&source(&sample.profile, &session()));
    assert_eq!(message(&file).sample[0].value[1], i64::MAX);
    assert_eq!(read(&file).unwrap().profile.stacks[0].values.bytes, u64::MAX);
}

#[test]
fn paths_of_any_bytes_come_back() {
    use std::os::unix::ffi::OsStringExt as _;
    let path = || std::ffi::OsString::from_vec(b"/tmp/\xff".to_vec());
    let mut profile = mixed();
    profile.objects[0].path = path().into();
    profile.processes[0].exe = Some(path().into());
    let mut session = session();
    session.probes[0].object = path().into();
    let read = read(&file(&source(&profile, &session))).unwrap();
    assert_same(&read.profile, &profile);
    assert_eq!(read.origin, SavedOrigin::Recording(Box::new(session)));
}

/// A file of a message, not compressed.
fn plain(message: &ProtoProfile) -> Vec<u8> {
    message.encode_to_vec()
}

#[test]
fn files_that_others_changed_are_read_as_others() {
    let mut changed = message(&file(&source(&mixed(), &session())));
    changed.sample.pop();
    let read = read(&plain(&changed)).unwrap();
    assert!(read.is_altered);
    assert!(matches!(read.origin, SavedOrigin::Foreign(_)));
    assert_eq!(read.profile.stacks.len(), mixed().stacks.len() - 1);
    // The labels are memtap's all the same.
    let mut out = Vec::new();
    folded::write(&read.profile, options(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.contains("server;_start;main;<[u8: 4] as Parse>::parse;grow;malloc "),
        "{text}"
    );
    assert!(text.contains("server;[truncated];"), "{text}");
}

#[test]
fn other_versions_are_named() {
    let mut message = message(&file(&source(&mixed(), &session())));
    let json = message.string_table.last_mut().unwrap();
    let text = String::from_utf8(json.clone()).unwrap();
    *json = text.replace("memtap.profile/1", "memtap.profile/2").into_bytes();
    assert_eq!(
        read(&plain(&message)).unwrap_err(),
        PprofError::Version("memtap.profile/2".to_owned())
    );
}

/// A heap profile as Go writes it: four types, no labels of memtap's, inlined lines.
fn go_heap(default: i64, values: &[[i64; 4]]) -> ProtoProfile {
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
    let again = self::message(&file(&read.source()));
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

#[test]
fn what_is_no_profile_of_memory_says_what_it_is() {
    let mut cpu = go_heap(0, &[]);
    cpu.string_table[1..7].clone_from_slice(
        &["samples", "count", "cpu", "nanoseconds", "contentions", "delay"].map(|it| it.as_bytes().to_vec()),
    );
    let pack = |bytes: &[u8]| {
        let mut file = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut file, bytes).unwrap();
        file.finish().unwrap()
    };
    for (file, words) in [
        (Vec::new(), "the file is empty"),
        (pack(b""), "the file is empty"),
        (b"{\"a\": 1}".to_vec(), "no pprof profile, but JSON"),
        (pack(b"{\"a\": 1}"), "no pprof profile, but JSON"),
        (b"<?xml version".to_vec(), "an SVG"),
        (b"a;b;malloc 12\n".to_vec(), "but text"),
        (b"\x7fELF\x02".to_vec(), "a program"),
        (vec![0xff; 40], "bytes of another format"),
        (pack(&[0xff; 40]), "is damaged"),
        (plain(&cpu), "but samples/count, cpu/nanoseconds"),
        (plain(&go_heap(0, &[[1, -2, 0, 0]])), "difference of two profiles"),
        (vec![0x12, 0], "no sample types at all"),
    ] {
        let error = read(&file).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn tables_are_checked() {
    let changes: [fn(&mut ProtoProfile); 11] = [
        |it| it.sample[0].location_id.push(8),
        |it| {
            it.sample[0].value.pop();
        },
        |it| it.location[0].mapping_id = 2,
        |it| it.location[0].line[0].function_id = 0,
        |it| it.location[1].id = 7,
        |it| it.function[0].name = 99,
        |it| it.function[0].filename = -1,
        |it| it.mapping[0].filename = i64::MAX,
        |it| it.sample_type[0].unit = 99,
        |it| it.default_sample_type = i64::MIN,
        |it| it.comment.push(99),
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut message = go_heap(0, &[[1, 2, 0, 0]]);
        change(&mut message);
        let error = read(&plain(&message)).expect_err("it is damaged");
        assert!(matches!(error, PprofError::Damaged(_)), "{index}: {error}");
    }
}

#[test]
fn documents_are_checked() {
    let (profile, session) = full();
    let whole = message(&file(&source(&profile, &session)));
    let mut body = whole.clone();
    let json = String::from_utf8(body.string_table.pop().unwrap()).unwrap();
    body.comment.pop();
    let changes = [
        ("\"location\":1,", "\"location\":1000000,", true),
        ("\"image\"", "\"image\"", true),
        ("\"stacks\":", "\"stacks\":1", false),
        ("\"metric\":\"alloc-bytes\"", "\"metric\":\"nothing\"", false),
        ("\"process\":", "\"process\":7", false),
        ("\"objects\":[{", "\"objects\":[],\"others\":[{", false),
        ("\"has_ages\":", "\"had_ages\":", false),
        ("\"object\":1", "\"object\":2", false),
        ("\"total\":7", "\"totals\":7", false),
    ];
    for (from, to, is_read) in changes {
        let changed = json.replacen(from, to, 1);
        assert!(changed != json || is_read, "{from} is not there");
        let mut message = body.clone();
        message
            .comment
            .push(i64::try_from(message.string_table.len()).unwrap());
        message.string_table.push(changed.into_bytes());
        let outcome = read(&plain(&message));
        match outcome {
            Ok(_) => assert!(is_read, "{to} was read"),
            Err(PprofError::Damaged(_)) => assert!(!is_read, "{to} was not read"),
            Err(error) => panic!("{to}: {error}"),
        }
    }
}

#[test]
fn truncated_files_say_so() {
    let (profile, session) = full();
    let file = file(&source(&profile, &session));
    for length in 1..file.len() {
        let error = read(&file[..length]).expect_err("it is cut off");
        if length >= 10 {
            assert_eq!(error, PprofError::Truncated, "{length}");
        }
    }
    let plain = plain(&message(&file));
    for length in (1..plain.len()).step_by(7) {
        // What was cut off after a whole field is another program's for all that is known.
        let _either = read(&plain[..length]);
    }
}

#[test]
fn no_bit_flip_is_worse_than_an_error() {
    let (profile, session) = full();
    let file = file(&source(&profile, &session));
    for index in 0..file.len() {
        let mut flipped = file.clone();
        flipped[index] ^= 1 << (index % 8);
        if let Ok(read) = read(&flipped) {
            assert!(!read.is_altered, "the sum of gzip covers all of the content");
        }
    }
    let plain = plain(&message(&self::file(&source(&mixed(), &self::session()))));
    for index in 0..plain.len() {
        let mut flipped = plain.clone();
        flipped[index] ^= 1 << (index % 8);
        let _either = read(&flipped);
    }
}
