//! `memtap live`: what it ranks first, what it counts, when it fails.

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Fixture, Memtap, MemtapRecording, Need, RecordingSummary};
use serde_json::Value;

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("live_report::leak_first", &[Need::Compiler], leak_first),
    case("live_report::fail_if_growth", &[Need::Compiler], fail_if_growth),
    case("live_report::older_than", &[Need::Compiler], older_than),
    case("live_report::interval", &[Need::Compiler], interval),
    case("live_report::max_blocks", &[Need::Compiler], max_blocks),
    case("live_report::ended_processes", &[Need::Compiler], ended_processes),
    case("live_report::live_columns", &[Need::Compiler], live_columns),
    case("live_report::wrong_usage", &[], wrong_usage),
];

/// `memtap live` with a summary, on the fixture that holds memory in these ways.
fn live(context: &Context, options: &[&str], holding: &[&str]) -> Result<MemtapRecording> {
    let fixture = Fixture::c(context, "holding")?;
    let mut command = vec![fixture.path.as_os_str()];
    command.extend(holding.iter().map(std::ffi::OsStr::new));
    Memtap::bare(context)?
        .arguments(["live", "--summary", "live.json"])
        .arguments(options)
        .command(command)
        .run()
}

/// Returns what it has written.
fn summary(recording: &MemtapRecording) -> Result<RecordingSummary> {
    RecordingSummary::parse(&std::fs::read_to_string(recording.directory().join("live.json"))?)
}

/// The stack of the summary that this function of the fixture has made.
fn stack(recording: &MemtapRecording, function: &str) -> Result<Value> {
    let summary = summary(recording)?;
    let stacks = summary.json["top_stacks"]
        .as_array()
        .context("the summary has no top stacks")?;
    let passes = |stack: &&Value| {
        let mut frames = stack["frames"].as_array().into_iter().flatten();
        frames.any(|frame| frame["function"] == function)
    };
    stacks
        .iter()
        .find(passes)
        .cloned()
        .with_context(|| format!("no stack passes {function}"))
}

fn number(stack: &Value, field: &str) -> Result<i64> {
    stack[field]
        .as_i64()
        .with_context(|| format!("no {field} in {stack}"))
}

