//! `--cgroup`: who is in it, who comes and goes, and what is no cgroup.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{
    Context, Count, Counts, Fixture, LIMIT, Memtap, Need, RecordingSummary, Reported, RunningProgram,
    TestCgroup, eventually,
};

use crate::case::{Case, case};
use crate::lives::{MANY, has_each_probe_once, is_all_there, is_left_out};
use crate::under_load::ProcessUnderLoad;

const NEEDS: &[Need] = &[Need::Compiler, Need::Cgroup2];

pub(crate) const CASES: &[Case] = &[
    case("cgroups::running", NEEDS, running),
    case("cgroups::later_processes", NEEDS, later_processes),
    case("cgroups::moved_in_and_out", NEEDS, moved),
    case("cgroups::born_into", NEEDS, born_into),
    case("cgroups::root", NEEDS, root),
    case("cgroups::removed", NEEDS, removed),
    case("cgroups::live_and_estimate", NEEDS, live_and_estimate),
    case("cgroups::none", &[Need::Cgroup2], none),
    case(
        "cgroups::not_mounted",
        &[Need::Cgroup2, Need::Namespaces],
        not_mounted,
    ),
];

/// Processes that are in the cgroup, and below it, when memtap comes; one that is not.
fn running(context: &Context) -> Result<()> {
    let cgroup = TestCgroup::create(context)?;
    cgroup.below("inner/most")?;
    let (one, two, other) = (
        ProcessUnderLoad::start(context)?,
        ProcessUnderLoad::start(context)?,
        ProcessUnderLoad::start(context)?,
    );
    cgroup.take(one.pid(), "")?;
    cgroup.take(two.pid(), "inner/most")?;
    // By its directory, and as /proc/PID/cgroup has it.
    let names = [
        cgroup.path().to_owned(),
        cgroup.name().into(),
        Path::new("/").join(cgroup.name()),
    ];
    for name in names {
        let recording = Memtap::record(context)?
            .argument("--cgroup")
            .argument(name)
            .arguments(["-d", "300ms"])
            .run()?
            .whole()?;
        let summary = recording.summary()?;
        for target in [&one, &two] {
            let process = summary.process(target.pid(), "under_load")?;
            ensure!(process.functions["malloc"].calls > 0, "no calls: {process:?}");
            ensure!(!process.has_exited, "the process still runs");
        }
        ensure!(
            summary.processes()?.len() == 2,
            "others are in the summary: {}",
            summary.json["processes"]
        );
    }
    for target in [one, two, other] {
        target.stop(context)?;
    }
    Ok(())
}

/// Storms that begin later, in the cgroup and below it, are there from their first call; one beside
/// it is not.
fn later_processes(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "storm")?;
    let cgroup = TestCgroup::create(context)?;
    cgroup.below("inner")?;
    let mut session = Memtap::record(context)?
        .arguments(["--cgroup", cgroup.name()])
        .start()?;
    session.wait_until_tracing()?;
    let start = |mut command: std::process::Command, way: &str| {
        command.args([way, &*MANY.to_string()]);
        RunningProgram::start(command)
    };
    let inside = [
        start(cgroup.command("", &fixture), "fork")?,
        start(cgroup.command("inner", &fixture), "spawn")?,
        start(cgroup.command("inner", &fixture), "vfork")?,
    ];
    let outside = start(fixture.command(), "clone")?;
    let mut reported = Reported::default();
    for one in inside {
        let finished = one.finish(LIMIT)?.succeeded()?;
        reported.images.extend(Reported::parse(&finished.stdout)?.images);
    }
    outside.finish(LIMIT)?.succeeded()?;
    session.signal("INT")?;
    let recording = session.finish()?.whole()?;
    is_all_there(&recording, &reported, 3 * MANY)?;
    has_each_probe_once(&recording)?;
    let clones = recording
        .folded()?
        .weight_of(|line| line.process.starts_with("clone."));
    ensure!(clones == 0, "{clones} bytes of processes outside the cgroup");
    Ok(())
}

/// A process that works when it is told to.
struct Batches {
    running: RunningProgram,
    said: usize,
}

impl Batches {
    fn start(context: &Context) -> Result<Self> {
        let running = RunningProgram::start(Fixture::c(context, "batches")?.command())?;
        let mut batches = Self { running, said: 0 };
        batches.says("ready")?;
        Ok(batches)
    }

    fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Waits until it has said one line more, of which this is the beginning.
    fn says(&mut self, word: &str) -> Result<()> {
        self.said += 1;
        let mut text = String::new();
        let is_said = eventually(LIMIT, || {
            text = self.running.stdout();
            Ok(text
                .lines()
                .nth(self.said - 1)
                .is_some_and(|line| line.starts_with(word)))
        })?;
        ensure!(is_said, "it did not say {word}: {text}");
        Ok(())
    }

    /// Ten blocks.
    fn work(&mut self, context: &Context) -> Result<()> {
        context.signal(self.pid(), "USR1")?;
        self.says("done")
    }

    fn execute(&mut self, context: &Context) -> Result<()> {
        context.signal(self.pid(), "USR2")?;
        self.says("ready")
    }

    fn end(self, context: &Context) -> Result<()> {
        context.signal(self.pid(), "TERM")?;
        self.running.finish(LIMIT)?.succeeded()?;
        Ok(())
    }
}

/// Returns what the images of a process have done together.
fn done(summary: &RecordingSummary, pid: u32) -> Result<Counts> {
    let mut sums = Counts::new();
    for process in summary.processes()?.iter().filter(|process| process.pid == pid) {
        for (function, count) in &process.functions {
            *sums.entry(function.clone()).or_default() += *count;
        }
    }
    Ok(sums)
}

/// A process counts from the moment at which it is moved in; moved out, until it executes another
/// program.
fn moved(context: &Context) -> Result<()> {
    let cgroup = TestCgroup::create(context)?;
    let mut comes = Batches::start(context)?;
    let mut goes = Batches::start(context)?;
    let mut stays_out = Batches::start(context)?;
    cgroup.take(goes.pid(), "")?;
    let mut session = Memtap::record(context)?
        .arguments(["--cgroup", cgroup.name()])
        .start()?;
    session.wait_until_tracing()?;
    comes.work(context)?;
    stays_out.work(context)?;
    goes.work(context)?;
    cgroup.take(comes.pid(), "")?;
    comes.work(context)?;
    comes.work(context)?;
    comes.execute(context)?;
    comes.work(context)?;
    cgroup.leave(goes.pid())?;
    goes.work(context)?;
    goes.execute(context)?;
    goes.work(context)?;
    stays_out.execute(context)?;
    stays_out.work(context)?;
    session.signal("INT")?;
    let recording = session.finish()?.whole()?;
    let summary = recording.summary()?;
    let expected = |calls: u64, bytes: u64| Counts::from([("malloc".to_owned(), Count { calls, bytes })]);
    // Its second and third batch, and the first of what it executed.
    let found = done(summary, comes.pid())?;
    ensure!(
        found == expected(30, 10 * (1001 + 1002 + 1000)),
        "of the one that came: {found:?}"
    );
    let found = done(summary, goes.pid())?;
    ensure!(
        found == expected(20, 10 * (1000 + 1001)),
        "of the one that went: {found:?}"
    );
    let went = summary.process(goes.pid(), "batches")?;
    ensure!(
        went.has_exited,
        "the image that left the cgroup is over: {went:?}"
    );
    let found = done(summary, stays_out.pid())?;
    ensure!(found.is_empty(), "of the one that was never in: {found:?}");
    for one in [comes, goes, stays_out] {
        one.end(context)?;
    }
    Ok(())
}

/// Children that a process outside makes inside the cgroup (`CLONE_INTO_CGROUP`) are in it from the
/// start, and those that a process inside makes outside are not.
fn born_into(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "storm")?;
    let cgroup = TestCgroup::create(context)?;
    let inner = cgroup.below("inner")?;
    let outer = TestCgroup::create(context)?;
    let mut session = Memtap::record(context)?
        .arguments(["--cgroup", cgroup.name()])
        .start()?;
    session.wait_until_tracing()?;
    let many = MANY.to_string();
    let mut into = outer.command("", &fixture);
    into.args(["cgroup", &many]).arg(&inner);
    let into = RunningProgram::start(into)?.finish(LIMIT)?.succeeded()?;
    let mut out = cgroup.command("", &fixture);
    out.args(["cgroup", &many]).arg(outer.path());
    let out = RunningProgram::start(out)?.finish(LIMIT)?.succeeded()?;
    session.signal("INT")?;
    let recording = session.finish()?.whole()?;
    is_all_there(&recording, &Reported::parse(&into.stdout)?, MANY)?;
    let processes = recording.summary()?.processes()?;
    for image in Reported::parse(&out.stdout)?.images {
        let found = processes.iter().find(|process| process.pid == image.pid);
        ensure!(found.is_none(), "it was made outside: {found:?}");
    }
    Ok(())
}

