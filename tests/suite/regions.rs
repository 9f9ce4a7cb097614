//! Memory-map calls, compared with what strace sees.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{
    Context, Fixture, Memtap, MemtapRecording, Need, ProcessSummary, Region, Strace, difference,
};

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("regions::every_call", &[Need::Compiler, Need::Strace], every_call),
    case(
        "regions::empty_rust_program",
        &[Need::Rustc, Need::Strace],
        empty_rust_program,
    ),
    case(
        "regions::threads_of_a_rust_program",
        &[Need::Rustc, Need::Strace],
        rust_threads,
    ),
    case(
        "regions::distribution_program",
        &[Need::Strace],
        distribution_program,
    ),
    case("regions::with_heap", &[Need::Compiler, Need::Strace], with_heap),
    case(
        "regions::static_program",
        &[Need::Compiler, Need::StaticLibc, Need::Strace],
        static_program,
    ),
];

/// Records a command's memory-map calls and compares calls, errors and bytes with strace's.
fn as_strace(context: &Context, command: &[&str]) -> Result<MemtapRecording> {
    let recording = Memtap::record(context)?
        .arguments(["--events", "region"])
        .metric("region-bytes")
        .command(command)
        .run()?
        .whole()?;
    same_as_strace(context, command, &recording)?;
    Ok(recording)
}

fn same_as_strace(context: &Context, command: &[&str], recording: &MemtapRecording) -> Result<()> {
    let found = recording.summary()?.regions()?;
    let strace = Strace::of(context, command)?;
    same_regions(&strace.regions, &found)?;
    for (name, (calls, errors)) in Strace::table(context, command)? {
        let region = found.get(&name).copied().unwrap_or_default();
        // A break that does not move is no error to strace: the call returns where it is.
        let failed = if name == "brk" { errors } else { region.failed };
        ensure!(
            region.calls == calls && failed == errors,
            "{name}: strace -c has {calls} calls and {errors} errors, memtap {region:?}"
        );
    }
    every_line_has_a_stack(recording)
}

type Regions = BTreeMap<String, Region>;

fn same_regions(expected: &Regions, found: &Regions) -> Result<()> {
    for name in ["mmap", "munmap", "mremap", "brk"] {
        let expected = expected.get(name).copied().unwrap_or_default();
        let found = found.get(name).copied().unwrap_or_default();
        ensure!(
            found == expected,
            "{name}: strace sees {expected:?}, memtap {found:?}"
        );
    }
    Ok(())
}

fn every_line_has_a_stack(recording: &MemtapRecording) -> Result<()> {
    let folded = recording.folded()?;
    ensure!(!folded.lines.is_empty(), "the folded file is empty");
    for line in &folded.lines {
        ensure!(!line.frames.is_empty(), "a call without a stack: {line:?}");
    }
    Ok(())
}

fn plain(path: &Path) -> Result<&str> {
    path.to_str().context("not a plain path")
}

fn every_call(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "regions")?;
    let recording = as_strace(context, &[plain(&fixture.path)?])?;
    let regions = recording.summary()?.regions()?;
    ensure!(
        regions["brk"].failed == 1 && regions["munmap"].failed == 1,
        "one munmap and one brk fail: {regions:?}"
    );
    let folded = recording.folded()?;
    let page = 4096;
    // The wrappers of mmap in libc have no frame of their own, and may hide their caller from a
    // walk by frame pointers, but nothing beyond it. sbrk uses the frame pointer's register for
    // itself.
    for (name, bytes) in [
        ("map_and_unmap", 100 * 16 * page),
        ("map_odd", 10_000),
        ("remap", 4 * page),
    ] {
        let found =
            folded.weight_of(|line| line.function == "mmap" && line.passes(name) && line.passes("main"));
        ensure!(
            found == bytes,
            "{name}: {found} bytes of {bytes} by mmap:\n{}",
            folded.text
        );
    }
    let grown = folded.weight_of(|line| line.function == "brk");
    let expected = 10 * (3 * page + 100);
    ensure!(
        grown == expected,
        "{grown} bytes of {expected} by brk:\n{}",
        folded.text
    );
    Ok(())
}

/// Every brk and mmap that strace sees, each with a stack.
fn empty_rust_program(context: &Context) -> Result<()> {
    let fixture = Fixture::rust(context, "empty")?;
    let recording = as_strace(context, &[plain(&fixture.path)?])?;
    let regions = recording.summary()?.regions()?;
    ensure!(
        regions["brk"].calls > 0 && regions["mmap"].calls > 0,
        "not a start of a program: {regions:?}"
    );
    Ok(())
}

/// Records a fixture under strace, so that both look at one and the same run, and compares: what
/// the C library maps can depend on where the heap begins and on which thread is first. Returns the
/// fixture's process too.
fn one_run(fixture: &Fixture, memtap: Memtap<'_>) -> Result<(MemtapRecording, ProcessSummary)> {
    let dir = tempfile::tempdir()?;
    let command = Strace::command(dir.path(), &[plain(&fixture.path)?])?;
    let recording = memtap.command(command).run()?.whole()?;
    let mut processes = recording.summary()?.processes()?;
    processes.retain(|process| process.comm == fixture.comm);
    ensure!(processes.len() == 1, "{} processes of that name", processes.len());
    let process = processes.pop().context("no process")?;
    same_regions(&Strace::read(dir.path())?.regions, &process.regions)?;
    Ok((recording, process))
}

fn rust_threads(context: &Context) -> Result<()> {
    let fixture = Fixture::rust(context, "words")?;
    let memtap = Memtap::record(context)?
        .arguments(["--events", "region"])
        .metric("region-bytes");
    let (recording, _) = one_run(&fixture, memtap)?;
    every_line_has_a_stack(&recording)
}

fn distribution_program(context: &Context) -> Result<()> {
    as_strace(context, &["/bin/ls", "/usr"]).map(drop)
}

/// Both families at once: each has the figures that it has alone.
fn with_heap(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "functions")?;
    let memtap = Memtap::record(context)?.arguments(["--events", "heap,region"]);
    let (recording, process) = one_run(&fixture, memtap)?;
    let reported = recording.reported()?;
    if let Some(difference) = difference(&reported.functions(), &process.functions) {
        anyhow::bail!("the functions are not what they should be:\n{difference}");
    }
    recording
        .folded()?
        .compare(&reported, |chain| chain.count.bytes)?;
    Ok(())
}

/// Memory-map calls need no allocator that has a name.
fn static_program(context: &Context) -> Result<()> {
    let fixture = Fixture::static_c(context, "sleeper")?;
    let recording = as_strace(context, &[plain(&fixture.path)?, "1"])?;
    ensure!(
        recording.summary()?.regions()?["brk"].grown_bytes > 0,
        "the first malloc moves the break"
    );
    Ok(())
}
