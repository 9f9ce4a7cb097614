//! Names of files that have gone, or were replaced or overwritten, by the time when names are
//! wanted.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Result, ensure};
use memtap_tests::{Context, LIMIT, Memtap, MemtapRecording, Need, Recipe, RunningProgram, eventually};

use super::shipped::{CHAIN, ROUND_BYTES, has_chain, object};
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("symbols::deleted", &[Need::Compiler], deleted),
    case("symbols::replaced", &[Need::Compiler], replaced),
    case("symbols::exited_and_deleted", &[Need::Compiler], exited),
    case("symbols::overwritten", &[Need::Compiler], |context| {
        overwritten(context, "-Wl,--build-id")
    }),
    case(
        "symbols::overwritten_without_build_id",
        &[Need::Compiler],
        |context| overwritten(context, "-Wl,--build-id=none"),
    ),
    case("symbols::touched", &[Need::Compiler], touched),
];

/// Another program, whose functions are at the same places and have other names.
const OTHER: [&str; 3] = [
    "-Dhidden_outer=other_outer",
    "-Dhidden_leaf=other_leaf",
    "-Dinlined_part=other_part",
];
const OTHER_CHAIN: [&str; 4] = ["main", "other_outer", "other_part", "other_leaf"];

fn hidden(context: &Context, flags: &[&str]) -> Result<std::path::PathBuf> {
    Ok(Recipe::symbols_c("hidden").flags(flags).build(context)?.path)
}

/// Attaches to the fixture, changes what its path leads to, and lets it go on.
fn while_it_runs(context: &Context, change: impl FnOnce(&Path) -> Result<()>) -> Result<MemtapRecording> {
    let memtap = Memtap::record(context)?;
    let program = memtap.directory().join("hidden");
    std::fs::copy(hidden(context, &[])?, &program)?;
    let go = memtap.directory().join("go");
    let mut command = std::process::Command::new(&program);
    command.arg(&go);
    let mut running = RunningProgram::start(command)?;
    let is_ready = eventually(LIMIT, || {
        ensure!(running.is_alive()?, "the fixture ended: {}", running.stderr());
        Ok(running.stdout().contains("waiting"))
    })?;
    ensure!(is_ready, "the fixture does not start");
    let mut session = memtap.process(running.pid()).start()?;
    session.wait_until_tracing()?;
    change(&program)?;
    std::fs::write(&go, "")?;
    running.finish(LIMIT)?.succeeded()?;
    session.finish()?.whole()
}

fn deleted(context: &Context) -> Result<()> {
    let recording = while_it_runs(context, |program| Ok(std::fs::remove_file(program)?))?;
    has_chain(&recording, &CHAIN, ROUND_BYTES)
}

/// The same path is another file, as an update leaves it.
fn replaced(context: &Context) -> Result<()> {
    let other = hidden(context, &OTHER)?;
    let recording = while_it_runs(context, |program| {
        let before = program.metadata()?.ino();
        let beside = program.with_extension("new");
        std::fs::copy(&other, &beside)?;
        std::fs::rename(&beside, program)?;
        ensure!(program.metadata()?.ino() != before, "the same file");
        Ok(())
    })?;
    has_chain(&recording, &CHAIN, ROUND_BYTES)?;
    ensure!(
        !recording.folded()?.text.contains("other_"),
        "names of the file that came later"
    );
    Ok(())
}

/// Runs a shell script in the directory of the test, with `one` and `other` in it.
fn scripted(context: &Context, flag: &str, script: &str) -> Result<MemtapRecording> {
    let memtap = Memtap::record(context)?;
    let directory = memtap.directory().to_owned();
    std::fs::copy(hidden(context, &[flag])?, directory.join("one"))?;
    std::fs::copy(
        hidden(context, &[&[flag][..], &OTHER[..]].concat())?,
        directory.join("other"),
    )?;
    let script = format!("set -e; cd '{}'; {script}", directory.display());
    memtap.command(["sh", "-c", &script]).run()?.whole()
}

fn exited(context: &Context) -> Result<()> {
    // The first run is a moment longer than memtap takes to hear of it.
    let script = "cp one hidden; (sleep 0.5; touch go) & ./hidden go; wait; rm hidden; sleep 0.2";
    let recording = scripted(context, "-Wl,--build-id", script)?;
    has_chain(&recording, &CHAIN, 2 * ROUND_BYTES)
}

/// The same file has another program in it when names are wanted: the first one's frames have no
/// names, since those of the second would be wrong; and the second one's, which ran from there too,
/// have their own.
fn overwritten(context: &Context, flag: &str) -> Result<()> {
    let script = "cp one hidden; (sleep 0.5; touch go) & ./hidden go; wait; sleep 0.1; cat other > hidden; \
        rm go; (sleep 0.5; touch go) & ./hidden go; wait; sleep 0.2";
    let recording = scripted(context, flag, script)?;
    has_chain(&recording, &OTHER_CHAIN, 2 * ROUND_BYTES)?;
    let folded = recording.folded()?;
    let nameless = folded.weight_of(|line| {
        line.frames
            .iter()
            .filter(|frame| frame.starts_with("[hidden+0x"))
            .count()
            >= 3
    });
    ensure!(
        nameless == 2 * ROUND_BYTES,
        "{nameless} bytes below places of the first program, not {}:\n{}",
        2 * ROUND_BYTES,
        folded.text
    );
    let warnings: Vec<_> = recording
        .finished
        .stderr_lines()
        .into_iter()
        .filter(|line| line.contains("overwritten"))
        .collect();
    ensure!(
        warnings.len() == 1 && warnings[0].contains("hidden"),
        "not one warning: {warnings:?}"
    );
    Ok(())
}

/// A file with another date and the same build is what it was.
fn touched(context: &Context) -> Result<()> {
    let script =
        "cp one hidden; (sleep 0.5; touch go) & ./hidden go; wait; touch hidden; cat one > hidden; sleep 0.1";
    let recording = scripted(context, "-Wl,--build-id", script)?;
    has_chain(&recording, &CHAIN, 2 * ROUND_BYTES)?;
    let object = object(&recording, "/hidden")?;
    ensure!(object["overwritten"].is_null(), "it was not: {object}");
    Ok(())
}