/// The root of the hierarchy has every process in it, memtap too, which is left out.
fn root(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "storm")?;
    let cgroup = TestCgroup::create(context)?;
    let root = cgroup.path().parent().context("no root")?;
    let mut session = Memtap::record(context)?
        .argument("--cgroup")
        .argument(root)
        .start()?;
    session.wait_until_tracing()?;
    let mut storm = cgroup.command("", &fixture);
    storm.args(["fork", &MANY.to_string()]);
    let finished = RunningProgram::start(storm)?.finish(LIMIT)?.succeeded()?;
    let own = session.pid()?;
    session.signal("INT")?;
    let recording = session.finish()?.whole()?;
    is_all_there(&recording, &Reported::parse(&finished.stdout)?, MANY)?;
    is_left_out(&recording, own)
}

/// The recording ends when the cgroup is removed, not when it is empty.
fn removed(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "functions")?;
    let cgroup = TestCgroup::create(context)?;
    let mut session = Memtap::record(context)?
        .arguments(["--cgroup", cgroup.name()])
        .start()?;
    session.wait_until_tracing()?;
    let mut reported = Reported::default();
    for pause in [Duration::from_millis(2500), Duration::ZERO] {
        let finished = RunningProgram::start(cgroup.command("", &fixture))?
            .finish(LIMIT)?
            .succeeded()?;
        reported.images.extend(Reported::parse(&finished.stdout)?.images);
        // Longer than memtap takes to look who is left.
        std::thread::sleep(pause);
    }
    cgroup.remove()?;
    let recording = session.finish()?.whole()?;
    is_all_there(&recording, &reported, 2)
}

/// `live` and `estimate` take a cgroup too, and so does a budget.
fn live_and_estimate(context: &Context) -> Result<()> {
    let cgroup = TestCgroup::create(context)?;
    let target = ProcessUnderLoad::start(context)?;
    cgroup.take(target.pid(), "")?;
    let live = Memtap::bare(context)?
        .arguments(["live", "--cgroup", cgroup.name(), "-d", "300ms"])
        .arguments(["--summary", "live.json"])
        .run()?
        .ended_with(0)?;
    let text = std::fs::read_to_string(live.directory().join("live.json"))?;
    let process = RecordingSummary::parse(&text)?.process(target.pid(), "under_load")?;
    ensure!(
        process.totals["live"]["count"].as_u64() > Some(0),
        "nothing is live: {process:?}"
    );
    let estimate = Memtap::bare(context)?
        .arguments(["estimate", "--cgroup", cgroup.name(), "-d", "200ms"])
        .run()?
        .ended_with(0)?;
    let stdout = &estimate.finished.stdout;
    ensure!(
        stdout.contains("malloc") && stdout.contains(&format!("--cgroup {}", cgroup.name())),
        "the estimate does not name the cgroup:\n{stdout}"
    );
    let budget = Memtap::record(context)?
        .arguments(["--cgroup", cgroup.name(), "-d", "300ms", "--max-overhead", "2"])
        .run()?
        .ended_with(0)?;
    ensure!(
        budget.finished.stderr.contains("as 2 % of a CPU permits"),
        "no budget was kept: {}",
        budget.finished.stderr
    );
    target.stop(context)
}

/// An argument that is no cgroup is named, with the directory of those that there are.
fn none(context: &Context) -> Result<()> {
    let mut wrong = vec![
        ("/usr", "no cgroup"),
        ("no/such/cgroup", "no such cgroup"),
        ("/no/such/cgroup", "no such cgroup"),
        ("cgroup.procs", "a file of a cgroup"),
    ];
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let old = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup").then_some(path)
    });
    wrong.extend(old.map(|path| (path, "version 1")));
    for (path, words) in wrong {
        Memtap::record(context)?
            .arguments(["--cgroup", path, "-d", "1s"])
            .run()?
            .refused(1, &[path, words, "/sys/fs/cgroup"])
            .with_context(|| path.to_owned())?;
    }
    Ok(())
}

/// Without a hierarchy of version 2 it is said what to do.
fn not_mounted(context: &Context) -> Result<()> {
    let unmount =
        "for mount in $(awk '$3 == \"cgroup2\" { print $2 }' /proc/self/mounts); do umount -l $mount; done";
    let recording = Memtap::record(context)?
        .after(unmount)
        .arguments(["--cgroup", "x", "-d", "1s"])
        .run()?;
    recording.refused(1, &["cgroup v2 is not mounted"])?;
    Ok(())
}
