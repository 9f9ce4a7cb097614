//! Differences of small profiles.

use tracer_ebpf::{Function, StackEnd};

use super::*;
use crate::profile::{Frame, FrameName, ObjectFile, Profile, Session, SourceLine};
use crate::report::sample::{SampleProfile, mixed, session, source};
use crate::report::{Format, golden, write_difference};

/// A server before and after a change: one stack grew, one shrank, one is new, one is gone, one
/// stayed.
fn pair() -> [Profile; 2] {
    let make = |is_after: bool| {
        let mut sample = SampleProfile::default();
        let process = sample.process(if is_after { 200 } else { 100 }, "server");
        let other = sample.process(if is_after { 201 } else { 101 }, "worker");
        let line = if is_after { 30 } else { 20 };
        let main = sample.line("main", "/src/main.c", line);
        let grows = sample.line("make_session", "/src/session.c", line + 1);
        let shrinks = sample.symbol("fill;cache");
        let stays = sample.symbol("start");
        let state = sample.line(if is_after { "fresh" } else { "former" }, "/src/state.c", 3);
        let mut heap =
            |frames: &[usize], bytes| sample.heap(process, Function::Malloc, frames, bytes / 64, bytes);
        heap(&[main, grows], if is_after { 3 << 20 } else { 1 << 20 });
        heap(&[main, shrinks], if is_after { 100 << 10 } else { 300 << 10 });
        heap(&[main, stays], 4096);
        heap(&[main, state], if is_after { 2048 } else { 1024 });
        sample.heap(other, Function::Calloc, &[], 1, if is_after { 640 } else { 64 });
        let end = Some(StackEnd::Truncated);
        sample.stack(other, Function::Malloc, &[main], end).bytes = if is_after { 10 } else { 20 };
        sample.profile
    };
    [make(false), make(true)]
}

fn compared(before: &Profile, after: &Profile, scale: Option<DiffScale>) -> ProfileDiff {
    let session = session();
    ProfileDiff::of(&source(before, &session), &source(after, &session), scale)
}