fn leak_first(context: &Context) -> Result<()> {
    let recording = live(context, &["-d", "6s"], &["7"])?.ended_with(0)?;
    let report = &recording.finished.stdout;
    let mut lines = report
        .lines()
        .skip_while(|line| !line.trim_end().ends_with("SITE"));
    let header = lines.next().with_context(|| format!("no table: {report}"))?;
    for name in ["LIVE", "BLOCKS", "OLDEST", "GROWTH", "SCORE"] {
        ensure!(header.contains(name), "no column {name}: {header}");
    }
    let first = lines.next().context("the table is empty")?;
    ensure!(
        first.contains("leak_block"),
        "another stack is above the leak:\n{report}"
    );
    ensure!(
        report.contains("UNMATCHED") && report.contains("lifetimes"),
        "{report}"
    );

    let leak = stack(&recording, "leak_block")?;
    let score = number(&leak, "score")?;
    ensure!(score > 100_000, "the leak scores {score}");
    for other in ["cache_block", "start_block", "tooth_block"] {
        let stack = stack(&recording, other)?;
        let its = number(&stack, "score")?;
        ensure!(its * 10 < score, "{other} scores {its}, the leak {score}");
    }
    ensure!(
        leak["oldest_s"].as_f64().is_some_and(|oldest| oldest > 4.0),
        "{leak}"
    );
    // Blocks of 1000 bytes, none of which was given back.
    let blocks = number(&leak, "live_blocks")?;
    ensure!(number(&leak, "live_bytes")? == blocks * 1000, "{leak}");
    ensure!(leak["sizes"][9] == blocks, "512 to 1023 bytes: {leak}");
    let start = stack(&recording, "start_block")?;
    ensure!(number(&start, "growth_bytes")? == 0, "{start}");
    let cache = stack(&recording, "cache_block")?;
    let evicted: u64 = cache["lifetimes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .sum();
    ensure!(evicted > 0, "blocks of the cache were given back: {cache}");

    let summary = summary(&recording)?;
    let live = &summary.json["live"];
    let half = live["half_way"]["at_s"].as_f64().context("no half-way mark")?;
    ensure!((2.0..4.5).contains(&half), "half-way was at {half}");
    let half_bytes = number(&live["half_way"], "bytes")?;
    ensure!(
        number(live, "bytes")? == half_bytes + number(live, "growth_bytes")?,
        "{live}"
    );
    Ok(())
}

fn fail_if_growth(context: &Context) -> Result<()> {
    let limit = ["-d", "3s", "--fail-if-growth", "20k"];
    let grows = live(context, &limit, &["4", "leak", "churn"])?.ended_with(4)?;
    let said = &grows.finished.stderr;
    ensure!(
        said.contains("grew") && said.contains("leak_block") && !said.contains("churn_block"),
        "{said}"
    );
    live(context, &limit, &["4", "start", "churn"])?.ended_with(0)?;
    Ok(())
}

fn older_than(context: &Context) -> Result<()> {
    let recording = live(
        context,
        &["-d", "4s", "--older-than", "3s"],
        &["5", "start", "tooth"],
    )?
    .ended_with(0)?;
    let report = &recording.finished.stdout;
    ensure!(report.contains("start_block"), "{report}");
    ensure!(!report.contains("tooth_block"), "young blocks count:\n{report}");
    ensure!(report.contains("at least 3.0 s old"), "{report}");
    // They are left out of the table alone.
    stack(&recording, "tooth_block")?;
    Ok(())
}

fn interval(context: &Context) -> Result<()> {
    let recording = live(context, &["-d", "5s", "--interval", "1s"], &["6", "leak"])?.ended_with(0)?;
    let report = &recording.finished.stdout;
    let times: Vec<&str> = report.lines().filter(|line| line.starts_with("── ")).collect();
    ensure!(times.len() >= 3, "{} reports:\n{report}", times.len());
    ensure!(
        report.matches("leak_block").count() == times.len(),
        "not each report has the leak:\n{report}"
    );
    // The end may come while a call has not returned; nothing else is lost.
    let summary = summary(&recording)?;
    ensure!(
        summary.number("/losses/total")? == summary.number("/losses/unfinished_call")?,
        "{}",
        summary.json["losses"]
    );
    Ok(())
}

fn max_blocks(context: &Context) -> Result<()> {
    let recording = live(context, &["--max-blocks", "100"], &["2", "leak"])?.ended_with(0)?;
    let report = &recording.finished.stdout;
    ensure!(
        report.contains("at least") && report.contains("lower bound"),
        "{report}"
    );
    let summary = summary(&recording)?;
    let lost = summary.number("/losses/live_map_full")?;
    let live = summary.number("/live/count")?;
    let left = summary.number("/totals/alloc/count")? - summary.number("/totals/freed/count")?;
    ensure!(lost > 0 && live <= 100, "{lost} lost, {live} live");
    ensure!(
        live + lost == left,
        "{live} live and {lost} lost of {left} that were not given back"
    );
    Ok(())
}

/// A shell runs a program again and again that leaves its blocks behind: all of them together would
/// not fit.
fn ended_processes(context: &Context) -> Result<()> {
    const ROOM: u64 = 1700;
    let fixture = Fixture::c(context, "holding")?;
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do \"$0\" 0.2 leak; sleep 1; done";
    let recording = Memtap::bare(context)?
        .arguments([
            "live",
            "--summary",
            "live.json",
            "--max-blocks",
            &ROOM.to_string(),
        ])
        .command([
            "sh".as_ref(),
            "-c".as_ref(),
            script.as_ref(),
            fixture.path.as_os_str(),
        ])
        .run()?
        .ended_with(0)?;
    let summary = summary(&recording)?;
    let left = summary.number("/totals/alloc/count")? - summary.number("/totals/freed/count")?;
    ensure!(
        left > ROOM,
        "{left} blocks were left, {ROOM} have room: nothing was to be seen"
    );
    ensure!(
        summary.number("/losses/live_map_full")? == 0,
        "blocks of ended processes make no room: {}",
        summary.json["losses"]
    );
    // Memory of processes that have long ended is not allocated any more.
    let live = summary.number("/live/count")?;
    ensure!(live < left, "{live} of {left} blocks are live");
    Ok(())
}

/// `record --live` says what its columns hold.
fn live_columns(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "holding")?;
    let recording = Memtap::bare(context)?
        .arguments(["record", "--live", "--metric", "live-bytes"])
        .command([fixture.path.as_os_str(), "1".as_ref(), "start".as_ref()])
        .run()?
        .ended_with(0)?;
    let report = &recording.finished.stdout;
    let head = report.lines().next().unwrap_or_default();
    ensure!(
        head.contains("4.8 MiB live in 1 block") && head.contains("peak 4.8 MiB"),
        "{report}"
    );
    ensure!(report.contains("LIVE") && report.contains("BLOCKS"), "{report}");
    Ok(())
}

fn wrong_usage(context: &Context) -> Result<()> {
    let cases: [(&[&str], &str); 3] = [
        (&["-d", "5s", "--older-than", "10s"], "--older-than"),
        (&["--interval", "1ms"], "--interval"),
        (&["--events", "region"], "heap"),
    ];
    for (options, word) in cases {
        Memtap::bare(context)?
            .arguments(["live", "-a"])
            .arguments(options)
            .run()?
            .refused(2, &[word])?;
    }
    Ok(())
}
