//! Ways of attaching probes: the same figures either way, hundreds of processes at once, addresses
//! that others hold.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{
    Account, Context, Count, Counts, Fixture, HeapFigures, Holder, Leftovers, Memtap, MemtapRecording, Need,
    Recipe, eventually, run,
};
use serde_json::Value;

use crate::case::{Case, case};
use crate::many_processes::{BIG_BYTES, ManyProcesses};
use crate::under_load::ProcessUnderLoad;

pub(crate) const CASES: &[Case] = &[
    case("attach::sums_each_way", &[Need::Compiler], sums_each_way),
    case("attach::live_each_way", &[Need::Compiler], live_each_way),
    case("attach::threads_each_way", &[Need::Compiler], threads_each_way),
    case(
        "attach::beside_probes_of_returns",
        &[Need::Compiler],
        beside_probes_of_returns,
    ),
    case(
        "attach::two_hundred_processes",
        &[Need::Compiler],
        two_hundred_processes,
    ),
    case(
        "attach::held_address",
        &[Need::Compiler, Need::StaticLibc],
        held_address,
    ),
];

/// The ways that this kernel has. Of the one that it may lack memtap says so in one line.
fn ways(context: &Context) -> Result<Vec<&'static str>> {
    let doctor = Memtap::bare(context)?.argument("doctor").run()?;
    let has_links = doctor
        .finished
        .stdout
        .lines()
        .any(|line| line.starts_with("yes") && line.contains("links of many uprobes"));
    if has_links {
        return Ok(vec!["multi", "perf"]);
    }
    Memtap::record(context)?
        .arguments(["--attach", "multi"])
        .command(["true"])
        .run()?
        .refused(1, &["links of many uprobes", "6.6"])?;
    Ok(vec!["perf"])
}

fn sums_each_way(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "functions")?;
    for way in ways(context)? {
        let recording = Memtap::record(context)?
            .arguments(["--attach", way])
            .fixture(&fixture)
            .run()?
            .whole()?;
        recording
            .has_functions(&recording.reported()?.functions())
            .with_context(|| format!("--attach {way}"))?;
    }
    Ok(())
}

fn live_each_way(context: &Context) -> Result<()> {
    for name in ["family", "failures", "resizing"] {
        let fixture = Recipe::live_c(name).build(context)?;
        for way in ways(context)? {
            let recording = Memtap::record(context)?
                .arguments(["--live", "--attach", way])
                .fixture(&fixture)
                .run()?
                .whole()?;
            let accounts = Account::parse_all(&recording.finished.stdout)?;
            let process = recording.summary()?.process(accounts[0].pid, name)?;
            if let Some(difference) = accounts[0].difference(&HeapFigures::parse(&process.totals)?)? {
                anyhow::bail!("{name} with --attach {way} is not what it tells:\n{difference}");
            }
        }
    }
    Ok(())
}

/// Another tracer has probes at the returns of the same functions, which take the place of return
/// addresses on the stack: calls are counted once, and have their stacks, all the same.
fn beside_probes_of_returns(context: &Context) -> Result<()> {
    let target = ProcessUnderLoad::start(context)?;
    let fixture = Recipe::live_c("family").build(context)?;
    let stacks = |context| -> Result<String> {
        let recording = Memtap::record(context)?.arguments(["--live"]).fixture(&fixture);
        Ok(recording.run()?.whole()?.folded()?.text.clone())
    };
    let alone = stacks(context)?;
    // Of every process, since it may have children.
    let mut other = Memtap::record(context)?
        .arguments(["--live", "--probes", "two", "--follow", "--max-overhead", "off"])
        .process(target.pid())
        .start()?;
    other.wait_until_tracing()?;
    let beside = stacks(context)?;
    ensure!(
        beside == alone,
        "stacks beside another tracer:\n{beside}\nand without one:\n{alone}"
    );
    sums_each_way(context)?;
    live_each_way(context)?;
    other.signal("INT")?;
    other.finish()?;
    target.stop(context)
}

