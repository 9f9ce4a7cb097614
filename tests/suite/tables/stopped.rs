//! `--stop-on-dlopen`, and what memtap itself runs: whoever loads code is stopped until its table
//! is there, and goes on whatever happens to memtap.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{
    Chain, Context, LIMIT, Memtap, MemtapSession, Need, Recipe, Reported, RunningProgram, eventually, run,
};

use super::bursts::{Bursts, is_whole, tables};
use super::late;
use crate::case::{Case, case};
use crate::stacks::walked::Walked;

pub(crate) const CASES: &[Case] = &[
    case("tables::stop_on_dlopen", &[Need::Compiler], stop_on_dlopen),
    case("tables::stopped_unseen", &[Need::Compiler], stopped_unseen),
    case(
        "tables::executed_and_stopped",
        &[Need::Compiler],
        executed_and_stopped,
    ),
    case(
        "tables::killed_while_stopped",
        &[Need::Compiler],
        killed_while_stopped,
    ),
    case("tables::memtap_hangs", &[Need::Compiler], memtap_hangs),
    case(
        "tables::killed_at_any_time",
        &[Need::Compiler],
        killed_at_any_time,
    ),
];

/// The time that it may take until a process is where it has to come.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The program's exit code.
const CODE: i32 = 7;

/// Many times as many calls as there is room for copies, on one thread and on several.
fn stop_on_dlopen(context: &Context) -> Result<()> {
    let asked: &[&str] = &["--stop-on-dlopen"];
    for (options, libraries, calls, threads) in [
        (asked, 2, 3000, 0),
        (asked, 2, 3000, 3),
        (asked, 200, 10, 0),
        (&[], 2, 3000, 0),
    ] {
        stops(context, options, libraries, calls, threads).with_context(|| {
            format!("with {options:?}, {libraries} libraries and {threads} other threads")
        })?;
    }
    Ok(())
}

fn stops(context: &Context, options: &[&str], libraries: usize, calls: u64, threads: u64) -> Result<()> {
    let memtap = Memtap::record(context)?.arguments(options.iter().copied());
    let bursts = Bursts::new(context, memtap.directory(), libraries)?.waiting();
    let program = Bursts::program(context)?;
    let words = [calls.to_string(), threads.to_string(), CODE.to_string()];

    let mut session = Walked::start(
        bursts
            .of_memtap(memtap)?
            .command(std::iter::once(program.path.as_os_str()).chain(words.iter().map(AsRef::as_ref))),
    )?;
    session.wait_until_tracing()?;
    let guard = guard_of(session.pid()?)?;
    bursts.begin()?;
    let walked = Walked::read(session.finish()?.ended_with(CODE)?)?;
    ensure!(!is_guard(guard), "the guard {guard} is left");

    walked.recording.summary()?.lost_nothing()?;
    let reported = walked.recording.reported()?;
    let tables = is_whole(&walked, &reported)?;
    let copies = tables["finished_from_copies"];
    // A thread alone stops where it comes to new code. The kernel may stop several by way of
    // another of them: until that one gets a processor, the others go on.
    let most = if threads == 0 { libraries as u64 } else { calls / 2 };
    ensure!(
        (1..=most).contains(&copies),
        "at most {most} walks may come to code without a table: {tables:?}"
    );
    ensure!(tables["stops"] > 0, "nothing was stopped: {tables:?}");

    let mut alone = program.command();
    alone.args(&words);
    bursts.of_command(&mut alone)?;
    let alone = run(alone)?;
    ensure!(alone.code() == CODE, "alone it ends with {}", alone.code());
    let others = |reported: &Reported| {
        reported
            .images
            .iter()
            .map(|image| account(&image.chains))
            .collect::<Vec<_>>()
    };
    let (found, expected) = (others(&reported), others(&Reported::parse(&alone.stdout)?));
    ensure!(found == expected, "it reported {found:?}, and alone {expected:?}");
    Ok(())
}

