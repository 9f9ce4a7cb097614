//! `--allocator` and `--symbol`: functions that memtap does not know by itself.

use std::process::Command;

use anyhow::{Context as _, Result};
use memtap_tests::{Context, Count, Counts, Memtap, MemtapRecording, Recipe, run};

/// Returns what pool.c calls: by the functions of C that they are like.
fn calls(of: &[&str]) -> Counts {
    let all = [("malloc", 40, 100), ("realloc", 40, 300), ("calloc", 40, 63)];
    let named = all.into_iter().filter(|(name, _, _)| of.contains(name));
    named
        .map(|(name, calls, bytes)| {
            let bytes = calls * bytes;
            (name.to_owned(), Count { calls, bytes })
        })
        .collect()
}

fn record(context: &Context, recipe: &Recipe, arguments: &[String], live: bool) -> Result<MemtapRecording> {
    let fixture = recipe.build(context)?;
    Memtap::record(context)?
        .arguments(live.then_some("--live"))
        .arguments(arguments)
        .fixture(&fixture)
        .run()?
        .whole()
}

/// `pool_malloc`, `pool_realloc` and `pool_free`; what `take` makes by `pool_malloc` is a call of
/// that.
pub(crate) fn prefix(context: &Context) -> Result<()> {
    let arguments = ["--allocator".to_owned(), "pool_".to_owned()];
    let mut expected = calls(&["malloc", "realloc"]);
    *expected.entry("malloc".to_owned()).or_default() += Count {
        calls: 40,
        bytes: 40 * 63,
    };
    record(context, &Recipe::allocator_c("pool"), &arguments, false)?.has_functions(&expected)?;
    let recording = record(context, &Recipe::allocator_c("pool"), &arguments, true)?;
    recording.has_functions(&expected)?;
    for (figure, expected) in [
        ("live/count", 10),
        ("live/bytes", 10 * 300),
        ("freed/count", 40 + 30 + 40),
        ("functions/free/calls", 30 + 40),
        ("functions/free/unmatched", 0),
    ] {
        let found = recording.summary()?.number(&format!("/totals/{figure}"))?;
        anyhow::ensure!(found == expected, "{figure} is {found} instead of {expected}");
    }
    Ok(())
}

/// With `take` and `give` too: what they hand to the others is theirs.
pub(crate) fn symbols(context: &Context) -> Result<()> {
    let named = ["take=calloc", "pool:give=free", "pool:pool_malloc=malloc"];
    let arguments = named
        .iter()
        .flat_map(|name| ["--symbol".to_owned(), (*name).to_owned()]);
    let mut arguments: Vec<String> = arguments.collect();
    arguments.extend(["--allocator".to_owned(), "pool_".to_owned()]);
    let recording = record(context, &Recipe::allocator_c("pool"), &arguments, true)?;
    recording.has_functions(&calls(&["malloc", "calloc", "realloc"]))?;
    let free = recording.summary()?.number("/totals/functions/free/calls")?;
    anyhow::ensure!(free == 70, "{free} calls of free instead of 70");
    Ok(())
}

/// A program without any symbol.
pub(crate) fn offsets(context: &Context) -> Result<()> {
    let with = Recipe::allocator_c("pool").flags(["-no-pie"]).build(context)?;
    let stripped = Recipe::allocator_c("pool").flags(["-no-pie", "-s"]);
    let mut nm = Command::new("nm");
    nm.arg(&with.path);
    let symbols = run(nm)?.succeeded()?.stdout;
    // A program that is not moved is mapped as it lies in the file, at 4 MiB.
    let offset = |name: &str| -> Result<u64> {
        let line = symbols.lines().find(|line| line.ends_with(&format!(" {name}")));
        let address = line
            .and_then(|line| line.split(' ').next())
            .context("no such symbol")?;
        Ok(u64::from_str_radix(address, 16)? - 0x40_0000)
    };
    let path = stripped.build(context)?.path;
    let mut arguments = Vec::new();
    for (name, like) in [("pool_malloc", "malloc"), ("pool_free", "free")] {
        arguments.push("--symbol".to_owned());
        arguments.push(format!("{}:{:#x}={like}", path.display(), offset(name)?));
    }
    let recording = record(context, &stripped, &arguments, true)?;
    let malloc = recording
        .summary()?
        .functions()?
        .remove("malloc")
        .unwrap_or_default();
    let expected = Count {
        calls: 40 * 3,
        bytes: 40 * (100 + 300 + 63),
    };
    anyhow::ensure!(malloc == expected, "{malloc:?} instead of {expected:?}");
    Ok(())
}

pub(crate) fn wrongly(context: &Context) -> Result<()> {
    let fixture = Recipe::allocator_c("pool").build(context)?;
    let refused = |arguments: [&str; 2], code, words: &[&str]| -> Result<()> {
        let recording = Memtap::record(context)?
            .arguments(arguments)
            .fixture(&fixture)
            .run()?;
        recording.refused(code, words)?;
        Ok(())
    };
    refused(["--symbol", "take_all=malloc"], 1, &["take_all", "nm"])?;
    refused(["--allocator", "pond_"], 1, &["pond_", "files"])?;
    refused(["--symbol", "/no/such/file:take=malloc"], 2, &["/no/such/file"])?;
    let recording = Memtap::record(context)?
        .arguments(["--symbol", "take=mallok"])
        .fixture(&fixture)
        .run()?
        .ended_with(2)?;
    let said = &recording.finished.stderr;
    anyhow::ensure!(
        said.contains("mallok") && said.contains("posix_memalign"),
        "the shapes are not listed: {said}"
    );
    Ok(())
}
