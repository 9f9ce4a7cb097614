//! Targets are safe: from attaching, detaching, an interrupt, a kill; and nothing is left behind.

use std::io::Write as _;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{
    Context, Fixture, Leftovers, Memtap, Need, RunningProgram, differing_text, eventually, uprobe_events,
};
use test_support::child::{ChildGuard, Scope};

use crate::case::{Case, case};
use crate::tables::stopped::{guard_of, is_guard};
use crate::under_load::ProcessUnderLoad;

pub(crate) const CASES: &[Case] = &[
    case(
        "robust::attach_100_times",
        &[Need::Compiler, Need::Namespaces],
        attach_100_times,
    ),
    case("robust::killed", &[Need::Compiler, Need::Namespaces], killed),
    case("robust::launcher_killed", &[Need::Compiler], launcher_killed),
    case("robust::interrupted", &[Need::Compiler], interrupted),
    case(
        "robust::interrupted_command",
        &[Need::Compiler],
        interrupted_command,
    ),
    case("robust::second_signal", &[], second_signal),
    case("robust::ctrl_c", &[], ctrl_c),
    case("robust::target_ends", &[Need::Compiler], target_ends),
    case(
        "robust::exits_during_attach",
        &[Need::Compiler],
        exits_during_attach,
    ),
];

/// The time that the kernel may take to let go of what a process that has ended held.
const RELEASE_LIMIT: Duration = Duration::from_secs(20);

/// The state before memtap ran.
struct Before {
    objects: Leftovers,
    events: String,
}

impl Before {
    fn look(context: &Context) -> Result<Self> {
        Ok(Self {
            objects: Leftovers::now(context)?,
            events: uprobe_events(context)?,
        })
    }

    /// Fails unless everything is as it was, in the kernel and in the target's code.
    fn is_restored(&self, context: &Context, target: &mut ProcessUnderLoad) -> Result<()> {
        let mut left = Vec::new();
        let is_clean = eventually(RELEASE_LIMIT, || {
            left = Leftovers::now(context)?.since(&self.objects);
            Ok(left.is_empty())
        })?;
        ensure!(is_clean, "BPF objects are left: {left:?}");
        let mut text = String::new();
        let is_clean = eventually(RELEASE_LIMIT, || {
            text = differing_text(context, target.pid())?;
            Ok(text.is_empty())
        })?;
        ensure!(is_clean, "probes are left in the target:\n{text}");
        let events = uprobe_events(context)?;
        ensure!(
            events == self.events,
            "uprobe_events was {:?} and is {events:?}",
            self.events
        );
        target.advances()
    }
}

fn attach_100_times(context: &Context) -> Result<()> {
    let before = Before::look(context)?;
    let mut target = ProcessUnderLoad::start(context)?;
    for round in 0..100 {
        let recording = Memtap::record(context)?
            .process(target.pid())
            .arguments(["-d", "50ms"])
            .run()
            .and_then(memtap_tests::MemtapRecording::whole)
            .with_context(|| format!("attaching for the {round}th time"))?;
        let calls = recording.summary()?.number("/totals/alloc/count")?;
        ensure!(calls > 0, "round {round} saw no call");
        target.advances()?;
        // Hundreds of equal entries help nobody.
        memtap_tests::journal::clear();
        if round % 25 == 0 {
            before.is_restored(context, &mut target)?;
        }
    }
    before.is_restored(context, &mut target)?;
    target.stop(context)
}

/// `kill -9` at various times: while it attaches, and while it records.
fn killed(context: &Context) -> Result<()> {
    let before = Before::look(context)?;
    let mut target = ProcessUnderLoad::start(context)?;
    let mut was_probed = false;
    for delay_ms in [0, 20, 50, 100, 150, 200, 300] {
        let session = Memtap::record(context)?.process(target.pid()).start()?;
        sleep(Duration::from_millis(delay_ms));
        session.signal("KILL")?;
        session.finish()?.ended_with(137)?;
        before
            .is_restored(context, &mut target)
            .with_context(|| format!("killed after {delay_ms} ms"))?;
    }
    for _ in 0..3 {
        let mut session = Memtap::record(context)?.process(target.pid()).start()?;
        session.wait_until_tracing()?;
        // The probes are there: the look that follows can tell.
        was_probed |= eventually(Duration::from_secs(10), || {
            Ok(!differing_text(context, target.pid())?.is_empty())
        })?;
        session.signal("KILL")?;
        session.finish()?.ended_with(137)?;
        before.is_restored(context, &mut target)?;
    }
    ensure!(was_probed, "no probe was ever seen in the target's code");
    target.stop(context)
}

