//! A third opinion: heaptrack on the same program.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Fixture, HeapFigures, Need, run, shim_images};

use super::compare::{command, record, words};
use super::languages::csv;
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case(
        "live::shim_agrees_with_heaptrack",
        &[Need::Rustc, Need::Compiler, Need::Heaptrack],
        shim_agrees,
    ),
    case(
        "live::csv_beside_heaptrack",
        &[Need::Rustc, Need::Compiler, Need::Heaptrack],
        memtap_agrees,
    ),
];

fn shim_agrees(context: &Context) -> Result<()> {
    let words = csv(context)?;
    heaptrack(&words)?.agrees_with(&shim(context, &words)?, &HeaptrackOwn::find(context)?)
}

fn memtap_agrees(context: &Context) -> Result<()> {
    let words = csv(context)?;
    let recording = record(context, &words, 0)?;
    let totals = HeapFigures::parse(&recording.summary()?.json["totals"])?;
    heaptrack(&words)?.agrees_with(&totals, &HeaptrackOwn::find(context)?)
}

fn shim(context: &Context, words: &[OsString]) -> Result<HeapFigures> {
    let (images, finished) = shim_images(context, command(words)?)?;
    finished.succeeded()?;
    ensure!(images.len() == 1, "{} images", images.len());
    Ok(images[0].figures.clone())
}

/// The report of heaptrack on a run.
#[derive(Debug)]
struct HeaptrackReport {
    // Exact, from its interpreter.
    calls: u64,
    leaked_count: u64,
    temporary: u64,
    // As `heaptrack_print` has it. It takes a block for the latest if size and stack are those of
    // the latest, so its temporary ones can be more.
    printed_calls: u64,
    printed_temporary: u64,
    peak: Rounded,
    leaked: Rounded,
}

/// Bytes as heaptrack prints them: two decimals of the largest unit of a thousand.
#[derive(Debug)]
struct Rounded {
    bytes: f64,
    error: f64,
}

/// The allocations of heaptrack itself in each program: a pool of the C++ library that it brings
/// along, given back at the end.
struct HeaptrackOwn {
    calls: u64,
    peak_bytes: f64,
}

impl HeaptrackOwn {
    /// On a program that the C++ library is not in otherwise.
    #[expect(clippy::cast_precision_loss, reason = "a few thousand bytes")]
    fn find(context: &Context) -> Result<Self> {
        let words = words::<OsString>(&Fixture::rust(context, "empty")?, &[]);
        let (heaptrack, shim) = (heaptrack(&words)?, shim(context, &words)?);
        let calls = heaptrack.calls.checked_sub(shim.get("alloc/count"));
        Ok(Self {
            calls: calls.context("heaptrack saw fewer calls than there were")?,
            peak_bytes: heaptrack.peak.bytes - shim.get("peak/bytes") as f64,
        })
    }
}

fn heaptrack(words: &[OsString]) -> Result<HeaptrackReport> {
    let dir = tempfile::tempdir()?;
    let mut traced = Command::new("heaptrack");
    traced.arg("-o").arg(dir.path().join("out")).args(words);
    let stats = run(traced)?.succeeded()?.stderr;
    let mut print = Command::new("heaptrack_print");
    print.arg(only_file(dir.path())?);
    let printed = run(print)?.succeeded()?.stdout;
    Ok(HeaptrackReport {
        calls: after(&stats, "allocations:")?.parse()?,
        leaked_count: after(&stats, "leaked allocations:")?.parse()?,
        temporary: after(&stats, "temporary allocations:")?.parse()?,
        printed_calls: after(&printed, "calls to allocation functions:")?.parse()?,
        printed_temporary: after(&printed, "temporary memory allocations:")?.parse()?,
        peak: Rounded::parse(after(&printed, "peak heap memory consumption:")?)?,
        leaked: Rounded::parse(after(&printed, "total memory leaked:")?)?,
    })
}

/// The name that was asked for has the ending of a compressor, whichever heaptrack found.
fn only_file(dir: &Path) -> Result<PathBuf> {
    let mut entries = std::fs::read_dir(dir)?;
    Ok(entries.next().context("heaptrack wrote no file")??.path())
}

/// The word after a label at the beginning of a line, the last such line.
fn after<'a>(text: &'a str, label: &str) -> Result<&'a str> {
    let rest = text
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix(label));
    rest.and_then(|rest| rest.split_whitespace().next())
        .with_context(|| format!("heaptrack printed no {label:?}: {text}"))
}

impl Rounded {
    fn parse(text: &str) -> Result<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "B" => 1.0,
            "K" => 1e3,
            "M" => 1e6,
            "G" => 1e9,
            unit => anyhow::bail!("heaptrack printed a unit {unit:?}"),
        };
        let bytes: f64 = digits.parse()?;
        Ok(Self {
            bytes: bytes * unit,
            error: if unit > 1.0 { unit / 200.0 } else { 0.0 },
        })
    }

    /// Returns whether this is how a number is printed, itself known to within 10 bytes.
    #[expect(clippy::cast_precision_loss, reason = "far below 2 to the 53")]
    fn is(&self, bytes: u64, own_bytes: f64) -> bool {
        (self.bytes - bytes as f64 - own_bytes).abs() <= self.error + 10.0
    }
}

impl HeaptrackReport {
    fn agrees_with(&self, figures: &HeapFigures, own: &HeaptrackOwn) -> Result<()> {
        let calls = figures.get("alloc/count") + own.calls;
        ensure!(
            self.calls == calls && self.printed_calls == calls,
            "{calls} calls: {self:?}, {figures:?}"
        );
        ensure!(
            self.leaked_count == figures.get("live/count") && self.leaked.is(figures.get("live/bytes"), 0.0),
            "another leak: {self:?}, {figures:?}"
        );
        ensure!(
            self.peak.is(figures.get("peak/bytes"), own.peak_bytes),
            "another peak: {self:?}, {figures:?}"
        );
        let temporary = figures.get("temporary/count");
        ensure!(
            self.temporary == temporary && self.printed_temporary >= temporary,
            "other temporary blocks: {self:?}, {figures:?}"
        );
        Ok(())
    }
}
