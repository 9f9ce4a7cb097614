//! Pages of small profiles, of hostile names, and of many stacks.

use std::time::Duration;

use serde_json::Value;
use tracer_ebpf::{Function, StackEnd};

use super::*;
use crate::profile::{Aged, FrameName, Metric, ObjectFile, Profile, Session, Values};
use crate::report::golden;
use crate::report::sample::{SampleProfile, mixed, options, session, source};
use crate::report::source::{ForeignFacts, Origin, ReportView};

fn page(profile: &Profile, session: &Session) -> String {
    let mut out = Vec::new();
    write(&source(profile, session), options(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The block of data, as it stands in the page.
fn block(page: &str) -> &str {
    let (_, rest) = page
        .split_once("<script type=\"application/json\" id=\"data\">")
        .unwrap();
    rest.split_once("</script>").unwrap().0
}

fn data(profile: &Profile, session: &Session) -> Value {
    serde_json::from_str(block(&page(profile, session))).unwrap()
}

fn numbers(value: &Value) -> Vec<usize> {
    let numbers = value.as_array().unwrap().iter().map(|it| it.as_i64().unwrap());
    numbers
        .map(|it| usize::try_from(it).unwrap_or(usize::MAX))
        .collect()
}

/// The stacks of a block as folded lines, with their weights by one metric: as its script reads
/// them.
fn folded(data: &Value, metric: usize) -> Vec<(String, u64)> {
    let strings = data["strings"].as_array().unwrap();
    let names = numbers(&data["frames"]["name"]);
    let stacks = &data["stacks"];
    let [process, function, walk, shared, added, frames] =
        ["process", "function", "walk", "shared", "added", "frames"].map(|it| numbers(&stacks[it]));
    let weights = data["metrics"][metric]["weights"].as_array().unwrap();
    let mut path: Vec<usize> = Vec::new();
    let mut next = frames.into_iter();
    let mut lines = Vec::new();
    for index in 0..process.len() {
        path.truncate(shared[index]);
        path.extend(next.by_ref().take(added[index]));
        let mut line = vec![
            data["processes"][process[index]]["root"]
                .as_str()
                .unwrap()
                .to_owned(),
        ];
        match walk[index] {
            1 => line.push("[truncated]".to_owned()),
            2 => line.push("[stack lost]".to_owned()),
            _ => {}
        }
        line.extend(
            path.iter()
                .map(|frame| strings[names[*frame]].as_str().unwrap().replace(';', ":")),
        );
        line.push(data["functions"][function[index]].as_str().unwrap().to_owned());
        lines.push((line.join(";"), weights[index].as_u64().unwrap()));
    }
    lines
}

#[test]
fn data_of_a_mixed_profile() {
    golden::check("mixed.page.json", || {
        let mut text = serde_json::to_string_pretty(&data(&mixed(), &session())).unwrap();
        text.push('\n');
        text
    });
}

#[test]
fn stacks_are_those_of_the_folded_file() {
    let data = data(&mixed(), &session());
    for (index, metric) in [Metric::AllocBytes, Metric::AllocCount, Metric::RegionBytes]
        .into_iter()
        .enumerate()
    {
        assert_eq!(data["metrics"][index]["name"], metric.name());
        let mut sums = std::collections::BTreeMap::<String, u64>::new();
        for (line, weight) in folded(&data, index) {
            *sums.entry(line).or_default() += weight;
        }
        let mut lines: Vec<String> = sums
            .into_iter()
            .filter(|(_, weight)| *weight > 0)
            .map(|(line, weight)| format!("{line} {weight}"))
            .collect();
        lines.sort();
        let mut out = Vec::new();
        let options = ExportOptions {
            metric,
            per_pid: false,
        };
        crate::report::folded::write(&mixed(), options, &mut out).unwrap();
        let expected = String::from_utf8(out).unwrap();
        let expected: Vec<&str> = expected.lines().filter(|line| !line.ends_with(" 0")).collect();
        assert_eq!(lines, expected, "{}", metric.name());
    }
}

#[test]
fn equal_profiles_give_equal_pages() {
    let mut other = mixed();
    other.stacks.reverse();
    assert_eq!(page(&mixed(), &session()), page(&mixed(), &session()));
    assert_eq!(page(&mixed(), &session()), page(&other, &session()));
}

/// Names that would be markup, a script or an escape anywhere but in an escaped string.
const HOSTILE: [&str; 6] = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    "\"};alert(1);//\u{2028}",
    "&lt;/title&gt;</title><script>alert(1)</script>",
    "{{script}}",
];

#[test]
fn hostile_names_stay_text() {
    let plain = page(&mixed(), &session());
    let count = |page: &str, word: &str| page.to_lowercase().matches(word).count();
    for name in HOSTILE {
        let mut sample = SampleProfile::default();
        let process = sample.process(1, name);
        let symbol = sample.line(name, name, 3);
        let module = sample.frame(
            FrameName::Offset {
                module: name.into(),
                address: 16,
            },
            None,
            false,
        );
        sample.profile.frames[symbol].object = Some(0);
        sample.profile.objects = vec![ObjectFile {
            path: name.into(),
            ..ObjectFile::default()
        }];
        sample.profile.processes[process].exe = Some(name.into());
        sample.heap(process, Function::Malloc, &[symbol, module], 1, 8);
        let mut session = session();
        session.kernel = name.to_owned();
        session.settings.unwind = name.to_owned();
        let page = page(&sample.profile, &session);
        for word in ["<script", "</script", "<!--", "<img", "</title"] {
            assert_eq!(count(&page, word), count(&plain, word), "{word} of {name}");
        }
        assert!(!block(&page).contains(['<', '>', '&', '\u{2028}', '\u{2029}']));
        let data: Value = serde_json::from_str(block(&page)).unwrap();
        let shown = crate::message::escape::one_line(name).into_owned();
        assert_eq!(data["processes"][0]["root"], shown);
        assert!(data["strings"].as_array().unwrap().contains(&shown.into()));
    }
}

#[test]
fn sites_and_classes_are_those_of_own_code() {
    let mut sample = SampleProfile::default();
    let process = sample.process(1, "p");
    let frames = ["main", "alloc::vec::Vec<T,A>::push"].map(|it| sample.line(it, "/a.rs", 7));
    sample.heap(process, Function::Malloc, &frames, 1, 8);
    sample.stack(process, Function::Malloc, &[], None).bytes = 1;
    let data = data(&sample.profile, &session());
    let names = numbers(&data["frames"]["name"]);
    let main = names
        .iter()
        .position(|it| data["strings"][*it] == "main")
        .unwrap();
    assert_eq!(data["frames"]["class"][main], 0);
    assert_eq!(data["frames"]["class"][1 - main], 1);
    let sites = numbers(&data["stacks"]["site"]);
    assert!(sites.contains(&main) && sites.contains(&usize::MAX), "{sites:?}");
}

#[test]
fn live_blocks_have_ages_and_histograms() {
    let mut sample = SampleProfile::default();
    let process = sample.process(1, "p");
    let frame = sample.symbol("f");
    sample.heap(process, Function::Malloc, &[frame], 10, 640);
    let heap = &mut sample.profile.stacks[0].values.heap;
    heap.aged = Aged {
        live: 4,
        live_bytes: 256,
        kept: 2,
        oldest_ns: 2_500_000_000,
        half_live: 3,
        marks_bytes: [64, 128, 192],
        ..Aged::default()
    };
    heap.sizes[6] = 10;
    heap.lifetimes[0] = 1;
    heap.lifetimes[20] = 4;
    let mut session = session();
    assert_eq!(data(&sample.profile, &session).get("aged"), None);
    assert_eq!(data(&sample.profile, &session).get("histograms"), None);

    session.settings.traced.live = true;
    sample.profile.has_ages = true;
    let block = data(&sample.profile, &session);
    assert_eq!(block["aged"]["marks"], Value::Null);
    assert_eq!(block["aged"]["oldest_ms"], serde_json::json!([2500]));
    assert_eq!(block["histograms"]["sizes"], serde_json::json!([1, 6, 10]));
    assert_eq!(
        block["histograms"]["lifetimes"],
        serde_json::json!([2, 0, 1, 20, 4])
    );
    sample.profile.marks = Some(crate::profile::Marks {
        at: [1, 2, 3].map(Duration::from_secs),
        end: Duration::from_secs(4),
    });
    let block = data(&sample.profile, &session);
    assert_eq!(block["aged"]["marks"], serde_json::json!([1.0, 2.0, 3.0, 4.0]));
    assert_eq!(
        block["aged"]["marks_bytes"],
        serde_json::json!([[64], [128], [192]])
    );
}

#[test]
fn estimates_have_variances() {
    let mut profile = mixed();
    profile.sample_bytes = Some(512 << 10);
    for stack in &mut profile.stacks {
        stack.values.variances.bytes = u128::from(stack.values.bytes) * 524_288;
    }
    let mut session = session();
    session.settings.traced.sampled = true;
    session.settings.sample_bytes = 512 << 10;
    let block = data(&profile, &session);
    let [weights, variances] = ["weights", "variances"].map(|it| block["metrics"][0][it].as_array().unwrap());
    assert_eq!(weights.len(), variances.len());
    for (weight, variance) in weights.iter().zip(variances) {
        let [weight, variance] = [weight, variance].map(|it| it.as_f64().unwrap());
        assert!(
            (variance - weight * 524_288.0).abs() <= variance * 0.006,
            "{weight} {variance}"
        );
    }
    // How sure those are is not known.
    assert_eq!(block["metrics"][2]["name"], "region-bytes");
    assert_eq!(block["metrics"][2].get("variances"), None);
    assert!(block["facts"].to_string().contains("one sample per 512.0 KiB"));
}

#[test]
fn losses_are_facts() {
    let block = data(&mixed(), &session());
    assert_eq!(block["lost"], 7);
    let facts = block["facts"].to_string();
    assert!(
        facts.contains("Lost: 7 calls without a stack (no scratch slot free)"),
        "{facts}"
    );
    let mut quiet = session();
    quiet.losses = crate::profile::Losses::default();
    assert!(!facts.contains("figures are exact"), "{facts}");
    assert!(
        data(&mixed(), &quiet)["facts"]
            .to_string()
            .contains("Nothing lost.")
    );
}

#[test]
fn nothing_is_a_page_too() {
    let block = data(&Profile::default(), &session());
    assert_eq!(block["stacks"]["process"], serde_json::json!([]));
}

/// A profile of this many different stacks, of some 40 frames each.
fn large(stacks: usize) -> Profile {
    let mut sample = SampleProfile::default();
    let process = sample.process(1, "large");
    let frames: Vec<usize> = (0..5000)
        .map(|it| {
            let name = format!("application::module_{}::function_{it}", it % 100);
            sample.line(&name, &format!("/src/application/module_{}.rs", it % 100), 7)
        })
        .collect();
    let mut random = 1_u64;
    let mut next = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 40).unwrap()
    };
    for _ in 0..stacks {
        let depth = 20 + next() % 40;
        // Outer frames are few, inner ones many.
        let stack: Vec<usize> = (0..depth)
            .map(|level| frames[(level * 97 + next() % (1 + level / 4)) % frames.len()])
            .collect();
        let values = Values {
            calls: u64::try_from(next() % 1000).unwrap(),
            bytes: u64::try_from(next()).unwrap(),
            ..Values::default()
        };
        *sample.stack(process, Function::Malloc, &stack, Some(StackEnd::Complete)) = values;
        let heap = &mut sample.profile.stacks.last_mut().unwrap().values.heap;
        heap.sizes[next() % 20] = 9;
        heap.lifetimes[next() % 20] = 9;
        heap.freed_bytes = values.bytes / 3;
        heap.aged.live_bytes = values.bytes / 2;
    }
    sample.profile.has_ages = true;
    sample.profile
}

