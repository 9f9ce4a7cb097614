//! The program that this tool was first wanted for: a vector that doubles as it is pushed to.

use anyhow::{Result, ensure};
use memtap_tests::{Context, Count, Fixture, Memtap, MemtapRecording, Need, shim_counts};

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case(
        "seed::doubling_reallocs",
        &[Need::Rustc, Need::Compiler],
        doubling_reallocs,
    ),
    case("seed::each_doubling", &[Need::Rustc], each_doubling),
];

const PUSHES: u64 = 50 * 1024 * 1024;
const ELEMENT_BYTES: u64 = 8;

/// The sizes of the blocks of a vector that is pushed to: room for 4 elements at first, then twice
/// as many each time (`RawVec::grow_amortized` in the standard library).
fn blocks() -> (u64, Vec<u64>) {
    let first = 4;
    let mut elements = first;
    let mut resized = Vec::new();
    while elements < PUSHES {
        elements *= 2;
        resized.push(elements * ELEMENT_BYTES);
    }
    (first * ELEMENT_BYTES, resized)
}

fn record(context: &Context, arguments: &[&str]) -> Result<MemtapRecording> {
    let fixture = Fixture::rust(context, "push")?;
    let mut memtap = Memtap::record(context)?;
    if arguments == ["count"] {
        memtap = memtap.metric("alloc-count");
    } else {
        memtap = memtap.arguments(arguments);
    }
    let recording = memtap.fixture(&fixture).run()?.whole()?;
    ensure!(
        recording.finished.stdout.trim() == PUSHES.to_string(),
        "the program's output is {:?}",
        recording.finished.stdout
    );
    Ok(recording)
}

fn doubling_reallocs(context: &Context) -> Result<()> {
    let (first, resized) = blocks();
    let fixture = Fixture::rust(context, "push")?;
    let (counts, _) = shim_counts(context, fixture.command())?;
    for metric in ["bytes", "count"] {
        let is_count = metric == "count";
        let arguments: &[&str] = if is_count { &["count"] } else { &[] };
        let recording = record(context, arguments)?;
        recording.has_functions(&counts)?;
        let folded = recording.folded()?;
        let pushing =
            |function: &str| folded.weight_of(|line| line.function == function && line.passes("push_all"));
        let (expected_malloc, expected_realloc) = if is_count {
            (1, resized.len() as u64)
        } else {
            (first, resized.iter().sum())
        };
        ensure!(
            pushing("malloc") == expected_malloc && pushing("realloc") == expected_realloc,
            "{metric} below push_all: malloc {} of {expected_malloc}, realloc {} of {expected_realloc}:\n{}",
            pushing("malloc"),
            pushing("realloc"),
            folded.text
        );
    }
    Ok(())
}

/// Some of the sizes, one by one.
fn each_doubling(context: &Context) -> Result<()> {
    let (_, resized) = blocks();
    ensure!(
        resized.len() == 24 && resized.last() == Some(&(512 << 20)),
        "24 resizes, the last to 512 MiB: {resized:?}"
    );
    for bytes in resized.into_iter().filter(|bytes| *bytes >= 2048).step_by(6) {
        let size = bytes.to_string();
        let recording = record(context, &["--min-size", &size, "--max-size", &size])?;
        let functions = recording.summary()?.functions()?;
        let count = functions.get("realloc").copied().unwrap_or_default();
        ensure!(
            count == Count { calls: 1, bytes },
            "{count:?} of one realloc to {bytes}"
        );
        let folded = recording.folded()?;
        ensure!(
            folded.weight_of(|line| line.function == "realloc" && line.passes("push_all")) == bytes,
            "the realloc to {bytes} is not below push_all:\n{}",
            folded.text
        );
    }
    Ok(())
}
