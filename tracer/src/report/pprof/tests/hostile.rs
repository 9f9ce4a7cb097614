//! Files that are cut off, damaged, or something else.

use super::foreign::go_heap;
use super::*;
use crate::report::{Format, ProfileDiff, foreign_table};

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
    let replacements = [
        ("\"frames\":[{\"location\":", "\"frames\":[{\"location\":9"),
        ("\"stacks\":", "\"stacks\":1"),
        ("\"metric\":\"alloc-bytes\"", "\"metric\":\"nothing\""),
        ("\"process\":", "\"process\":7"),
        ("\"objects\":[{", "\"objects\":[],\"others\":[{"),
        ("\"has_ages\":", "\"had_ages\":"),
        ("\"object\":1", "\"object\":2"),
        ("\"total\":7", "\"totals\":7"),
    ];
    for (from, to) in replacements {
        let changed = json.replacen(from, to, 1);
        assert!(changed != json, "{from} is not there");
        let mut message = body.clone();
        let index = i64::try_from(message.string_table.len()).unwrap();
        message.comment.push(index);
        message.string_table.push(changed.into_bytes());
        let error = read(&plain(&message)).expect_err(to);
        assert!(matches!(error, PprofError::Damaged(_)), "{to}: {error}");
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
    let whole = super::file(&source(&mixed(), &super::session()));
    let plain = plain(&message(&whole));
    let mut were_read = 0;
    for index in 0..plain.len() {
        let mut flipped = plain.clone();
        flipped[index] ^= 1 << (index % 8);
        if let Ok(read) = read(&flipped) {
            show(&read);
            were_read += 1;
        }
    }
    assert!(were_read > 100, "some bits are of figures and names: {were_read}");
}

/// Makes every kind of report of a profile, whatever is in it.
fn show(read: &SavedProfile) {
    let source = read.source();
    let options = ExportOptions {
        metric: read.view.metric,
        per_pid: true,
    };
    for format in [Format::Folded, Format::Pprof] {
        crate::report::write(&source, format, options, &mut Vec::new()).unwrap();
    }
    let diff = ProfileDiff::of(&source, &source, None);
    assert!(!diff.has_changed(read.view.metric));
    match &read.origin {
        SavedOrigin::Recording(session) => {
            let options = TableOptions::new(read.view.metric);
            table::write(&read.profile, session, &options, &mut Vec::new()).unwrap();
            let summary = Summary::of(&read.profile, session, read.view.metric);
            summary.write(&mut Vec::new()).unwrap();
        }
        SavedOrigin::Foreign(facts) => {
            foreign_table::write(&read.profile, facts, &read.view, Some(80), &mut Vec::new()).unwrap();
        }
    }
}
