//! The guard of stopped processes: nobody is left stopped, however memtap ends, and nobody is
//! stopped without a guard.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{
    Context, LIMIT, Memtap, Need, Recipe, Reported, RunningProgram, TestCgroup, eventually, run,
};

use super::bursts::Bursts;
use super::stopped::{
    PATIENCE, find_guard, guard_of, is_guard, stat_word, state, stop_while_memtap_is, traced,
};
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("guard::killed_with_group", &[Need::Compiler], killed_with_group),
    case(
        "guard::killed_with_cgroup",
        &[Need::Compiler, Need::Cgroup2],
        killed_with_cgroup,
    ),
    case("guard::signals", &[Need::Compiler], signals),
    case("guard::killed_itself", &[Need::Compiler], killed_itself),
    case("guard::stopped_by_others", &[Need::Compiler], stopped_by_others),
];

/// The variable with the number of kills at random times, for more than a suite's.
const ROUNDS: &str = "MEMTAP_GUARD_ROUNDS";

/// The time after memtap's end in which whoever it has stopped must go on.
const RESUME_LIMIT: Duration = Duration::from_secs(2);

/// memtap and everything in its process group are killed at random times, most of them while a
/// target that loads libraries is stopped again and again.
fn killed_with_group(context: &Context) -> Result<()> {
    let rounds = match std::env::var(ROUNDS) {
        Ok(text) => text.parse().with_context(|| format!("{ROUNDS}={text}"))?,
        Err(_) => 25,
    };
    let directory = tempfile::tempdir()?;
    let bursts = Bursts::new(context, directory.path(), 300)?;
    let program = Recipe::plain_c("loading").flags(["-ldl"]).build(context)?;
    let mut random = std::process::id().into();
    let (mut stopped, mut left) = (0, Vec::new());
    for round in 0..rounds {
        let mut command = program.command();
        bursts.of_command(&mut command)?;
        let target = RunningProgram::start(command)?;
        let mut session = Memtap::record(context)?
            .argument("--stop-on-dlopen=always")
            .process(target.pid())
            .start()?;
        // Every other time while it attaches.
        if round % 2 == 0 {
            session.wait_until_tracing()?;
        }
        let delay = Duration::from_millis(next_random(&mut random) % 800);
        let begun = Instant::now();
        let mut was_stopped = false;
        while begun.elapsed() < delay {
            was_stopped |= state(target.pid()) == Some('T');
            sleep(Duration::from_millis(1));
        }
        let memtap = session.pid()?;
        let guard = find_guard(memtap)?;
        let group = stat_word(memtap, 2).context("memtap has ended")?;
        let mut kill = context.privileged("kill");
        kill.args(["-KILL", "--", &format!("-{group}")]);
        run(kill)?.succeeded()?;
        session.finish()?.ended_with(137)?;
        let has_ended = eventually(RESUME_LIMIT, || Ok(guard.is_none_or(|guard| !is_guard(guard))))?;
        ensure!(has_ended, "round {round}: the guard {guard:?} does not end");
        // A process that runs is never found stopped by chance.
        if state(target.pid()) == Some('T') {
            left.push((round, delay));
        }
        stopped += usize::from(was_stopped);
    }
    ensure!(
        left.is_empty(),
        "left stopped in {} of {rounds} rounds: {left:?}",
        left.len()
    );
    ensure!(
        stopped * 4 >= rounds,
        "the target was stopped in {stopped} of {rounds} rounds alone: that proves little"
    );
    Ok(())
}

/// The next of a sequence of numbers (`SplitMix64`).
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Has `end` kill memtap, by its process id and its guard's, when it cannot resume the target that
/// it has stopped: the target goes on, and makes all of its calls.
fn goes_on(context: &Context, end: impl FnOnce(u32, u32) -> Result<()>) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let bursts = Bursts::new(context, directory.path(), 1)?.waiting();
    let (target, session, guard) = traced(context, &bursts, "100")?;
    stop_while_memtap_is(&session, &bursts, &target)?;
    end(session.pid()?, guard)?;
    session.finish()?.ended_with(137)?;
    let finished = target.finish(PATIENCE)?.succeeded()?;
    let calls = Reported::parse(&finished.stdout)?.functions()["malloc"].calls;
    ensure!(calls == 100, "the target made {calls} calls");
    let has_ended = eventually(PATIENCE, || Ok(!is_guard(guard)))?;
    ensure!(has_ended, "the guard {guard} is left");
    Ok(())
}

