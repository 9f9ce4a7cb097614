//! The processes that are traced: children, several targets, names, the whole machine; and how
//! commands end.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{
    Context, Fixture, LIMIT, Memtap, Need, Reported, RunningProgram, difference, run, shim_counts,
};

use crate::case::{Case, case};
use crate::under_load::ProcessUnderLoad;

pub(crate) const CASES: &[Case] = &[
    case("processes::fork", &[Need::Compiler], fork),
    case("processes::fork_and_exec", &[Need::Compiler], fork_and_exec),
    case("processes::shell_script", &[Need::Compiler], shell_script),
    case("processes::no_follow", &[Need::Compiler], no_follow),
    case("processes::per_pid", &[Need::Compiler], per_pid),
    case("processes::exit_codes", &[Need::Compiler], exit_codes),
    case("processes::two_targets", &[Need::Compiler], two_targets),
    case("processes::comm_running", &[Need::Compiler], comm_running),
    case(
        "processes::comm_started_later",
        &[Need::Compiler],
        comm_started_later,
    ),
    case("processes::whole_machine", &[Need::Compiler], whole_machine),
    case("processes::two_libcs", &[Need::Compiler], two_libcs),
];

fn fork(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "fork")?;
    let recording = Memtap::record(context)?.fixture(&fixture).run()?.whole()?;
    let reported = recording.reported()?;
    ensure!(reported.images.len() == 2, "a parent and a child reported");
    recording.has_functions(&reported.functions())?;
    each_process(&recording, &reported)?;
    let rest = recording
        .folded()?
        .compare(&reported, |chain| chain.count.bytes)?;
    ensure!(rest.is_empty(), "stacks that are not the fixture's: {rest:?}");
    Ok(())
}

fn fork_and_exec(context: &Context) -> Result<()> {
    let fork = Fixture::c(context, "fork")?;
    let functions = Fixture::c(context, "functions")?;
    let recording = Memtap::record(context)?
        .command([&fork.path, &functions.path])
        .run()?
        .whole()?;
    let reported = recording.reported()?;
    ensure!(
        reported.images.len() == 3,
        "a parent, a child, and its program reported"
    );
    recording.has_functions(&reported.functions())?;
    each_process(&recording, &reported)?;
    let rest = recording
        .folded()?
        .compare(&reported, |chain| chain.count.bytes)?;
    ensure!(rest.is_empty(), "stacks that are not the fixtures': {rest:?}");
    Ok(())
}

/// Every process image that reported is in the summary, with its own figures, and there is no
/// other.
fn each_process(recording: &memtap_tests::MemtapRecording, reported: &Reported) -> Result<()> {
    let summary = recording.summary()?;
    for image in &reported.images {
        let process = summary.process(image.pid, &image.comm)?;
        if let Some(difference) = difference(&image.functions(), &process.functions) {
            anyhow::bail!("{} {}:\n{difference}", image.comm, image.pid);
        }
    }
    let processes = summary.processes()?;
    let idle = processes
        .iter()
        .filter(|process| process.functions.values().all(|count| count.calls == 0))
        .count();
    ensure!(
        processes.len() - idle == reported.images.len(),
        "the summary has other processes: {}",
        summary.json["processes"]
    );
    Ok(())
}

/// The command is a script: a shell, whose children are programs.
fn shell_script(context: &Context) -> Result<()> {
    let fork = Fixture::c(context, "fork")?;
    let functions = Fixture::c(context, "functions")?;
    let memtap = Memtap::record(context)?;
    let script = memtap.directory().join("script.sh");
    let text = format!(
        "#!/bin/sh\n{}\n{}\nexit 7\n",
        fork.path.display(),
        functions.path.display()
    );
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
    let recording = memtap.command([&script]).run()?.ended_with(7)?;
    let summary = recording.summary()?;
    summary.lost_nothing()?;
    let reported = recording.reported()?;
    for image in &reported.images {
        let process = summary.process(image.pid, &image.comm)?;
        if let Some(difference) = difference(&image.functions(), &process.functions) {
            anyhow::bail!("{} {}:\n{difference}", image.comm, image.pid);
        }
    }
    ensure!(
        summary
            .processes()?
            .iter()
            .any(|process| process.comm == "script.sh"),
        "the shell itself is not in the summary: {}",
        summary.json["processes"]
    );
    recording
        .folded()?
        .compare(&reported, |chain| chain.count.bytes)?;
    Ok(())
}

