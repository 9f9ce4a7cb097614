//! C++ and Rust, whose libraries allocate too: memtap, the shim and heaptrack see the same blocks.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Figures, Need, Recipe, run, shim_images};
use serde_json::Value;

use super::compare::{command, record, words};
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case(
        "live::exceptions",
        &[Need::CppCompiler, Need::Compiler],
        exceptions_agree,
    ),
    case("live::csv", &[Need::Rustc, Need::Compiler], csv_agrees),
    case(
        "live::csv_beside_heaptrack",
        &[Need::Rustc, Need::Compiler, Need::Heaptrack],
        csv_beside_heaptrack,
    ),
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
    let (told, figures) = agree(context, &exceptions(context)?)?;
    let number = |name: &str| told[name].as_u64().with_context(|| format!("no {name}"));
    let failed = figures.get("functions/malloc/failed") + figures.get("functions/aligned_alloc/failed");
    ensure!(failed == number("failed")?, "{failed} calls failed: {told}");
    ensure!(
        figures.get("functions/malloc/calls") >= number("made")? + number("caught")?
            && figures.get("live/bytes") >= number("kept_bytes")?,
        "less than the program made: {told}, {figures:?}"
    );
    Ok(())
}

/// The one process is the same to memtap and to the shim; what the program says, and what memtap saw of it.
fn agree(context: &Context, words: &[OsString]) -> Result<(Value, Figures)> {
    let (images, alone) = shim_images(context, command(words)?)?;
    ensure!(images.len() == 1, "{} images", images.len());
    let recording = record(context, words, 0)?;
    ensure!(
        recording.finished.stdout == alone.stdout,
        "the program's own output changed"
    );
    let totals = Figures::parse(&recording.summary()?.json["totals"])?;
    if let Some(difference) = Figures::difference(&images[0].figures, &totals) {
        anyhow::bail!("the shim (expected) and memtap (found):\n{difference}");
    }
    Ok((serde_json::from_str(&alone.stdout)?, totals))
}

/// What the runtime of Rust keeps for itself.
const RUNTIME_BYTES: u64 = 1024;

fn csv_agrees(context: &Context) -> Result<()> {
    let (told, figures) = agree(context, &csv(context)?)?;
    ensure!(
        told["lines"] == 12_427 && told["cells"] == 86_989,
        "another file: {told}"
    );
    leaks_as_told(&told, &figures)?;
    let strings = figures.get("functions/malloc/calls");
    ensure!(strings >= 80_000, "{strings} calls of malloc for 86,989 cells");
    Ok(())
}

fn leaks_as_told(told: &Value, figures: &Figures) -> Result<()> {
    let number = |name: &str| told["leaked"][name].as_u64().context("the leak is not told");
    let (count, bytes) = (number("count")?, number("bytes")?);
    let (live_count, live_bytes) = (figures.get("live/count"), figures.get("live/bytes"));
    ensure!(
        (count..=count + 4).contains(&live_count) && (bytes..=bytes + RUNTIME_BYTES).contains(&live_bytes),
        "{live_count} blocks of {live_bytes} bytes are live: {told}"
    );
    Ok(())
}

/// heaptrack's own totals, in its own rounded figures.
fn csv_beside_heaptrack(context: &Context) -> Result<()> {
    let words = csv(context)?;
    let printed = heaptrack(&words)?;
    let (images, finished) = shim_images(context, command(&words)?)?;
    let told: Value = serde_json::from_str(&finished.stdout)?;
    let shim = &images[0].figures;
    leaks_as_told(&told, shim)?;
    printed.agrees_with(shim).context("the shim")?;
    let recording = record(context, &words, 0)?;
    printed
        .agrees_with(&Figures::parse(&recording.summary()?.json["totals"])?)
        .context("memtap")
}

/// What `heaptrack_print` says at its end.
#[derive(Debug)]
struct Printed {
    calls: u64,
    temporary: u64,
    peak: String,
    leaked: String,
}

fn heaptrack(words: &[OsString]) -> Result<Printed> {
    let dir = tempfile::tempdir()?;
    let mut traced = std::process::Command::new("heaptrack");
    traced.arg("-o").arg(dir.path().join("out")).args(words);
    run(traced)?.succeeded()?;
    let mut print = std::process::Command::new("heaptrack_print");
    print.arg(only_file(dir.path())?);
    let text = run(print)?.succeeded()?.stdout;
    let after = |label: &str| -> Result<String> {
        let line = text.lines().rev().find_map(|line| line.strip_prefix(label));
        let value = line.and_then(|rest| rest.split_whitespace().next());
        Ok(value
            .with_context(|| format!("heaptrack printed no {label:?}"))?
            .to_owned())
    };
    Ok(Printed {
        calls: after("calls to allocation functions:")?.parse()?,
        temporary: after("temporary memory allocations:")?.parse()?,
        peak: after("peak heap memory consumption:")?,
        leaked: after("total memory leaked:")?,
    })
}

/// The name that was asked for has the ending of a compressor, whichever heaptrack found.
fn only_file(dir: &Path) -> Result<std::path::PathBuf> {
    let mut entries = std::fs::read_dir(dir)?;
    Ok(entries.next().context("heaptrack wrote no file")??.path())
}

impl Printed {
    fn agrees_with(&self, figures: &Figures) -> Result<()> {
        let peak = shown(figures.get("peak/bytes"));
        let leaked = shown(figures.get("live/bytes"));
        ensure!(
            self.calls == figures.get("alloc/count") && self.peak == peak && self.leaked == leaked,
            "heaptrack: {self:?}; found: peak {peak}, leaked {leaked}, {figures:?}"
        );
        let temporary = figures.get("temporary/count");
        ensure!(
            self.temporary == temporary,
            "heaptrack: {} temporary; found: {temporary}",
            self.temporary
        );
        Ok(())
    }
}

/// Bytes as heaptrack prints them: two decimals of the largest unit of a thousand.
#[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
fn shown(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "K", "M", "G"] {
        if value < 1000.0 {
            return if unit == "B" {
                format!("{bytes}B")
            } else {
                format!("{value:.2}{unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.2}T")
}