/// A command whose launcher is killed goes on or ends; it is not left waiting for a start that
/// nobody gives.
fn launcher_killed(context: &Context) -> Result<()> {
    let target = Fixture::c(context, "under_load")?;
    for delay_ms in [0, 10, 30, 60, 100, 150, 200, 300] {
        let memtap = Memtap::record(context)?;
        let progress = memtap.directory().join("progress");
        let progress = progress.to_str().context("not a plain path")?.to_owned();
        let target = target.path.to_str().context("not a plain path")?;
        let session = memtap.command([target, &progress, "100000"]).start()?;
        sleep(Duration::from_millis(delay_ms));
        session.signal("KILL")?;
        session.finish()?;
        let is_gone = eventually(RELEASE_LIMIT, || Ok(with_argument(&progress)?.is_empty()))?;
        if !is_gone {
            for pid in with_argument(&progress)? {
                context.signal(pid, "KILL")?;
            }
            anyhow::bail!("killed after {delay_ms} ms, memtap left its command waiting");
        }
    }
    Ok(())
}

/// The processes that were given this argument.
fn with_argument(argument: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let pid: Option<u32> = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // A process can be gone by now.
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let has_it = words
            .split(|byte| *byte == 0)
            .any(|word| word == argument.as_bytes());
        found.extend(pid.filter(|_| has_it));
    }
    Ok(found)
}

/// The first interrupt stops and reports.
fn interrupted(context: &Context) -> Result<()> {
    let target = ProcessUnderLoad::start(context)?;
    for signal in ["INT", "TERM"] {
        let mut session = Memtap::record(context)?.process(target.pid()).start()?;
        session.wait_until_tracing()?;
        sleep(Duration::from_millis(200));
        session.signal(signal)?;
        let recording = session.finish()?.whole()?;
        let calls = recording.summary()?.number("/totals/alloc/count")?;
        ensure!(calls > 0, "nothing was reported after SIG{signal}");
        let duration = recording.summary()?.json["duration_s"]
            .as_f64()
            .context("no duration")?;
        ensure!((0.1..30.0).contains(&duration), "a recording of {duration} s");
    }
    target.stop(context)
}

/// A signal that ends the recording reaches the command too, and its exit code is passed on: busy
/// ends well at SIGTERM, and knows nothing of SIGINT.
fn interrupted_command(context: &Context) -> Result<()> {
    let target = Fixture::c(context, "under_load")?;
    for (signal, code) in [("TERM", 0), ("INT", 130)] {
        let memtap = Memtap::record(context)?;
        let progress = memtap.directory().join("progress");
        let command = [target.path.as_os_str(), progress.as_os_str()];
        let mut session = memtap.command(command).start()?;
        session.wait_until_tracing()?;
        sleep(Duration::from_millis(300));
        session.signal(signal)?;
        let recording = session.finish()?.ended_with(code)?;
        let summary = recording.summary()?;
        summary.lost_nothing()?;
        ensure!(
            summary.number("/totals/alloc/count")? > 0,
            "nothing was reported after SIG{signal}"
        );
    }
    Ok(())
}