#[test]
fn many_stacks_are_compact() {
    let mut session = session();
    session.settings.traced.live = true;
    let page = page(&large(5000), &session);
    // 50,000 stacks are to be below 20 MB.
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
}

#[test]
fn a_writer_that_fails_is_an_error() {
    let mut out: &mut [u8] = &mut [0; 4];
    let error = write(&source(&mixed(), &session()), options(), &mut out).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
}

#[test]
fn expressions_of_the_user_tell_own_code() {
    let mut sample = SampleProfile::default();
    let process = sample.process(1, "p");
    let frames = ["main", "mylib::make"].map(|it| sample.symbol(it));
    sample.heap(process, Function::Malloc, &frames, 1, 8);
    let session = session();
    let mut view = ReportView::new(Metric::AllocBytes);
    view.table.hide = Some("^mylib::".to_owned());
    let mut source = source(&sample.profile, &session);
    source.view = &view;
    let mut out = Vec::new();
    write(&source, options(), &mut out).unwrap();
    let data: Value = serde_json::from_str(block(&String::from_utf8(out).unwrap())).unwrap();
    let site = numbers(&data["stacks"]["site"])[0];
    let name = numbers(&data["frames"]["name"])[site];
    assert_eq!(data["strings"][name], "main");

    // A file that was changed may have any.
    let mut changed = view.clone();
    changed.table.hide = Some("(".to_owned());
    source.view = &changed;
    let error = write(&source, options(), &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn profiles_of_other_programs_have_pages() {
    let profile = mixed();
    let session = session();
    let facts = ForeignFacts {
        metrics: vec![Metric::AllocBytes, Metric::LiveBytes],
        period_bytes: 512 << 10,
        comments: vec!["<b>\u{1b}".to_owned()],
        ..ForeignFacts::default()
    };
    let mut source = source(&profile, &session);
    source.origin = Origin::Foreign(&facts);
    let mut out = Vec::new();
    write(&source, options(), &mut out).unwrap();
    let data: Value = serde_json::from_str(block(&String::from_utf8(out).unwrap())).unwrap();
    assert_eq!((&data["duration"], &data["lost"]), (&Value::Null, &Value::Null));
    assert_eq!(data["metrics"].as_array().unwrap().len(), 2);
    assert_eq!(data.get("histograms"), None);
    let facts = data["facts"].to_string();
    for words in ["its losses are not known", "one sample per 512.0 KiB", "<b>"] {
        assert!(facts.contains(words), "{facts}");
    }
}
