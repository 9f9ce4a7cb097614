//! Code that was compiled at run time: named by its perf map, or one frame for all of it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Memtap, MemtapRecording, Need, Recipe, run};

use super::shipped::has_chain;
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("symbols::perf_map", &[Need::Compiler], |context| {
        named(context, "leave")
    }),
    case("symbols::perf_map_removed", &[Need::Compiler], |context| {
        named(context, "remove")
    }),
    case("symbols::perf_map_link", &[Need::Compiler], |context| {
        nameless(context, "link")
    }),
    case("symbols::no_perf_map", &[Need::Compiler], |context| {
        nameless(context, "none")
    }),
    case(
        "symbols::perf_map_in_namespace",
        &[Need::Compiler, Need::Namespaces],
        in_namespace,
    ),
    case("symbols::node", &[Need::Node], node),
    case("symbols::node_without_map", &[Need::Node], node_without_map),
];

const BYTES: u64 = 10 * 777;

/// Files that a fixture leaves in /tmp; they go when the test has ended.
struct CompiledLeftovers(Vec<PathBuf>);

impl Drop for CompiledLeftovers {
    fn drop(&mut self) {
        for path in &self.0 {
            if path.symlink_metadata().is_ok()
                && let Err(error) = std::fs::remove_file(path)
            {
                memtap_tests::journal::note(&format!("{}: {error}", path.display()));
            }
        }
    }
}

fn maps_of(pid: &str) -> CompiledLeftovers {
    CompiledLeftovers(vec![
        format!("/tmp/perf-{pid}.map").into(),
        format!("/tmp/other-{pid}.map").into(),
    ])
}

/// Runs the fixture; it goes on when memtap has had time to find the map.
fn record(context: &Context, way: &str) -> Result<MemtapRecording> {
    let fixture = Recipe::symbols_c("compiled").build(context)?;
    let memtap = Memtap::record(context)?.argument("-v");
    let go = memtap.directory().join("go");
    let command = [fixture.path.as_os_str(), way.as_ref(), go.as_os_str()];
    let mut session = memtap.command(command).start()?;
    session.wait_until_tracing()?;
    if way == "remove" {
        session.wait_until_said(&[".map: names of compiled code"])?;
    } else {
        // Longer than it takes to look for a map for the first time.
        std::thread::sleep(Duration::from_millis(500));
    }
    std::fs::write(&go, "")?;
    session.finish()
}

fn pid_of(recording: &MemtapRecording) -> Result<String> {
    let line = recording
        .finished
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("pid "));
    Ok(line.context("the fixture reported no number")?.to_owned())
}

fn named(context: &Context, way: &str) -> Result<()> {
    let recording = record(context, way)?;
    let _maps = maps_of(&pid_of(&recording)?);
    let recording = recording.whole()?;
    has_chain(&recording, &["main", "jitted outer", "jitted inner:one"], BYTES)
}

fn nameless(context: &Context, way: &str) -> Result<()> {
    let recording = record(context, way)?;
    let _maps = maps_of(&pid_of(&recording)?);
    let recording = recording.whole()?;
    has_chain(&recording, &["main", "[jit]"], BYTES)
}

/// The process has another number in its own namespace, another /tmp, and has gone when names are
/// wanted.
fn in_namespace(context: &Context) -> Result<()> {
    let fixture = Recipe::symbols_c("compiled").build(context)?;
    let memtap = Memtap::record(context)?.argument("-v");
    // Outside of the /tmp that is covered.
    let go = memtap.directory().join("go");
    let binary = memtap.directory().join("compiled");
    std::fs::copy(&fixture.path, &binary)?;
    let script = format!(
        "mount --bind '{0}' /mnt && mount -t tmpfs none /tmp && exec /mnt/compiled leave /mnt/go",
        memtap.directory().display()
    );
    let command = ["unshare", "-m", "-p", "-f", "sh", "-c", &script];
    let mut session = memtap.command(command).start()?;
    session.wait_until_tracing()?;
    session.wait_until_said(&[".map: names of compiled code"])?;
    std::fs::write(&go, "")?;
    let recording = session.finish()?.whole()?;
    let pid: u32 = pid_of(&recording)?.parse()?;
    ensure!(pid < 10, "{pid} is no number of a new namespace");
    has_chain(&recording, &["main", "jitted outer", "jitted inner:one"], BYTES)
}

const SCRIPT: &str = "
function makeBuffers(count) {
    const made = [];
    for (let i = 0; i < count; i++) made.push(Buffer.allocUnsafeSlow(100000));
    return made;
}
function outerLoop() {
    let total = 0;
    for (let i = 0; i < 200; i++) total += makeBuffers(20).length;
    return total;
}
console.log('pid ' + process.pid);
console.log(outerLoop());
";

fn record_node(context: &Context, options: &[&str]) -> Result<MemtapRecording> {
    let memtap = Memtap::record(context)?;
    let script = memtap.directory().join("script.js");
    std::fs::write(&script, SCRIPT)?;
    let mut command = vec!["node".to_owned()];
    command.extend(options.iter().map(|option| (*option).to_owned()));
    command.push(script.to_string_lossy().into_owned());
    let recording = memtap.command(command).run()?.ended_with(0)?;
    let version = run({
        let mut node = std::process::Command::new("node");
        node.arg("--version");
        node
    })?;
    memtap_tests::journal::note(&version.stdout);
    Ok(recording)
}

fn node(context: &Context) -> Result<()> {
    let recording = record_node(context, &["--perf-basic-prof"])?;
    let _maps = maps_of(&pid_of(&recording)?);
    let folded = recording.folded()?;
    let position = |line: &memtap_tests::FoldedStackLine, name: &str| {
        line.frames.iter().position(|frame| frame.contains(name))
    };
    let of_buffers =
        folded.weight_of(
            |line| match (position(line, "outerLoop"), position(line, "makeBuffers")) {
                (Some(outer), Some(inner)) => outer < inner,
                (None, Some(_)) => true,
                _ => false,
            },
        );
    // The first calls are interpreted, by code that is node's own.
    ensure!(
        of_buffers > 100_000_000,
        "{of_buffers} of {} bytes are below the script's functions",
        folded.total()
    );
    Ok(())
}

fn node_without_map(context: &Context) -> Result<()> {
    let recording = record_node(context, &[])?;
    let folded = recording.folded()?;
    let compiled = folded.weight_of(|line| line.passes("[jit]"));
    ensure!(compiled > 100_000_000, "{compiled} bytes pass compiled code");
    for line in &folded.lines {
        let is_twice = line
            .frames
            .windows(2)
            .any(|pair| pair[0] == "[jit]" && pair[1] == "[jit]");
        ensure!(!is_twice, "a run of them is one frame: {line:?}");
    }
    // What is no code at all, where frame pointers mislead, has an address still.
    let by_address = folded.weight_of(|line| line.frames.iter().any(|frame| frame.starts_with("[0x")));
    ensure!(
        by_address * 1000 < folded.total(),
        "{by_address} of {} bytes pass addresses",
        folded.total()
    );
    Ok(())
}
