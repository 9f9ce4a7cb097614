//! C++ and Rust, whose libraries allocate too: memtap and the shim see the same blocks.

use std::ffi::OsString;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{ARMS, Context, HeapFigures, Need, Recipe, run, shim_images};
use serde_json::Value;

use super::compare::{command, recorded, words};
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case(
        "live::exceptions",
        &[Need::CppCompiler, Need::Compiler],
        exceptions_agree,
    ),
    case("live::csv", &[Need::Rustc, Need::Compiler], csv_agrees),
];

pub(crate) fn exceptions(context: &Context) -> Result<Vec<OsString>> {
    let fixture = Recipe::live_cpp("exceptions").build(context)?;
    Ok(words::<OsString>(&fixture, &[]))
}

/// The loader and its file, which is made once.
pub(crate) fn csv(context: &Context) -> Result<Vec<OsString>> {
    let fixture = Recipe::live_rust("csv").build(context)?;
    let file = fixture.path.with_extension("csv");
    if !file.exists() {
        let making = file.with_extension("making");
        let mut command = fixture.command();
        command.arg("--make").arg(&making);
        run(command)?.succeeded()?;
        std::fs::rename(making, &file)?;
    }
    Ok(words(&fixture, &[file]))
}

fn exceptions_agree(context: &Context) -> Result<()> {
    let (reported, figures) = agree(context, &exceptions(context)?)?;
    let number = |name: &str| reported[name].as_u64().with_context(|| format!("no {name}"));
    let failed = figures.get("functions/malloc/failed") + figures.get("functions/aligned_alloc/failed");
    ensure!(failed == number("failed")?, "{failed} calls failed: {reported}");
    ensure!(
        figures.get("functions/malloc/calls") >= number("made")? + number("caught")?
            && figures.get("live/bytes") >= number("kept_bytes")?,
        "less than the program made: {reported}, {figures:?}"
    );
    Ok(())
}

/// The one process is the same to memtap and to the shim; what the program says, and what memtap
/// saw of it.
fn agree(context: &Context, words: &[OsString]) -> Result<(Value, HeapFigures)> {
    let (images, alone) = shim_images(context, command(words)?)?;
    ensure!(images.len() == 1, "{} images", images.len());
    let mut totals = None;
    for arm in ARMS {
        let recording = recorded(context, words, 0, Some(arm))?;
        ensure!(
            recording.finished.stdout == alone.stdout,
            "the program's own output changed"
        );
        let found = HeapFigures::parse(&recording.summary()?.json["totals"])?;
        if let Some(difference) = HeapFigures::difference(&images[0].figures, &found) {
            anyhow::bail!("--probes {arm}: the shim (expected) and memtap (found):\n{difference}");
        }
        totals = Some(found);
    }
    let totals = totals.context("memtap was not run")?;
    Ok((serde_json::from_str(&alone.stdout)?, totals))
}

/// Bytes that the runtime of Rust keeps for itself.
const RUNTIME_BYTES: u64 = 1024;

fn csv_agrees(context: &Context) -> Result<()> {
    let (reported, figures) = agree(context, &csv(context)?)?;
    ensure!(
        reported["lines"] == 12_427 && reported["cells"] == 86_989,
        "another file: {reported}"
    );
    leaks_as_reported(&reported, &figures)?;
    let strings = figures.get("functions/malloc/calls");
    ensure!(strings >= 80_000, "{strings} calls of malloc for 86,989 cells");
    Ok(())
}

fn leaks_as_reported(reported: &Value, figures: &HeapFigures) -> Result<()> {
    let number = |name: &str| {
        reported["leaked"][name]
            .as_u64()
            .context("the leak is not reported")
    };
    let (count, bytes) = (number("count")?, number("bytes")?);
    let (live_count, live_bytes) = (figures.get("live/count"), figures.get("live/bytes"));
    ensure!(
        (count..=count + 4).contains(&live_count) && (bytes..=bytes + RUNTIME_BYTES).contains(&live_bytes),
        "{live_count} blocks of {live_bytes} bytes are live: {reported}"
    );
    Ok(())
}