/// A process whose main thread waits and whose others allocate: a probe of one process is one of
/// all its threads, and of no other process that runs the same.
fn threads_each_way(context: &Context) -> Result<()> {
    let target = ProcessUnderLoad::start(context)?;
    let other = ProcessUnderLoad::start(context)?;
    for way in ways(context)? {
        let recording = Memtap::record(context)?
            .arguments(["--attach", way, "-d", "300ms"])
            .process(target.pid())
            .run()?
            .whole()?;
        let summary = recording.summary()?;
        let calls = summary.process(target.pid(), "under_load")?.functions["malloc"].calls;
        ensure!(calls > 0, "no call of a thread with --attach {way}");
        // The kernel itself leaves the other process out.
        ensure!(
            summary.number("/events/foreign")? == 0,
            "another process pays with --attach {way}"
        );
    }
    target.stop(context)?;
    other.stop(context)
}

/// The number of processes.
const MANY: usize = 200;

/// The time that it should take to attach to them, or to end the recording, and how long it may on
/// a machine that is busy.
const SHOULD: Duration = Duration::from_secs(2);
const MAY: Duration = Duration::from_secs(6);

/// The longest pause that a process may have between two turns: one that is stopped or waits for a
/// lock stands still for the whole of it; a machine that runs 200 processes and a test on two CPUs
/// has pauses of its own.
const PAUSE_MAY: Duration = Duration::from_secs(2);

/// The time that the kernel may take to let go after a kill.
const RELEASE_MAY: Duration = Duration::from_secs(20);

fn two_hundred_processes(context: &Context) -> Result<()> {
    let before = Leftovers::now(context)?;
    let mut many = ManyProcesses::start(context, MANY)?;
    let pause_alone = many.longest();
    let pids = many.pids();

    let began = Instant::now();
    let mut session = Memtap::record(context)?
        .arguments(["-p", &pids, "--min-size", "1000"])
        .start()?;
    session.wait_until_tracing()?;
    let attaching = began.elapsed();
    many.make_big()?;
    many.advances()?;
    let ended = Instant::now();
    session.signal("INT")?;
    let recording = session.finish()?.whole()?;
    let ending = ended.elapsed();
    let summary = recording.summary()?;
    for (number, member) in many.members().iter().enumerate() {
        let number = number as u64;
        let calls = number + 10;
        let bytes = calls * (BIG_BYTES + number);
        let expected = Counts::from([("malloc".to_owned(), Count { calls, bytes })]);
        let process = summary.process(member.pid, "many_processes")?;
        ensure!(
            process.functions == expected,
            "child {number}: {:?} instead of {expected:?}",
            process.functions
        );
    }
    many.advances()?;

    let mut session = Memtap::record(context)?
        .arguments(["--live", "-p", &pids])
        .start()?;
    session.wait_until_tracing()?;
    session.signal("KILL")?;
    let killed = Instant::now();
    session.finish()?.ended_with(137)?;
    let mut left = Vec::new();
    let is_clean = eventually(RELEASE_MAY, || {
        left = Leftovers::now(context)?.since(&before);
        Ok(left.is_empty())
    })?;
    ensure!(is_clean, "BPF objects are left: {left:?}");
    let releasing = killed.elapsed();
    many.advances()?;

    let pause = many.longest();
    many.stop()?;
    let figures = format!(
        "attached in {attaching:.1?}, ended in {ending:.1?}, after a kill all gone in {releasing:.1?}, \
         longest pause {pause:.0?} ({pause_alone:.0?} before)"
    );
    ensure!(attaching < MAY && ending < MAY, "too slow: {figures}");
    ensure!(pause < PAUSE_MAY, "processes were held up: {figures}");
    let verdict = if attaching < SHOULD && ending < SHOULD {
        "as it should be"
    } else {
        "slower than it should be: the machine may be busy"
    };
    eprintln!("attach::two_hundred_processes: {verdict}: {figures}");
    Ok(())
}

/// Returns what a probe of the fixture's `calloc` is: where, and whether it must be single-stepped.
fn calloc_probe(recording: &MemtapRecording) -> Result<(u64, bool)> {
    let summary = recording.summary()?;
    let probe = probe_of(&summary.json, "calloc", "entry")?.context("no probe of calloc")?;
    Ok((offset(probe)?, probe["single_stepped"] == true))
}

