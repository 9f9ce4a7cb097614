//! Fixtures that tell their own figures, under memtap.

use std::ffi::OsString;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{
    ARMS, Account, Context, HeapFigures, LIMIT, Memtap, MemtapRecording, Need, Recipe, RunningProgram,
};

use super::compare::{memtap_agrees, words};
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("live::family", &[Need::Compiler], |context| {
        one(context, "family")
    }),
    case("live::failures", &[Need::Compiler], |context| {
        one(context, "failures")
    }),
    case("live::temporary", &[Need::Compiler], |context| {
        one(context, "temporary")
    }),
    case("live::resizing", &[Need::Compiler], |context| {
        one(context, "resizing")
    }),
    case("live::handover", &[Need::Compiler], |context| {
        one(context, "handover")
    }),
    case("live::locals", &[Need::Compiler], |context| {
        one(context, "locals")
    }),
    case("live::handlers", &[Need::Compiler], |context| {
        one(context, "handlers")
    }),
    case("live::jumps", &[Need::Compiler], |context| one(context, "jumps")),
    case("live::sudden", &[Need::Compiler], |context| {
        one(context, "sudden")
    }),
    case("live::forked", &[Need::Compiler], |context| {
        one(context, "forked")
    }),
    case("live::inherited", &[Need::Compiler], |context| {
        one(context, "inherited")
    }),
    case("live::inherited_executed", &[Need::Compiler], |context| {
        memtap_agrees(context, &inherited_executed(context)?, 3).map(drop)
    }),
    case("live::storm", &[Need::Compiler], |context| one(context, "storm")),
    case("live::executed", &[Need::Compiler], |context| {
        memtap_agrees(context, &executed(context)?, 3).map(drop)
    }),
    case("live::attached", &[Need::Compiler], attached),
    case("live::missed_free", &[Need::Compiler], missed_free),
    case("live::one_probe", &[Need::Compiler], one_probe),
    case("live::same_each_way", &[Need::Compiler], same_each_way),
];