/// A service's cgroup is killed as a whole. The guard is not in it.
fn killed_with_cgroup(context: &Context) -> Result<()> {
    let cgroup = TestCgroup::create(context)?;
    let directory = tempfile::tempdir()?;
    let bursts = Bursts::new(context, directory.path(), 1)?.waiting();
    let mut command = Bursts::program(context)?.command();
    command.arg("100");
    bursts.of_command(&mut command)?;
    let target = RunningProgram::start(command)?;
    let enter = format!("echo 0 > {}/cgroup.procs", cgroup.path().display());
    let mut session = Memtap::record(context)?
        .after(&enter)
        .argument("--stop-on-dlopen")
        .process(target.pid())
        .start()?;
    session.wait_until_tracing()?;
    let memtap = session.pid()?;
    let guard = guard_of(memtap)?;
    stop_while_memtap_is(&session, &bursts, &target)?;
    let inside = std::fs::read_to_string(cgroup.path().join("cgroup.procs"))?;
    let inside: Vec<&str> = inside.lines().collect();
    ensure!(
        inside.contains(&memtap.to_string().as_str()),
        "memtap is not among {inside:?}"
    );
    let mut kill = context.privileged("kill");
    kill.arg("-KILL").args(&inside);
    run(kill)?.succeeded()?;
    session.finish()?.ended_with(137)?;
    target.finish(PATIENCE)?.succeeded()?;
    let has_ended = eventually(PATIENCE, || Ok(!is_guard(guard)))?;
    ensure!(has_ended, "the guard {guard} is left");
    cgroup.remove()
}

/// The guard is apart from memtap, and no signal but one ends it.
fn signals(context: &Context) -> Result<()> {
    goes_on(context, |memtap, guard| {
        for (at, what) in [(2, "process group"), (3, "session")] {
            let (own, other) = (stat_word(guard, at), stat_word(memtap, at));
            ensure!(
                own.is_some() && own != other,
                "memtap and its guard are in one {what}"
            );
        }
        for file in ["comm", "cmdline"] {
            let shown = std::fs::read_to_string(format!("/proc/{guard}/{file}"))?;
            ensure!(
                !shown.contains("memtap"),
                "`pkill memtap` kills a guard with {file} {shown:?}"
            );
        }
        for signal in ["HUP", "INT", "QUIT", "TERM", "USR1", "PIPE"] {
            context.signal(guard, signal)?;
        }
        // memtap's own children too: the guard's parent.
        let mut kill = context.privileged("pkill");
        kill.args(["-KILL", "-P", &memtap.to_string()]);
        run(kill)?.succeeded()?;
        context.signal(memtap, "KILL")
    })
}

/// The guard is killed: memtap says so, and stops nobody any more.
fn killed_itself(context: &Context) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let bursts = Bursts::new(context, directory.path(), 20)?.waiting();
    let (target, mut session, guard) = traced(context, &bursts, "2")?;
    context.signal(guard, "KILL")?;
    session.wait_until_said(&["guard", "no process is stopped any more"])?;
    bursts.begin()?;
    target.finish(LIMIT)?.succeeded()?;
    let recording = session.finish()?.whole()?;
    let summary = recording.summary()?;
    let stops = summary.number("/unwind_tables/stops")?;
    ensure!(stops == 0, "the target was stopped {stops} times without a guard");
    summary.lost_nothing()
}

/// A process that somebody else has stopped stays so, whether memtap ends in order or is killed.
fn stopped_by_others(context: &Context) -> Result<()> {
    for signal in ["INT", "KILL"] {
        let directory = tempfile::tempdir()?;
        let bursts = Bursts::new(context, directory.path(), 1)?.waiting();
        let (target, session, guard) = traced(context, &bursts, "1")?;
        context.signal(target.pid(), "STOP")?;
        let is_stopped = eventually(PATIENCE, || Ok(state(target.pid()) == Some('T')))?;
        ensure!(is_stopped, "the target does not stop");
        session.signal(signal)?;
        session.finish()?;
        let has_ended = eventually(PATIENCE, || Ok(!is_guard(guard)))?;
        ensure!(has_ended, "the guard {guard} is left");
        ensure!(
            state(target.pid()) == Some('T'),
            "a process that memtap had not stopped was resumed after {signal}"
        );
        context.signal(target.pid(), "CONT")?;
        bursts.begin()?;
        target.finish(LIMIT)?.succeeded()?;
    }
    Ok(())
}
