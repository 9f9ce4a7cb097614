//! redis as the distribution ships it, with jemalloc, under its own benchmark.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Count, Counts, Memtap, Recipe, eventually, run};

/// The time that the server may take until it listens.
const LIMIT: Duration = Duration::from_mins(1);

/// The calls are those that a library in front of jemalloc counts in the same run, within 1 %: it
/// is not there yet when the first libraries are set up.
pub(crate) fn redis(context: &Context) -> Result<()> {
    let counter = Recipe::allocator_c("counter").shared().build(context)?;
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("socket").display().to_string();
    let counts = dir.path().join("counts");
    let words = [
        "env".to_owned(),
        format!("LD_PRELOAD={}", counter.path.display()),
        format!("COUNTER_FILE={}", counts.display()),
        "redis-server".to_owned(),
    ];
    let options = [
        "--port",
        "0",
        "--save",
        "",
        "--appendonly",
        "no",
        "--daemonize",
        "no",
        "--unixsocket",
        &socket,
        "--dir",
    ];
    let options = options.iter().map(|word| (*word).to_owned());
    let words = words
        .into_iter()
        .chain(options)
        .chain([dir.path().display().to_string()]);
    let session = Memtap::record(context)?.command(words).start()?;
    let cli = |arguments: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["-s", &socket]).args(arguments);
        command
    };
    let listens = eventually(LIMIT, || Ok(run(cli(&["ping"]))?.stdout.trim() == "PONG"))?;
    ensure!(listens, "the server does not listen");
    let mut benchmark = Command::new("redis-benchmark");
    benchmark.args([
        "-s",
        &socket,
        "-n",
        "3000",
        "-c",
        "10",
        "-r",
        "500",
        "-q",
        "-t",
        "set,get,lpush,hset,mset",
    ]);
    run(benchmark)?.succeeded()?;
    run(cli(&["shutdown", "nosave"]))?;
    let recording = session.finish()?.whole()?;

    let expected = reported(&std::fs::read_to_string(&counts)?)?;
    let mut processes = recording.summary()?.processes()?;
    processes.retain(|process| process.comm == "redis-server");
    ensure!(processes.len() == 1, "{} servers", processes.len());
    for (function, expected) in &expected {
        let found = processes[0].functions.get(function).copied().unwrap_or_default();
        let near = |found: u64, expected: u64| found.abs_diff(expected) * 100 <= expected.max(500);
        ensure!(
            near(found.calls, expected.calls) && near(found.bytes, expected.bytes),
            "{function}: {found:?} instead of {expected:?}"
        );
    }
    let folded = recording.folded()?;
    let all = folded.weight_of(|line| line.process == "redis-server");
    let named = folded.weight_of(|line| line.process == "redis-server" && line.passes("main"));
    ensure!(
        named * 10 >= all * 8,
        "{named} of {all} bytes are below main:\n{}",
        folded.text
    );
    let probes = recording.summary()?.json["probes"].to_string();
    ensure!(
        probes.contains("libjemalloc.so.2"),
        "no probes in jemalloc: {probes}"
    );
    Ok(())
}

/// `malloc 10 4711`
fn reported(text: &str) -> Result<Counts> {
    let mut counts = Counts::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [function, calls, bytes] = words[..] else {
            anyhow::bail!("not a line of the counter: {line}");
        };
        *counts.entry(function.to_owned()).or_default() += Count {
            calls: calls.parse().context("no number")?,
            bytes: bytes.parse().context("no number")?,
        };
    }
    ensure!(!counts.is_empty(), "the counter reported nothing");
    Ok(counts)
}