fn no_follow(context: &Context) -> Result<()> {
    let fork = Fixture::c(context, "fork")?;
    let functions = Fixture::c(context, "functions")?;
    let recording = Memtap::record(context)?
        .argument("--no-follow")
        .command([&fork.path, &functions.path])
        .run()?
        .whole()?;
    let reported = recording.reported()?;
    let parent = reported
        .images
        .iter()
        .find(|image| image.chains.iter().all(|chain| chain.frames[1] == "parent_work"))
        .context("the parent reported nothing")?;
    recording.has_functions(&parent.functions())
}

fn per_pid(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "fork")?;
    let recording = Memtap::record(context)?
        .argument("--per-pid")
        .fixture(&fixture)
        .run()?
        .whole()?;
    let folded = recording.folded()?;
    for image in &recording.reported()?.images {
        let expected: u64 = image.chains.iter().map(|chain| chain.count.bytes).sum();
        let root = format!("{}-{}", image.comm, image.pid);
        let found = folded.weight_of(|line| line.process == root);
        ensure!(
            found == expected,
            "{root} weighs {found} instead of {expected}:\n{}",
            folded.text
        );
    }
    Ok(())
}

fn exit_codes(context: &Context) -> Result<()> {
    let quick = Fixture::c(context, "quick")?.path;
    let quick = quick.to_str().context("not a plain path")?;
    let cases: [(&[&str], i32); 6] = [
        (&["0"], 0),
        (&["3"], 3),
        (&["255"], 255),
        (&["kill", "9"], 137),
        (&["kill", "11"], 139),
        (&["kill", "15"], 143),
    ];
    for (arguments, code) in cases {
        let command = [&[quick], arguments].concat();
        let recording = Memtap::record(context)?
            .command(command)
            .run()?
            .ended_with(code)?;
        let summary = recording.summary()?;
        summary.lost_nothing()?;
        let bytes = summary.number("/totals/functions/malloc/bytes")?;
        ensure!(bytes == 3210, "{bytes} bytes of 3210, exit code {code}");
    }
    Ok(())
}

fn two_targets(context: &Context) -> Result<()> {
    let one = ProcessUnderLoad::start(context)?;
    let two = ProcessUnderLoad::start(context)?;
    let other = ProcessUnderLoad::start(context)?;
    let recording = Memtap::record(context)?
        .argument("-p")
        .argument(format!("{},{}", one.pid(), two.pid()))
        .arguments(["-d", "300ms"])
        .run()?
        .whole()?;
    let summary = recording.summary()?;
    for target in [&one, &two] {
        let process = summary.process(target.pid(), "under_load")?;
        ensure!(
            process.functions["malloc"].calls > 0 && process.functions["realloc"].calls > 0,
            "no calls of {}: {process:?}",
            target.pid()
        );
        ensure!(!process.has_exited, "the process still runs");
    }
    ensure!(
        summary
            .processes()?
            .iter()
            .all(|process| process.pid != other.pid()),
        "a process that is no target is in the summary"
    );
    for target in [one, two, other] {
        target.stop(context)?;
    }
    Ok(())
}