/// A process that would notice is not stopped: one that has other threads, a tracer, a shell that
/// looks after jobs, or a parent that handles the signals of its children. And nobody is that
/// others run.
fn stopped_unseen(context: &Context) -> Result<()> {
    /// The program's exit code if it saw a stop of its plainest child, and of no other.
    const PLAIN: i32 = 1;
    /// In each way; there is room for copies of them.
    const CALLS: u64 = 50;
    let watched = Recipe::plain_c("watched").flags(["-ldl"]).build(context)?;
    let calls = CALLS.to_string();

    // Its children are stopped for nothing else.
    let scope = "--scope=machine";
    for (way, code, stops) in [("waits", PLAIN, 1), ("handles", 0, 0)] {
        let memtap = Memtap::record(context)?.argument(scope);
        let bursts = Bursts::new(context, memtap.directory(), 4)?;
        let command = [watched.path.as_os_str(), calls.as_ref(), way.as_ref()];
        let session = Walked::start(bursts.of_memtap(memtap)?.command(command))?;
        let walked = Walked::read(session.finish()?.ended_with(code).context(way)?)?;
        let reported = walked.recording.reported()?;
        let reported_calls = reported.functions()["malloc"].calls;
        ensure!(
            reported_calls == 4 * CALLS,
            "{way}: the program reported {reported_calls} calls"
        );
        let figures = is_whole(&walked, &reported).context(way)?;
        ensure!(
            figures["stops"] == stops,
            "{way}: its own command: expected {stops} stops: {figures:?}"
        );
    }

    let directory = tempfile::tempdir()?;
    let bursts = Bursts::new(context, directory.path(), 4)?.waiting();
    let mut command = watched.command();
    command.arg(&calls);
    bursts.of_command(&mut command)?;
    let target = RunningProgram::start(command)?;
    let memtap = Memtap::record(context)?
        .arguments(["--follow", scope])
        .process(target.pid());
    let mut session = Walked::start(memtap)?;
    session.wait_until_tracing()?;
    bursts.begin()?;
    let target = target.finish(LIMIT)?;
    ensure!(
        target.code() == 0,
        "a child of another's program was stopped: {target:?}"
    );
    let walked = Walked::end(session)?;
    let tables = tables(&walked)?;
    ensure!(tables["stops"] == 0, "another's program was stopped: {tables:?}");
    Ok(())
}

/// Programs that a shell runs, one beside the other, and that cannot be known before: those that
/// come to code whose table is being made for another are stopped as well.
fn executed_and_stopped(context: &Context) -> Result<()> {
    const CALLS: u64 = 2000;
    let memtap = Memtap::record(context)?;
    let bursts = Bursts::new(context, memtap.directory(), 1)?;
    let program = Bursts::program(context)?;
    let read = Bursts::to_be_read(&program, memtap.directory())?;
    let run = format!("\"$program\" {CALLS}");
    let script = format!("{read}; {run} > one & {run} > two; wait; cat one two; rm one two");
    let walked = Walked::run(bursts.of_memtap(memtap)?.command(["sh", "-c", &script]))?;
    let reported = walked.recording.reported()?;
    ensure!(
        reported.images.len() == 2,
        "two programs were to tell: {reported:?}"
    );
    let tables = is_whole(&walked, &reported)?;
    ensure!(tables["stops"] > 0, "nothing was stopped: {tables:?}");
    Ok(())
}

/// Returns what a program reported, without its process's number.
fn account(chains: &[Chain]) -> Vec<(String, u64, u64)> {
    let account = |chain: &Chain| (chain.frames.join(";"), chain.count.calls, chain.count.bytes);
    chains.iter().map(account).collect()
}

/// A program that waits to load what it calls from, so often, and memtap at work on it; and
/// memtap's guard.
pub(super) fn traced<'a>(
    context: &'a Context,
    bursts: &Bursts,
    calls: &str,
) -> Result<(RunningProgram, MemtapSession<'a>, u32)> {
    let mut command = Bursts::program(context)?.command();
    command.arg(calls);
    bursts.of_command(&mut command)?;
    let target = RunningProgram::start(command)?;
    let mut session = Memtap::record(context)?
        .argument("--stop-on-dlopen")
        .process(target.pid())
        .start()?;
    session.wait_until_tracing()?;
    let guard = guard_of(session.pid()?)?;
    Ok((target, session, guard))
}