/// A command that heeds no signal is waited for, which is said, and nothing may stop it any more; a
/// second signal ends memtap alone.
fn second_signal(context: &Context) -> Result<()> {
    let memtap = Memtap::record(context)?.command([
        "sh",
        "-c",
        "trap '' TERM; echo $$; exec sleep 60 >/dev/null 2>&1",
    ]);
    let mut session = memtap.start()?;
    session.wait_until_tracing()?;
    ensure!(
        eventually(RELEASE_LIMIT, || Ok(session.stdout().ends_with('\n')))?,
        "the command does not begin"
    );
    let command: u32 = session.stdout().trim().parse()?;
    let guard = guard_of(session.pid()?)?;
    session.signal("TERM")?;
    session.wait_until_said(&["still runs; waiting for it, no longer traced"])?;
    ensure!(!is_guard(guard), "the guard {guard} is left");
    session.signal("TERM")?;
    let recording = session.finish()?.ended_with(128 + 15)?;
    context.signal(command, "KILL")?;
    recording.summary()?.lost_nothing()?;
    ensure!(
        recording.summary()?.number("/totals/alloc/count")? > 0,
        "nothing was reported"
    );
    Ok(())
}

/// Ctrl-C on a terminal reaches a command at once, with memtap: memtap does not send it for a
/// second time, which many programs take for impatience.
fn ctrl_c(context: &Context) -> Result<()> {
    const COUNTS: &str = "count=0; trap 'count=$((count + 1))' INT; touch begun; \
                          while [ $count = 0 ]; do sleep 0.1; done; \
                          for turn in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 0.1; done; echo $count > counted";
    let directory = tempfile::tempdir()?;
    let script = directory.path().join("counts.sh");
    std::fs::write(&script, COUNTS)?;
    let record = format!(
        "{} record -q -o stacks.folded -- sh {}",
        context.memtap.display(),
        script.display()
    );
    // It gives the command a terminal, on which it types what it reads.
    let mut command = context.privileged("script");
    command
        .args(["-qec", &record, "/dev/null"])
        .current_dir(directory.path());
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut terminal = ChildGuard::spawn(&mut command, Scope::Process)?;
    let mut typed = terminal.take_stdin().context("no pipe")?;
    let begun = eventually(RELEASE_LIMIT, || Ok(directory.path().join("begun").exists()))?;
    ensure!(begun, "the command does not begin");
    typed.write_all(b"\x03")?;
    let counted = directory.path().join("counted");
    ensure!(
        eventually(RELEASE_LIMIT, || Ok(counted.exists()))?,
        "the command does not end"
    );
    sleep(Duration::from_millis(300));
    let count = std::fs::read_to_string(counted)?;
    ensure!(count.trim() == "1", "it was interrupted {} times", count.trim());
    let folded = std::fs::read_to_string(directory.path().join("stacks.folded"))?;
    ensure!(!folded.is_empty(), "nothing was reported");
    Ok(())
}

/// A recording without a duration ends with its last target.
fn target_ends(context: &Context) -> Result<()> {
    let sleeper = Fixture::c(context, "sleeper")?;
    let mut command = sleeper.command();
    command.arg("4000");
    let target = RunningProgram::start(command)?;
    let mut session = Memtap::record(context)?.process(target.pid()).start()?;
    session.wait_until_tracing()?;
    context.signal(target.pid(), "TERM")?;
    target.finish(memtap_tests::LIMIT)?;
    let recording = session.finish()?.whole()?;
    ensure!(
        recording.summary()?.number("/totals/alloc/count")? == 0,
        "its one call was made before"
    );
    Ok(())
}

/// Whenever the target goes, memtap either records what there was or says in one line that it has
/// gone.
fn exits_during_attach(context: &Context) -> Result<()> {
    let sleeper = Fixture::c(context, "sleeper")?;
    let mut refused = 0;
    for delay_ms in (0..600).step_by(30) {
        let mut command = sleeper.command();
        command.arg(delay_ms.to_string());
        let target = RunningProgram::start(command)?;
        let pid = target.pid().to_string();
        let recording = Memtap::record(context)?
            .process(target.pid())
            .arguments(["-d", "2s"])
            .run()?;
        target.finish(memtap_tests::LIMIT)?;
        if recording.finished.code() == 0 {
            recording.summary()?.lost_nothing()?;
        } else {
            let recording = recording.refused(1, &[&pid])?;
            ensure!(
                !recording.finished.stderr.contains("allocator"),
                "the target has an allocator; it has ended"
            );
            refused += 1;
        }
    }
    ensure!(refused < 20, "no target was ever recorded");
    Ok(())
}
