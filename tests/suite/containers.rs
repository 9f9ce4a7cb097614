//! Targets that see another machine than memtap does: other roots, pid and user namespaces, layers
//! of file systems.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{
    Context, Fixture, LIMIT, Memtap, MemtapRecording, Need, Reported, RunningProgram, difference, eventually,
};
use tempfile::TempDir;

use crate::case::{Case, case};
use crate::lives::{MANY, has_each_probe_once, is_all_there};
use crate::under_load::copy_libraries;

const NAMESPACES: &[Need] = &[Need::Compiler, Need::Namespaces];

pub(crate) const CASES: &[Case] = &[
    case("containers::chroot", &[Need::Compiler], chroot),
    case("containers::pid_namespace", NAMESPACES, pid_namespace),
    case(
        "containers::inner_pid_in_the_report",
        NAMESPACES,
        inner_pid_in_the_report,
    ),
    case("containers::user_namespace", NAMESPACES, user_namespace),
    case(
        "containers::overlay",
        &[Need::Compiler, Need::Namespaces, Need::Overlay],
        overlay,
    ),
    case("containers::several_at_once", NAMESPACES, several_at_once),
];

/// A root directory with fixtures, and copies of the libraries that they need.
fn root_with(context: &Context, fixtures: &[&str]) -> Result<TempDir> {
    let root = tempfile::tempdir()?;
    for name in fixtures {
        let fixture = Fixture::c(context, name)?;
        std::fs::copy(&fixture.path, root.path().join(name))?;
        copy_libraries(&fixture.path, root.path())?;
    }
    Ok(root)
}

/// A command that changes its root is traced from the first call of what it runs there, with that
/// root's C library.
fn chroot(context: &Context) -> Result<()> {
    let root = root_with(context, &["storm"])?;
    let path = root.path().to_str().context("not a plain path")?;
    for way in ["fork", "spawn"] {
        let recording = Memtap::record(context)?
            .command(["chroot", path, "/storm", way, &MANY.to_string()])
            .run()?
            .whole()?;
        is_all_there(&recording, &recording.reported()?, MANY)?;
        let probes = recording.summary()?.json["probes"].to_string();
        ensure!(
            probes.contains(&format!("{path}/lib")),
            "no probe is in the root's own library: {probes}"
        );
    }
    Ok(())
}

/// Every process that reported is there by the number that it sees itself, under another one of the
/// machine's.
fn is_all_there_inside(recording: &MemtapRecording, reported: &Reported, images: usize) -> Result<()> {
    ensure!(
        reported.images.len() == images,
        "{} reported",
        reported.images.len()
    );
    let processes = recording.summary()?.processes()?;
    for image in &reported.images {
        let found: Vec<_> = processes
            .iter()
            .filter(|process| process.inner_pid == Some(image.pid) && process.comm == image.comm)
            .collect();
        ensure!(
            found.len() == 1 && found[0].pid != image.pid,
            "{} {} inside is: {found:?}",
            image.comm,
            image.pid
        );
        if let Some(difference) = difference(&image.functions(), &found[0].functions) {
            anyhow::bail!("{} {} inside:\n{difference}", image.comm, image.pid);
        }
    }
    recording.folded()?.compare(reported, |chain| chain.count.bytes)?;
    Ok(())
}

/// Processes are known by the machine's numbers, and by those that they see, even if they live for
/// a millisecond.
fn pid_namespace(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "storm")?;
    let program = fixture.path.to_str().context("not a plain path")?;
    for way in ["fork", "vfork", "spawn"] {
        let recording = Memtap::record(context)?
            .command(["unshare", "-fp", program, way, &MANY.to_string()])
            .run()?
            .whole()?;
        let reported = recording.reported()?;
        is_all_there_inside(&recording, &reported, MANY)?;
        // The storm's own process is the first of the namespace.
        let lowest = reported.images.iter().map(|image| image.pid).min();
        ensure!(lowest == Some(2), "{lowest:?} is not the number of a first child");
        // Outside, both numbers are the same.
        let processes = recording.summary()?.processes()?;
        let outside = processes.iter().find(|process| process.comm == "unshare");
        let outside = outside.context("`unshare` itself is not there")?;
        ensure!(outside.inner_pid == Some(outside.pid), "{outside:?}");
    }
    Ok(())
}

/// The one process of this name that a process has made.
fn child(parent: u32, comm: &str) -> Result<u32> {
    let mut found = None;
    let is_there = eventually(LIMIT, || {
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
        let named = |pid: &&str| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|it| it.trim_end() == comm)
        };
        found = children
            .split_whitespace()
            .find(named)
            .map(str::parse)
            .transpose()?;
        Ok(found.is_some())
    })?;
    ensure!(is_there, "{parent} has no child {comm}");
    found.context("no child")
}

/// The first line of the report has both numbers of a process, where they differ.
fn inner_pid_in_the_report(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "batches")?;
    let mut command = context.privileged("unshare");
    command.args(["-fp", "--kill-child"]).arg(&fixture.path);
    let inside = RunningProgram::start(command)?;
    let unshare = context.behind_sudo(inside.pid(), "unshare")?;
    let inner = child(unshare, "batches")?;
    let outside = RunningProgram::start(fixture.command())?;
    for (running, pid, numbers) in [
        (&inside, inner, format!("batches {inner} (1 in its container) ·")),
        (&outside, outside.pid(), format!("batches {} ·", outside.pid())),
    ] {
        let mut session = Memtap::bare(context)?.argument("record").process(pid).start()?;
        session.wait_until_tracing()?;
        context.signal(pid, "USR1")?;
        let is_done = eventually(LIMIT, || Ok(running.stdout().contains("done 1")))?;
        ensure!(is_done, "{pid} does nothing: {}", running.stdout());
        session.signal("INT")?;
        let recording = session.finish()?.ended_with(0)?;
        ensure!(
            recording.finished.stdout.contains(&numbers),
            "{numbers:?} is not in: {}",
            recording.finished.stdout
        );
    }
    Ok(())
}