/// Returns where a function's first probe of a kind is.
fn offset_of(recording: &MemtapRecording, symbol: &str, kind: &str) -> Result<Option<u64>> {
    let summary = recording.summary()?;
    probe_of(&summary.json, symbol, kind)?.map(offset).transpose()
}

fn probe_of<'a>(summary: &'a Value, symbol: &str, kind: &str) -> Result<Option<&'a Value>> {
    let probes = summary["probes"].as_array().context("no probes")?;
    let mut probes = probes.iter();
    Ok(probes.find(|probe| probe["symbol"] == symbol && probe["kind"] == kind))
}

fn offset(probe: &Value) -> Result<u64> {
    let offset = probe["offset"].as_str().context("no offset")?;
    Ok(u64::from_str_radix(offset.trim_start_matches("0x"), 16)?)
}

/// An address that another tracer holds with a reference counter: the kernel refuses it to everyone
/// without. The next place of the function does as well; for its return there may be none, and
/// memtap says who is in the way.
fn held_address(context: &Context) -> Result<()> {
    let fixture = Recipe::c("held")
        .named("held")
        .flags(["-static"])
        .build(context)?;
    let mut tell = fixture.command();
    tell.arg("where");
    let reported = run(tell)?.succeeded()?;
    let counter: u64 = reported.stdout.trim().parse()?;
    for way in ways(context)? {
        let record = |live: &[&str]| -> Result<MemtapRecording> {
            Memtap::record(context)?
                // Of a process alone there are links of many probes only.
                .arguments(["--attach", way, "--scope", "machine"])
                .arguments(live)
                .fixture(&fixture)
                .run()
        };
        let has_all = |recording: &MemtapRecording| -> Result<()> {
            // The C library's own calls at the start are others' stacks.
            let folded = recording.folded()?;
            let bytes =
                |function: &str| folded.weight_of(|line| line.function == function && line.passes("calls"));
            let found = (bytes("calloc"), bytes("malloc"));
            ensure!(found == (1500, 350), "{found:?} in:\n{}", folded.text);
            Ok(())
        };
        let free = record(&[])?.whole()?;
        has_all(&free)?;
        let (offset, is_stepped) = calloc_probe(&free)?;
        ensure!(!is_stepped, "calloc is single-stepped at {offset:#x}");

        let holder = Holder::start(context, &fixture.path, offset, counter)?;
        let held = record(&[])?.ended_with(93)?;
        held.summary()?.lost_nothing()?;
        has_all(&held).with_context(|| format!("held at {offset:#x}, --attach {way}"))?;
        let (other, is_stepped) = calloc_probe(&held)?;
        ensure!(
            other != offset && !is_stepped,
            "calloc was held at {offset:#x}, and is at {other:#x}, single-stepped: {is_stepped}"
        );
        record(&["--live", "--probes", "two"])?.refused(1, &["calloc", "another tracer", "held"])?;
        drop(holder);

        let free = record(&["--live", "--probes", "two"])?.whole()?;
        has_all(&free)?;

        // Of a function that is met inside, each place may be the one of a call: they are left
        // together.
        let inside = record(&["--live"])?.whole()?;
        has_all(&inside)?;
        let offset = offset_of(&inside, "calloc", "single")?.context("calloc is not met inside")?;
        let holder = Holder::start(context, &fixture.path, offset, counter)?;
        let held = record(&["--live"])?.ended_with(93)?;
        held.summary()?.lost_nothing()?;
        has_all(&held).with_context(|| format!("held at {offset:#x} inside, --attach {way}"))?;
        for (kind, is_expected) in [("single", false), ("entry", true), ("return", true)] {
            ensure!(
                offset_of(&held, "calloc", kind)?.is_some() == is_expected,
                "calloc was held inside; is it probed as {kind}: {}",
                !is_expected
            );
        }
        drop(holder);
    }
    Ok(())
}