/// The fixture, its arguments, and how it ends.
type Row = (&'static str, &'static [&'static str], i32);

/// Those that need nothing beside their arguments.
pub(crate) const FIXTURES: &[Row] = &[
    ("family", &[], 0),
    ("failures", &[], 0),
    ("temporary", &[], 0),
    ("resizing", &[], 0),
    ("handover", &[], 0),
    ("locals", &[], 0),
    ("handlers", &[], 0),
    ("jumps", &[], 0),
    ("sudden", &["exit"], 6),
    ("sudden", &["exit_now"], 5),
    ("sudden", &["abort"], 134),
    ("sudden", &["kill"], 137),
    ("sudden", &["segv"], 139),
    ("sudden", &["trap"], 132),
    ("sudden", &["exit_now", "thread"], 5),
    ("sudden", &["kill", "thread"], 137),
    ("forked", &[], 0),
    ("inherited", &["two"], 0),
    ("inherited", &["chain"], 0),
    ("inherited", &["orphan"], 0),
    ("storm", &[], 0),
];

fn one(context: &Context, name: &str) -> Result<()> {
    let fixture = Recipe::live_c(name).build(context)?;
    let mut failures = Vec::new();
    for (_, arguments, code) in FIXTURES.iter().filter(|row| row.0 == name) {
        if let Err(error) = memtap_agrees(context, &words(&fixture, arguments), *code) {
            failures.push(format!("{name} {}: {error:#}", arguments.join(" ")));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// A program that executes itself under another name, so that its images can be told apart.
pub(crate) fn executed(context: &Context) -> Result<Vec<OsString>> {
    let before = Recipe::live_c("executed").build(context)?;
    let after = Recipe::live_c("executed").named("after").build(context)?;
    Ok(words(&before, &[&after.path]))
}

/// A parent that executes another program while its child still has copies of its blocks.
pub(crate) fn inherited_executed(context: &Context) -> Result<Vec<OsString>> {
    let parent = Recipe::live_c("inherited").build(context)?;
    let after = Recipe::live_c("executed").named("after").build(context)?;
    Ok(words(&parent, &[OsString::from("executed"), after.path.into()]))
}

/// Blocks that were made before memtap came are no blocks to it; their frees are counted as
/// unmatched.
fn attached(context: &Context) -> Result<()> {
    for arm in ARMS {
        attached_by(context, arm).with_context(|| format!("--probes {arm}"))?;
    }
    Ok(())
}

fn attached_by(context: &Context, arm: &str) -> Result<()> {
    let fixture = Recipe::live_c("attached").build(context)?;
    let target = RunningProgram::start(fixture.command())?;
    let mut session = Memtap::record(context)?
        .arguments(["--live", "--probes", arm])
        .process(target.pid())
        .start()?;
    session.wait_until_tracing()?;
    context.signal(target.pid(), "USR1")?;
    let finished = target.finish(LIMIT)?.succeeded()?;
    let recording = session.finish()?.whole()?;
    let accounts = Account::parse_all(&finished.stdout)?;
    let process = recording.summary()?.process(accounts[0].pid, "attached")?;
    if let Some(difference) = accounts[0].difference(&HeapFigures::parse(&process.totals)?)? {
        anyhow::bail!("not what the fixture tells:\n{difference}");
    }
    Ok(())
}

/// An address that is allocated twice: the new block stands, and the free in between is said to be
/// missed. Children are left out, so that the one that gives the block back is nobody's.
fn missed_free(context: &Context) -> Result<()> {
    for arm in ARMS {
        missed_free_by(context, arm).with_context(|| format!("--probes {arm}"))?;
    }
    Ok(())
}

fn missed_free_by(context: &Context, arm: &str) -> Result<()> {
    let fixture = Recipe::live_c("missed").build(context)?;
    let recording = Memtap::record(context)?
        .arguments(["--live", "--no-follow", "--probes", arm])
        .fixture(&fixture)
        .run()?
        .whole()?;
    let summary = recording.summary()?;
    for (figure, expected) in [
        ("functions/free/missed", 1),
        ("functions/free/unmatched", 0),
        ("alloc/count", 2),
        ("live/count", 1),
        ("live/bytes", 104),
        ("peak/bytes", 104),
    ] {
        let found = summary.number(&format!("/totals/{figure}"))?;
        ensure!(found == expected, "{figure} is {found}, not {expected}");
    }
    Ok(())
}

/// `malloc` or `calloc` of this machine's libc is met inside; each call by one hit, or by two where
/// its size is not kept.
fn one_probe(context: &Context) -> Result<()> {
    let fixture = Recipe::live_c("temporary").build(context)?;
    let record = |arm: &str| -> Result<MemtapRecording> {
        let arguments = ["--live", "--no-follow", "--probes", arm];
        let recording = Memtap::record(context)?.arguments(arguments).fixture(&fixture);
        recording.run()?.whole()
    };
    let (one, two) = (record("one")?, record("two")?);
    let kinds = |recording: &MemtapRecording, wanted: &str| -> Result<usize> {
        let probes = recording.summary()?.json["probes"].as_array().cloned();
        let probes = probes.context("the summary lists no probes")?;
        Ok(probes.iter().filter(|probe| probe["kind"] == wanted).count())
    };
    ensure!(kinds(&one, "single")? > 0, "no call is met inside its function");
    ensure!(
        kinds(&one, "request")? == 0 || kinds(&one, "result")? > 0,
        "requests are met, and no results"
    );
    ensure!(
        kinds(&two, "single")? == 0 && kinds(&two, "return")? > 0,
        "--probes two meets calls inside their functions"
    );
    one.has_functions(&two.summary()?.functions()?)
}

/// Each stack has the same figures whichever way its calls are met.
fn same_each_way(context: &Context) -> Result<()> {
    const METRICS: [&str; 3] = ["alloc-count", "live-bytes", "temporary-count"];
    for name in ["family", "failures", "temporary", "resizing", "locals"] {
        let fixture = Recipe::live_c(name).build(context)?;
        let files_of = |arm: &str| -> Result<Vec<String>> {
            let outputs = METRICS.iter().map(|metric| format!("-o{metric}={metric}.folded"));
            let recording = Memtap::record(context)?
                .arguments(["--live", "--probes", arm])
                .arguments(outputs)
                .fixture(&fixture)
                .run()?
                .whole()?;
            let read = |metric: &&str| {
                let file = recording.directory().join(format!("{metric}.folded"));
                Ok(std::fs::read_to_string(file)?)
            };
            METRICS.iter().map(read).collect()
        };
        let (inside, outside) = (files_of("auto")?, files_of("two")?);
        for (metric, (inside, outside)) in METRICS.iter().zip(inside.iter().zip(&outside)) {
            ensure!(!inside.is_empty(), "{name} has no stacks");
            ensure!(
                inside == outside,
                "{name}, {metric}, --probes auto:\n{inside}\n--probes two:\n{outside}"
            );
        }
    }
    Ok(())
}