fn comm_running(context: &Context) -> Result<()> {
    let one = ProcessUnderLoad::start(context)?;
    let two = ProcessUnderLoad::start(context)?;
    let recording = Memtap::record(context)?
        .arguments(["--comm", "under_load", "-d", "300ms"])
        .run()?
        .whole()?;
    let summary = recording.summary()?;
    for target in [&one, &two] {
        let process = summary.process(target.pid(), "under_load")?;
        ensure!(process.functions["malloc"].calls > 0, "no calls: {process:?}");
    }
    ensure!(
        summary
            .processes()?
            .iter()
            .all(|process| process.comm == "under_load"),
        "other names are in the summary: {}",
        summary.json["processes"]
    );
    one.stop(context)?;
    two.stop(context)
}

/// A process that takes the name while memtap runs is traced from its first call.
fn comm_started_later(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "functions")?;
    let other = Fixture::c(context, "fork")?;
    let mut session = Memtap::record(context)?
        .arguments(["--comm", "functions"])
        .start()?;
    session.wait_until_tracing()?;
    let reported = Reported::parse(&run(fixture.command())?.succeeded()?.stdout)?;
    run(other.command())?.succeeded()?;
    session.signal("INT")?;
    let recording = session.finish()?.whole()?;
    recording.has_functions(&reported.functions())
}

fn whole_machine(context: &Context) -> Result<()> {
    let names = ["functions", "threads", "fork"];
    let fixtures = names
        .iter()
        .map(|name| Fixture::c(context, name))
        .collect::<Result<Vec<_>>>()?;
    let (threads_counts, _) = shim_counts(context, fixtures[1].command())?;
    let mut session = Memtap::record(context)?.argument("-a").start()?;
    session.wait_until_tracing()?;
    let running = fixtures
        .iter()
        .map(|fixture| RunningProgram::start(fixture.command()))
        .collect::<Result<Vec<_>>>()?;
    let mut reported = Reported::default();
    for one in running {
        let finished = one.finish(LIMIT)?.succeeded()?;
        reported.images.extend(Reported::parse(&finished.stdout)?.images);
    }
    session.signal("INT")?;
    let recording = session.finish()?.whole()?;
    let summary = recording.summary()?;
    for image in &reported.images {
        let process = summary.process(image.pid, &image.comm)?;
        let expected = match &*image.comm {
            // What pthread_create allocates is not reported.
            "threads" => threads_counts.clone(),
            _ => image.functions(),
        };
        if let Some(difference) = difference(&expected, &process.functions) {
            anyhow::bail!("{} {}:\n{difference}", image.comm, image.pid);
        }
    }
    recording
        .folded()?
        .compare(&reported, |chain| chain.count.bytes)?;
    Ok(())
}

/// A process in a root of its own has a C library of its own: another file, with its own probes.
fn two_libcs(context: &Context) -> Result<()> {
    let inside = ProcessUnderLoad::start_in_chroot(context)?;
    let outside = ProcessUnderLoad::start(context)?;
    std::thread::sleep(Duration::from_millis(50));
    let recording = Memtap::record(context)?
        .argument("-p")
        .argument(format!("{},{}", inside.pid(), outside.pid()))
        .arguments(["-d", "300ms"])
        .run()?
        .whole()?;
    let summary = recording.summary()?;
    for target in [&inside, &outside] {
        let process = summary.process(target.pid(), "under_load")?;
        ensure!(process.functions["malloc"].calls > 0, "no calls: {process:?}");
    }
    let probes = summary.json["probes"].as_array().context("no probes")?;
    let of_malloc = probes.iter().filter(|probe| probe["symbol"] == "malloc").count();
    ensure!(
        of_malloc == 2,
        "{of_malloc} probes of malloc instead of 2: {probes:?}"
    );
    let folded = recording.folded()?;
    let unnamed = folded.weight_of(|line| !line.passes("under_load_"));
    ensure!(
        unnamed * 10 < folded.total(),
        "{unnamed} of {} bytes have no name of the program:\n{}",
        folded.total(),
        folded.text
    );
    inside.stop(context)?;
    outside.stop(context)
}