/// A user namespace, in which a process is root without being it.
fn user_namespace(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "storm")?;
    let program = fixture.path.to_str().context("not a plain path")?;
    let many = MANY.to_string();
    let recording = Memtap::record(context)?
        .command(["unshare", "-Ur", program, "spawn", &many])
        .run()?
        .whole()?;
    is_all_there(&recording, &recording.reported()?, MANY)?;
    let recording = Memtap::record(context)?
        .command(["unshare", "-Urpf", program, "fork", &many])
        .run()?
        .whole()?;
    is_all_there_inside(&recording, &recording.reported()?, MANY)
}

/// Starts a shell's commands, of which the last is to run on, and waits until one of this name
/// does.
fn started(context: &Context, words: &[&str], comm: &str) -> Result<RunningProgram> {
    let mut command = context.privileged(words[0]);
    command.args(&words[1..]);
    let mut running = RunningProgram::start(command)?;
    let is_there = eventually(LIMIT, || {
        ensure!(running.is_alive()?, "it ended: {}", running.stderr());
        let pid = running.pid();
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm"))?;
        Ok(name.trim_end() == comm)
    })?;
    ensure!(is_there, "no {comm} runs: {}", running.stderr());
    // Its C library is mapped before it allocates, and it allocates at once.
    std::thread::sleep(std::time::Duration::from_millis(100));
    Ok(running)
}

/// Runs a storm, and adds what it reported.
fn storm(mut command: Command, reported: &mut Reported) -> Result<()> {
    let finished = RunningProgram::start({
        command.arg(MANY.to_string());
        command
    })?
    .finish(LIMIT)?
    .succeeded()?;
    reported.images.extend(Reported::parse(&finished.stdout)?.images);
    Ok(())
}

/// A container on layers of file systems, in a mount namespace of its own: processes that start in
/// it later have the C library of the first one, from the lower layer. A program that is copied up
/// to the upper layer is another file.
fn overlay(context: &Context) -> Result<()> {
    let root = root_with(context, &["storm", "sleeper"])?;
    let place = tempfile::tempdir()?;
    let place = place.path().to_str().context("not a plain path")?;
    let script = format!(
        "set -e; mount -t tmpfs none '{place}'; cd '{place}'; mkdir lower upper work merged; \
         cp -r '{}'/. lower; mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged; \
         cp merged/storm merged/new; echo >>merged/storm; exec chroot merged /sleeper",
        root.path().display()
    );
    let sleeper = started(context, &["unshare", "-m", "sh", "-c", &script], "sleeper")?;
    let pid = sleeper.pid();
    let mut session = Memtap::record(context)?.argument("-a").start()?;
    session.wait_until_tracing()?;
    let mut reported = Reported::default();
    for (program, way) in [("/storm", "fork"), ("/storm", "spawn"), ("/new", "clone")] {
        let mut command = context.privileged("nsenter");
        command.args([&format!("--mount=/proc/{pid}/ns/mnt"), "chroot"]);
        command.arg(format!("{place}/merged")).args([program, way]);
        storm(command, &mut reported)?;
    }
    session.signal("INT")?;
    let recording = session.finish()?.whole()?;
    drop(sleeper);
    is_all_there(&recording, &reported, 3 * MANY)?;
    has_each_probe_once(&recording)
}

/// The whole machine, with a root of its own, a pid namespace, a user namespace and a deleted
/// executable at once.
fn several_at_once(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "storm")?;
    let root = root_with(context, &["storm", "sleeper"])?;
    let root = root.path().to_str().context("not a plain path")?;
    let sleeper = started(context, &["chroot", root, "/sleeper"], "sleeper")?;
    let mut session = Memtap::record(context)?.argument("-a").start()?;
    session.wait_until_tracing()?;
    let many = MANY.to_string();
    let start = |words: &[&str]| {
        let mut command = context.privileged(words[0]);
        command.args(&words[1..]);
        RunningProgram::start(command)
    };
    let program = fixture.path.to_str().context("not a plain path")?;
    let copy = Path::new(root).join("copy");
    let deleted = format!(
        "cp '{program}' '{0}'; '{0}' clone {many} & sleep 0.5; rm '{0}'; wait $!",
        copy.display()
    );
    let outside = [
        start(&["chroot", root, "/storm", "spawn", &many])?,
        start(&["unshare", "-Ur", program, "fork", &many])?,
        start(&["sh", "-c", &deleted])?,
    ];
    let inside = start(&["unshare", "-fp", program, "middle", &many])?;
    let reported = |running: RunningProgram| Reported::parse(&running.finish(LIMIT)?.succeeded()?.stdout);
    let inside = reported(inside)?;
    let mut others = Reported::default();
    for one in outside {
        others.images.extend(reported(one)?.images);
    }
    session.signal("INT")?;
    let recording = session.finish()?.whole()?;
    drop(sleeper);
    is_all_there(&recording, &others, 3 * MANY)?;
    is_all_there_inside(&recording, &inside, MANY)?;
    has_each_probe_once(&recording)
}
