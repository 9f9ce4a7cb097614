//! C programs: frames of all shapes, and of all depths.

use std::ffi::OsString;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Fixture, FoldedStackLine, Memtap, Need, Recipe};

use super::walked::Walked;
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("stacks::chains", &[Need::Compiler], chains),
    case(
        "stacks::chains_by_tables_alone",
        &[Need::Compiler],
        by_tables_alone,
    ),
    case("stacks::recursion", &[Need::Compiler], recursion),
    case(
        "stacks::frames_of_variable_size",
        &[Need::Compiler, Need::Binutils],
        variable_size,
    ),
];

fn chains(context: &Context) -> Result<()> {
    let fixture = Recipe::plain_c("chains").build(context)?;
    let walked = Walked::record(context, &fixture)?;
    walked.holds_nothing_but(&walked.recording.reported()?)?;
    walked.ends_are("complete")
}

/// `--unwind dwarf` has the same stacks, and `--unwind fp`, whatever stacks it has, the same sums.
fn by_tables_alone(context: &Context) -> Result<()> {
    let fixture = Recipe::plain_c("chains").build(context)?;
    let record = |unwind: &str| {
        let memtap = Memtap::record(context)?.arguments(["--unwind", unwind]);
        Walked::run(memtap.fixture(&fixture))
    };
    let tables = record("dwarf")?;
    let reported = tables.recording.reported()?;
    tables.holds_nothing_but(&reported)?;
    tables.ends_are("complete")?;
    let pointers = record("fp")?.recording;
    pointers.has_functions(&reported.functions())?;
    tables.recording.has_functions(&reported.functions())
}

/// The most frames that are kept.
const MAX_FRAMES: usize = 127;

/// The numbers of frames of the stacks, from the start of the program to the caller of malloc.
const DEPTHS: [usize; 7] = [10, 50, 126, 127, 128, 200, 1000];

fn recursion(context: &Context) -> Result<()> {
    let fixture = Recipe::plain_c("recursion").build(context)?;
    let shallow = descended(context, &fixture, &[1])?;
    shallow.ends_are("complete")?;
    // `main` and what is above it.
    let outer = leaf(&shallow, 0)?.frames;
    let outer = outer.strip_suffix(&["descend".to_owned(), "leaf_0".to_owned()]);
    let outer = outer.context("no stack of one turn")?;
    ensure!(outer.last().is_some_and(|frame| frame == "main"), "{outer:?}");

    let turns: Vec<usize> = DEPTHS.iter().map(|depth| depth - outer.len() - 1).collect();
    let walked = descended(context, &fixture, &turns)?;
    for (at, depth) in DEPTHS.into_iter().enumerate() {
        let line = leaf(&walked, at)?;
        let mut whole = outer.to_vec();
        whole.resize(depth - 1, "descend".to_owned());
        whole.push(format!("leaf_{at}"));
        let kept = &whole[depth.saturating_sub(MAX_FRAMES)..];
        ensure!(
            line.frames == kept,
            "{depth} frames: {} of them are kept, and there are {}: {line:?}",
            kept.len(),
            line.frames.len()
        );
        ensure!(
            line.is_truncated == (depth > MAX_FRAMES),
            "{depth} frames: {line:?}"
        );
    }
    let ends = walked.ends()?;
    let truncated = DEPTHS.into_iter().filter(|depth| *depth > MAX_FRAMES).count() as u64;
    let whole = DEPTHS.len() as u64 - truncated;
    ensure!(
        ends == [
            ("complete".to_owned(), whole),
            ("truncated".to_owned(), truncated)
        ]
        .into(),
        "{whole} stacks are complete and {truncated} too deep: {ends:?}"
    );
    Ok(())
}

/// Records one recursion for each number of turns.
fn descended(context: &Context, fixture: &Fixture, turns: &[usize]) -> Result<Walked> {
    let turns = turns.iter().map(|turns| turns.to_string().into());
    let command: Vec<OsString> = std::iter::once(fixture.path.clone().into())
        .chain(turns)
        .collect();
    Walked::run(Memtap::record(context)?.command(command))
}

/// The one stack of a recursion, by its place among the arguments.
fn leaf(walked: &Walked, at: usize) -> Result<FoldedStackLine> {
    let name = format!("leaf_{at}");
    let folded = walked.recording.folded()?;
    let mut lines = folded
        .lines
        .iter()
        .filter(|line| line.frames.last() == Some(&name));
    let line = lines
        .next()
        .with_context(|| format!("no {name}:\n{}", folded.text))?;
    ensure!(lines.next().is_none(), "{name} has two stacks");
    ensure!(line.weight == 100 + at as u64, "{name} weighs {}", line.weight);
    Ok(line.clone())
}

fn variable_size(context: &Context) -> Result<()> {
    let fixture = Recipe::plain_c("aligned").build(context)?;
    // What this test is about: a frame whose address is in memory.
    for name in ["drap", "drap_variadic", "drap_again"] {
        let frame = super::elf::frame_information(&fixture.path, name)?;
        ensure!(
            frame.contains("DW_CFA_def_cfa_expression") && frame.contains("DW_OP_deref"),
            "the compiler did not realign {name} by way of a register: {frame}"
        );
    }
    let walked = Walked::record(context, &fixture)?;
    walked.holds_nothing_but(&walked.recording.reported()?)?;
    walked.ends_are("complete")
}
