//! Lives of processes: hundreds made as fast as can be, by every way there is, each with its own
//! figures, name and stacks.

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{
    Context, Fixture, LIMIT, Memtap, MemtapRecording, Reported, RunningProgram, difference, run,
};

use crate::case::{Case, case};
use memtap_tests::Need;

pub(crate) const CASES: &[Case] = &[
    case("lives::forks", &[Need::Compiler], |it| storm(it, "fork")),
    case("lives::vforks", &[Need::Compiler], |it| storm(it, "vfork")),
    case("lives::clones", &[Need::Compiler], |it| storm(it, "clone")),
    case("lives::spawns", &[Need::Compiler], |it| storm(it, "spawn")),
    case("lives::execs", &[Need::Compiler], |it| storm(it, "exec")),
    case("lives::ends_in_the_middle", &[Need::Compiler], |it| {
        storm(it, "middle")
    }),
    case("lives::chain_of_execs", &[Need::Compiler], chain),
    case("lives::followed", &[Need::Compiler], followed),
    case("lives::whole_machine", &[Need::Compiler], whole_machine),
];

/// The number of processes of a storm.
pub(crate) const MANY: usize = 200;

/// Every process that reported is there, once, with its own calls, its name, and stacks that begin
/// with that; `images` reported.
pub(crate) fn is_all_there(recording: &MemtapRecording, reported: &Reported, images: usize) -> Result<()> {
    ensure!(
        reported.images.len() == images,
        "{} of {images} processes reported",
        reported.images.len()
    );
    let summary = recording.summary()?;
    for image in &reported.images {
        let process = summary.process(image.pid, &image.comm)?;
        if let Some(difference) = difference(&image.functions(), &process.functions) {
            anyhow::bail!("{} {}:\n{difference}", image.comm, image.pid);
        }
        ensure!(
            process.has_exited,
            "{} {} is said to run still",
            image.comm,
            image.pid
        );
    }
    recording.folded()?.compare(reported, |chain| chain.count.bytes)?;
    Ok(())
}

/// A command whose children are a storm: they are all there, and nothing else is.
fn storm(context: &Context, way: &str) -> Result<()> {
    storm_with(context, way, &[])
}

/// The same, with these arguments.
pub(crate) fn storm_with(context: &Context, way: &str, arguments: &[&str]) -> Result<()> {
    let fixture = Fixture::c(context, "storm")?;
    let program = fixture.path.to_str().context("not a plain path")?;
    let recording = Memtap::record(context)?
        .arguments(arguments)
        .command([program, way, &MANY.to_string()])
        .run()?
        .whole()?;
    let reported = recording.reported()?;
    is_all_there(&recording, &reported, MANY)?;
    recording.has_functions(&reported.functions())
}

/// One process that executes another program again and again, each time with the same number.
fn chain(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "storm")?;
    let program = fixture.path.to_str().context("not a plain path")?;
    let recording = Memtap::record(context)?
        .command([program, "chain", "20"])
        .run()?
        .whole()?;
    let reported = recording.reported()?;
    is_all_there(&recording, &reported, 21)?;
    ensure!(
        reported
            .images
            .iter()
            .all(|image| image.pid == reported.images[0].pid),
        "the chain is not one process"
    );
    recording.has_functions(&reported.functions())
}

/// A running process with `--follow`: what it starts is traced from its first call, and what those
/// start.
fn followed(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "storm")?;
    let program = fixture.path.to_str().context("not a plain path")?;
    let directory = tempfile::tempdir()?;
    let go = directory.path().join("go");
    // The shell has to be there before memtap, and its children after.
    let script = format!(
        "until test -e '{go}'; do read -t 1 x <'{pipe}'; done; '{program}' fork {MANY}; '{program}' spawn {MANY}",
        go = go.display(),
        pipe = directory.path().join("pipe").display(),
    );
    run(command(
        "mkfifo",
        &[directory
            .path()
            .join("pipe")
            .to_str()
            .context("not a plain path")?],
    ))?
    .succeeded()?;
    // Opened for both, so that nobody waits for the other end.
    let script = format!(
        "exec 3<>'{pipe}'; {script}",
        pipe = directory.path().join("pipe").display()
    );
    let shell = RunningProgram::start(command("bash", &["-c", &script]))?;
    let mut session = Memtap::record(context)?
        .process(shell.pid())
        .argument("--follow")
        .start()?;
    session.wait_until_tracing()?;
    std::fs::write(&go, "")?;
    let finished = shell.finish(LIMIT)?.succeeded()?;
    let recording = session.finish()?.whole()?;
    is_all_there(&recording, &Reported::parse(&finished.stdout)?, 2 * MANY)
}

fn command(program: &str, arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    command
}

/// The whole machine, with several storms at once that begin later: each process is exact, memtap
/// itself is left out, and there are no more probes than without them.
fn whole_machine(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "storm")?;
    let record = |storms: &[&str]| -> Result<(MemtapRecording, Reported, u32)> {
        let mut session = Memtap::record(context)?.argument("-a").start()?;
        session.wait_until_tracing()?;
        let running = storms.iter().map(|way| {
            let mut command = fixture.command();
            command.args([way, &*MANY.to_string()]);
            RunningProgram::start(command)
        });
        let running = running.collect::<Result<Vec<_>>>()?;
        let mut reported = Reported::default();
        for one in running {
            let finished = one.finish(LIMIT)?.succeeded()?;
            reported.images.extend(Reported::parse(&finished.stdout)?.images);
        }
        let own = session.pid()?;
        session.signal("INT")?;
        Ok((session.finish()?.whole()?, reported, own))
    };
    let (quiet, ..) = record(&[])?;
    let storms = ["fork", "vfork", "clone", "spawn", "middle"];
    let (recording, reported, own) = record(&storms)?;
    is_all_there(&recording, &reported, storms.len() * MANY)?;
    is_left_out(&recording, own)?;
    ensure!(
        quiet.summary()?.json["probes"] == recording.summary()?.json["probes"],
        "probes without the storms: {}, with them: {}",
        quiet.summary()?.json["probes"],
        recording.summary()?.json["probes"]
    );
    has_each_probe_once(&recording)
}

/// A process is not in the summary.
pub(crate) fn is_left_out(recording: &MemtapRecording, pid: u32) -> Result<()> {
    let processes = recording.summary()?.processes()?;
    let found = processes.iter().find(|process| process.pid == pid);
    ensure!(found.is_none(), "it is no target: {found:?}");
    Ok(())
}

/// There is one probe at each place of each file, however many processes map it.
pub(crate) fn has_each_probe_once(recording: &MemtapRecording) -> Result<()> {
    let probes = recording.summary()?.json["probes"]
        .as_array()
        .context("no probes")?;
    let places: std::collections::BTreeSet<String> = probes
        .iter()
        .map(|probe| format!("{} {} {}", probe["object"], probe["offset"], probe["kind"]))
        .collect();
    ensure!(
        !probes.is_empty() && places.len() == probes.len(),
        "{} probes at {} places",
        probes.len(),
        places.len()
    );
    Ok(())
}
