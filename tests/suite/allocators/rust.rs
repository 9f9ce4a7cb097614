//! Rust programs whose global allocator is a crate's: jemalloc with a prefix, mimalloc.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Count, Counts, Fixture, FoldedStacks, Memtap, MemtapRecording, run};

/// Calls and bytes by function of what the fixture's own functions ask for, and the blocks that
/// they keep, are those that it tells.
pub(crate) fn crates(context: &Context, feature: &str) -> Result<()> {
    let fixture = Fixture::package(context, "rust_allocators", feature)?;
    for live in [false, true] {
        let dir = tempfile::tempdir()?;
        let file = |name: &str| dir.path().join(format!("{name}.folded"));
        let output = |metric: &str| ["-o".to_owned(), format!("{metric}={}", file(metric).display())];
        let metrics: &[&str] = if live {
            &["alloc-count", "live-count", "live-bytes"]
        } else {
            &["alloc-count"]
        };
        let recording = Memtap::record(context)?
            .arguments(live.then_some("--live"))
            .arguments(metrics.iter().flat_map(|metric| output(metric)))
            .command([&fixture.path])
            .run()?
            .whole()?;
        ensure!(
            recording
                .finished
                .stderr
                .contains(&format!("{feature} in rust_allocators")),
            "{feature} is not named: {}",
            recording.finished.stderr
        );
        let (expected, kept) = reported(&recording.finished.stdout)?;
        let bytes = own(recording.folded()?);
        let calls = own(&read(&file("alloc-count"))?);
        let found = bytes.iter().map(|(function, bytes)| {
            let calls = calls.get(function).map_or(0, |count| count.bytes);
            (
                function.clone(),
                Count {
                    calls,
                    bytes: bytes.bytes,
                },
            )
        });
        let found: Counts = found.collect();
        ensure!(found == expected, "{found:?} instead of {expected:?}");
        if live {
            let total = |metric: &str| -> Result<u64> {
                Ok(own(&read(&file(metric))?).values().map(|count| count.bytes).sum())
            };
            let found = Count {
                calls: total("live-count")?,
                bytes: total("live-bytes")?,
            };
            ensure!(found == kept, "{found:?} are kept instead of {kept:?}");
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<FoldedStacks> {
    FoldedStacks::parse(&std::fs::read_to_string(path)?)
}

/// The weights, by function, of stacks that go through the fixture's functions: as bytes.
fn own(folded: &FoldedStacks) -> Counts {
    let mut counts = Counts::new();
    for line in &folded.lines {
        // With the crate's name before it or not: that is for the debug information to say.
        let is_own = |frame: &String| {
            let name = frame.rsplit("::").next().unwrap_or_default();
            ["plain", "vectors"].contains(&name)
        };
        if line.frames.iter().any(is_own) {
            let function = line.function.clone();
            counts.entry(function).or_default().bytes += line.weight;
        }
    }
    counts
}

/// `malloc 10 4711`, and at last `kept 5 300`.
fn reported(stdout: &str) -> Result<(Counts, Count)> {
    let mut counts = Counts::new();
    for line in stdout.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, calls, bytes] = words[..] else {
            anyhow::bail!("not a line of the fixture: {line}");
        };
        *counts.entry(name.to_owned()).or_default() += Count {
            calls: calls.parse().context("no number")?,
            bytes: bytes.parse().context("no number")?,
        };
    }
    let kept = counts.remove("kept").context("it does not say what it keeps")?;
    Ok((counts, kept))
}

/// Without symbols there is nothing to find the allocator by: that is an error, and says what
/// helps. Separate symbols do.
pub(crate) fn without_symbols(context: &Context) -> Result<()> {
    let fixture = Fixture::package(context, "rust_allocators", "jemalloc")?;
    let dir = tempfile::tempdir()?;
    let stripped = dir.path().join("rust_allocators");
    let debug = dir.path().join("rust_allocators.debug");
    let mut objcopy = Command::new("objcopy");
    objcopy.arg("--only-keep-debug").arg(&fixture.path).arg(&debug);
    run(objcopy)?.succeeded()?;
    let mut strip = Command::new("objcopy");
    strip
        .arg("--strip-all")
        .arg(format!("--add-gnu-debuglink={}", debug.display()))
        .arg(&fixture.path)
        .arg(&stripped);
    run(strip)?.succeeded()?;
    let record = || -> Result<MemtapRecording> { Memtap::record(context)?.command([&stripped]).run() };

    let recording = record()?.whole()?;
    let (expected, _) = reported(&recording.finished.stdout)?;
    let found = own(recording.folded()?);
    for (function, count) in &expected {
        let bytes = found.get(function).map_or(0, |count| count.bytes);
        ensure!(
            bytes == count.bytes,
            "{function}: {bytes} bytes instead of {count:?}"
        );
    }
    std::fs::remove_file(&debug)?;
    record()?.refused(1, &["jemalloc", "debug package", "--symbol"])?;
    Ok(())
}