fn table(diff: &ProfileDiff, change: impl FnOnce(&mut DiffTableOptions)) -> String {
    let mut options = DiffTableOptions {
        metric: Metric::AllocBytes,
        by: DiffBy::Stack,
        before: "before.pb.gz".to_owned(),
        after: "after.pb.gz".to_owned(),
        per_second_of_ns: None,
        top: 20,
        width: None,
    };
    change(&mut options);
    let mut out = Vec::new();
    diff.write_table(&options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn written(diff: &ProfileDiff, format: Format) -> Vec<u8> {
    let mut out = Vec::new();
    write_difference(diff, format, Metric::AllocBytes, &mut out).unwrap();
    out
}

fn folded(diff: &ProfileDiff) -> String {
    String::from_utf8(written(diff, Format::Folded)).unwrap()
}

#[test]
fn everything_that_changed_is_there() {
    let [before, after] = pair();
    let diff = || compared(&before, &after, None);
    golden::check("diff.table", || table(&diff(), |_| {}));
    golden::check("diff-function.table", || {
        table(&diff(), |options| options.by = DiffBy::Function)
    });
    golden::check("diff-normalized.table", || {
        let scale = DiffScale {
            before_ns: 10_000_000_000,
            after_ns: 20_000_000_000,
        };
        table(&compared(&before, &after, Some(scale)), |options| {
            options.per_second_of_ns = Some(scale.after_ns);
        })
    });
    golden::check("diff.folded", || folded(&diff()));
}

#[test]
fn a_picture_has_the_change_of_each_frame() {
    let [before, after] = pair();
    let svg = String::from_utf8(written(&compared(&before, &after, None), Format::Svg)).unwrap();
    assert!(svg.contains("make_session (3,145,728 bytes, "), "{svg}");
    assert!(svg.contains("1.3 MiB before, 3.1 MiB after"), "{svg}");
    for colours in ["rgb(255,", ",255)"] {
        assert!(svg.contains(colours), "red and blue: {svg}");
    }
}

#[test]
fn nothing_is_the_difference_of_a_profile_and_itself() {
    for profile in [mixed(), pair()[0].clone(), Profile::default()] {
        let diff = compared(&profile, &profile, None);
        for metric in Metric::ALL {
            assert!(!diff.has_changed(metric));
            assert_eq!(diff.growth(metric), 0);
            assert!(diff.growers(metric, 3).is_empty());
        }
        let text = table(&diff, |_| {});
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.ends_with(": 0 B\nnothing changed\n"), "{text}");
        assert_eq!(folded(&diff), "");
        let svg = String::from_utf8(written(&diff, Format::Svg)).unwrap();
        assert!(svg.contains("nothing changed"), "{svg}");
    }
}

#[test]
fn what_is_left_of_nothing_is_said() {
    let [before, _] = pair();
    let diff = compared(&before, &Profile::default(), None);
    let svg = String::from_utf8(written(&diff, Format::Svg)).unwrap();
    assert!(svg.contains("nothing is left"), "{svg}");
    assert!(table(&diff, |_| {}).contains("0 stacks grew, 0 of them new; 6 shrank, 6 of them gone"));
}

#[test]
fn totals_and_growers_are_those_of_the_table() {
    let [before, after] = pair();
    let diff = compared(&before, &after, None);
    let (first, second) = diff.totals(Metric::AllocBytes);
    assert_eq!(diff.growth(Metric::AllocBytes), change(first, second));
    assert_eq!(
        diff.growers(Metric::AllocBytes, 2),
        [
            "+2.0 MiB: server: malloc ← make_session ← main",
            "+2.0 KiB: server: malloc ← fresh ← main"
        ]
    );
    let few = table(&diff, |options| options.top = 1);
    assert!(few.contains("… and 2 more stacks with +2.6 KiB"), "{few}");
}

/// A profile of one stack.
fn with_frames(frames: Vec<Frame>, build_id: &str) -> Profile {
    let mut sample = SampleProfile::default();
    let process = sample.process(1, "p");
    sample.profile.objects.push(ObjectFile {
        path: "/lib/a.so".into(),
        build_id: Some(build_id.to_owned()),
        ..ObjectFile::default()
    });
    sample.profile.frames = frames;
    let indices: Vec<usize> = (0..sample.profile.frames.len()).collect();
    sample.heap(process, Function::Malloc, &indices, 1, 100);
    sample.profile
}

fn frame(name: FrameName, source: Option<(&str, u32)>, inlined: bool) -> Frame {
    Frame {
        name,
        source: source.map(|(file, line)| SourceLine {
            file: file.into(),
            line,
        }),
        inlined,
        object: Some(0),
    }
}

fn symbol(name: &str, source: Option<(&str, u32)>, inlined: bool) -> Frame {
    frame(FrameName::Symbol(name.into()), source, inlined)
}

fn offset(address: u64) -> Frame {
    let module = "a.so".into();
    frame(FrameName::Offset { module, address }, None, false)
}

fn is_same(before: Vec<Frame>, after: Vec<Frame>, builds: [&str; 2]) -> bool {
    let (before, after) = (with_frames(before, builds[0]), with_frames(after, builds[1]));
    !compared(&before, &after, None).has_changed(Metric::AllocBytes)
}

#[test]
fn builds_of_the_same_code_are_matched() {
    let other = ["1", "2"];
    let before = vec![
        symbol("main", Some(("/build/1/main.c", 10)), false),
        symbol("f", Some(("/build/1/a.c", 5)), true),
    ];
    let after = vec![
        symbol("main", Some(("/build/2/main.c", 12)), false),
        symbol("f", Some(("/build/2/a.c", 7)), false),
    ];
    assert!(is_same(before.clone(), after.clone(), other));
    // One of them without debug information.
    let bare = vec![symbol("main", None, false), symbol("f", None, false)];
    assert!(is_same(bare, after, other));
    // Names that are not of one function.
    let two = |file| {
        vec![
            symbol("init", Some(("/x/a.c", 1)), false),
            symbol("init", Some((file, 1)), false),
        ]
    };
    assert!(is_same(two("/x/b.c"), two("/y/b.c"), other));
    assert!(!is_same(two("/x/b.c"), two("/x/c.c"), other));
}

#[test]
fn addresses_matter_within_a_build() {
    let one = |address| vec![offset(address)];
    assert!(is_same(one(1), one(2), ["1", "2"]));
    assert!(!is_same(one(1), one(2), ["1", "1"]));
    assert!(is_same(one(1), one(1), ["1", "1"]));
    let unmapped = |address| vec![frame(FrameName::Unmapped(address), None, false)];
    assert!(is_same(unmapped(1), unmapped(2), ["1", "1"]));
}

#[test]
fn lengths_are_taken_into_account() {
    let scale = DiffScale {
        before_ns: 10,
        after_ns: 30,
    };
    assert_eq!(scale.apply(100), 300);
    assert_eq!(
        DiffScale {
            before_ns: 30,
            after_ns: 10
        }
        .apply(100),
        33
    );
    assert_eq!(scale.apply(u128::MAX / 2), u128::MAX);
    let mut sample = SampleProfile::default();
    let process = sample.process(1, "p");
    sample.heap(process, Function::Malloc, &[], 1, 100);
    let mut other = sample.profile.clone();
    other.stacks[0].values.bytes = 300;
    assert!(!compared(&sample.profile, &other, Some(scale)).has_changed(Metric::AllocBytes));
    assert!(compared(&sample.profile, &other, None).has_changed(Metric::AllocBytes));
}

#[test]
fn only_figures_that_both_have_are_compared() {
    let (one, other): (Session, Session) = (session(), {
        let mut session = session();
        session.settings.traced.heap = false;
        session
    });
    let profile = mixed();
    let diff = ProfileDiff::of(&source(&profile, &one), &source(&profile, &other), None);
    assert_eq!(diff.metrics(), [Metric::RegionBytes]);
}

#[test]
fn estimates_have_margins() {
    let [before, mut after] = pair();
    after.stacks[0].values.variances.bytes = 10_000 * 10_000;
    let text = table(&compared(&before, &after, None), |_| {});
    assert!(text.contains("+2.0 MiB  ±19.1 KiB"), "{text}");
}

#[test]
fn nothing_of_a_file_steers_a_terminal() {
    let mut sample = SampleProfile::default();
    let process = sample.process(0, "app\u{1b}[2J");
    let frame = sample.line("f\u{1b}]0;x\u{7}", "/src/a\u{1b}[31m.go\n", 12);
    sample.heap(process, Function::Malloc, &[frame], 1, 10);
    let diff = compared(&Profile::default(), &sample.profile, None);
    let name = |options: &mut DiffTableOptions| {
        options.by = DiffBy::Function;
        options.before = "a\u{1b}[2J".to_owned();
    };
    for text in [table(&diff, |_| {}), table(&diff, name), folded(&diff)] {
        assert!(text.chars().all(|it| it == '\n' || !it.is_control()), "{text:?}");
    }
}