/// Stops memtap, and lets the target come to code for which it is stopped as well.
pub(super) fn stop_while_memtap_is(
    session: &MemtapSession<'_>,
    bursts: &Bursts,
    target: &RunningProgram,
) -> Result<()> {
    session.signal("STOP")?;
    bursts.begin()?;
    let is_stopped = eventually(PATIENCE, || Ok(state(target.pid()) == Some('T')))?;
    ensure!(is_stopped, "the target is not stopped: {:?}", state(target.pid()));
    Ok(())
}

/// memtap cannot resume what it has stopped, and is killed: its guard does.
fn killed_while_stopped(context: &Context) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let bursts = Bursts::new(context, directory.path(), 1)?.waiting();
    let (target, session, guard) = traced(context, &bursts, "100")?;
    stop_while_memtap_is(&session, &bursts, &target)?;
    ensure!(!bursts.is_done(), "the target was stopped too late");
    session.signal("KILL")?;
    session.finish()?.ended_with(137)?;
    let finished = target.finish(LIMIT)?.succeeded()?;
    let calls: u64 = Reported::parse(&finished.stdout)?.functions()["malloc"].calls;
    ensure!(calls == 100, "the target made {calls} calls");
    ensure!(
        eventually(PATIENCE, || Ok(!is_guard(guard)))?,
        "the guard {guard} is left"
    );
    Ok(())
}

/// memtap stands still, and cannot resume what was stopped: its guard does after a while, and no
/// stack is lost.
fn memtap_hangs(context: &Context) -> Result<()> {
    late::unseen(context, &[], 100)
}

/// memtap is killed while a program that loads one library after the other is stopped for each:
/// until the last probe is off, it is stopped again.
fn killed_at_any_time(context: &Context) -> Result<()> {
    let directory = tempfile::tempdir()?;
    for delay_ms in [1, 10, 30] {
        let bursts = Bursts::new(context, directory.path(), 300)?.waiting();
        let (target, session, guard) = traced(context, &bursts, "1")?;
        bursts.begin()?;
        std::thread::sleep(Duration::from_millis(delay_ms));
        session.signal("KILL")?;
        session.finish()?.ended_with(137)?;
        let finished = target
            .finish(PATIENCE)
            .with_context(|| format!("killed after {delay_ms} ms"))?;
        finished.succeeded()?;
        ensure!(
            eventually(PATIENCE, || Ok(!is_guard(guard)))?,
            "the guard {guard} is left"
        );
        std::fs::remove_file(&bursts.go)?;
    }
    Ok(())
}

/// The guard process of this memtap.
pub(crate) fn guard_of(memtap: u32) -> Result<u32> {
    let mut found = None;
    eventually(PATIENCE, || {
        found = find_guard(memtap)?;
        Ok(found.is_some())
    })?;
    found.with_context(|| format!("memtap {memtap} has no guard"))
}

/// The guard process of this memtap, if there is one now.
pub(super) fn find_guard(memtap: u32) -> Result<Option<u32>> {
    let shown = format!("stop-guard {memtap}");
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if is_guard(pid) && arguments.trim_end_matches('\0') == shown {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// Returns whether a guard with this process id runs: one whose parent was killed may wait long for
/// somebody to take note of its end.
pub(crate) fn is_guard(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == "stop-guard")
        && state(pid) != Some('Z')
}

/// Returns how a process is: `R`, `S`, `T`, …
pub(super) fn state(pid: u32) -> Option<char> {
    stat_word(pid, 0)?.chars().next()
}

/// A word of `/proc/PID/stat` behind the name, of a process that runs.
pub(super) fn stat_word(pid: u32, at: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(at).map(str::to_owned)
}
