//! The processes that get breakpoints: targets and their descendants, and nobody else.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{
    Context, Fixture, LIMIT, Leftovers, Memtap, MemtapSession, Need, RunningProgram, differing_text,
    eventually, memory_kib, run,
};

use crate::case::{Case, case};
use crate::lives;

pub(crate) const CASES: &[Case] = &[
    case("scope::bystanders_of_a_command", &[Need::Compiler], |it| {
        bystanders(it, false)
    }),
    case("scope::bystanders_of_a_tree", &[Need::Compiler], |it| {
        bystanders(it, true)
    }),
    case(
        "scope::bystanders_that_move_their_code",
        &[Need::Compiler],
        movers,
    ),
    case("scope::code_that_was_moved", &[Need::Compiler], moved_before),
    case("scope::code_that_is_moved", &[Need::Compiler], moved_meanwhile),
    case(
        "scope::code_that_a_target_moves",
        &[Need::Compiler],
        moved_by_a_target,
    ),
    case("scope::whole_machine", &[Need::Compiler], whole_machine),
    case("scope::storms", &[Need::Compiler], storms),
    case(
        "scope::more_processes_than_links",
        &[Need::Compiler],
        many_at_once,
    ),
    case("scope::late_children", &[Need::Compiler], late_children),
    case("scope::links_go_with_their_process", &[Need::Compiler], links_go),
    case("scope::machine_has_no_tree", &[], no_tree),
    case(
        "scope::stop_watchers",
        &[Need::Compiler, Need::Strace],
        stop_watchers,
    ),
    case("scope::stops_stay_unseen", &[Need::Compiler], unseen_stops),
    case("scope::more_processes_than_room", &[Need::Compiler], storm),
    case("scope::code_that_is_mapped_for_ever", &[Need::Compiler], map_loop),
    case(
        "scope::commands_that_watch_stops",
        &[Need::Compiler],
        watching_commands,
    ),
    case(
        "scope::children_while_memtap_stands_still",
        &[Need::Compiler],
        still_memtap,
    ),
    case("scope::lost_life_records", &[Need::Compiler], lost_life),
];

/// Breakpoints in the tree alone.
const TREE: [&str; 2] = ["--scope", "tree"];

/// Each way of making processes, two hundred at once: every call of each is counted.
fn storms(context: &Context) -> Result<()> {
    for way in ["fork", "vfork", "clone", "spawn", "exec"] {
        lives::storm_with(context, way, &TREE).with_context(|| format!("by {way}"))?;
    }
    Ok(())
}

/// A shell that starts a program again and again, each in a process of its own, until it is killed.
fn shell_that_starts(program: &Fixture) -> Result<[String; 4]> {
    let program = program.path.to_str().context("not a plain path")?;
    let script = format!("while :; do {program} 20; done");
    Ok(["sh".into(), "-c".into(), script, "sh".into()])
}

/// Traces the tree of a command, from the time on when its probes are in.
fn traced_tree<'a>(context: &'a Context, words: &[String]) -> Result<MemtapSession<'a>> {
    let mut session = Memtap::record(context)?.command(words).start()?;
    session.wait_until_tracing()?;
    Ok(session)
}

/// Starts a program that waits, and uses the C library.
fn waiting(context: &Context) -> Result<RunningProgram> {
    RunningProgram::start(Fixture::c(context, "sleeper")?.command())
}

/// Looks often at the code of a process that nobody asked to trace: it is the file's, always.
fn stays_untouched(context: &Context, bystander: &RunningProgram) -> Result<()> {
    for _ in 0..5 {
        let text = differing_text(context, bystander.pid())?;
        ensure!(text.is_empty(), "a bystander's code was changed:\n{text}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// While a tree of short-lived processes is traced, another process has none of its breakpoints.
fn bystanders(context: &Context, by_pid: bool) -> Result<()> {
    let bystander = waiting(context)?;
    let words = shell_that_starts(&Fixture::c(context, "sleeper")?)?;
    let mut tree = None;
    let memtap = Memtap::record(context)?;
    let memtap = if by_pid {
        let mut shell = std::process::Command::new(&words[0]);
        shell.args(&words[1..]);
        let shell = tree.insert(RunningProgram::start(shell)?);
        memtap.process(shell.pid()).argument("--follow")
    } else {
        memtap.command(&words)
    };
    let mut session = memtap.start()?;
    session.wait_until_tracing()?;
    if let Some(tree) = &tree {
        let text = differing_text(context, tree.pid())?;
        ensure!(!text.is_empty(), "the target has no probes");
    }
    let untouched = stays_untouched(context, &bystander);
    session.signal("INT")?;
    let recording = session.finish()?;
    untouched.with_context(|| recording.finished.stderr.clone())?;
    let summary = recording.summary()?;
    summary.lost_nothing()?;
    ensure!(
        summary.number("/totals/functions/malloc/calls")? > 3,
        "children were not traced"
    );
    Ok(())
}

/// A program that copies its C library's code, breakpoints and all, would die of the first one:
/// twenty of them live while another program is traced.
fn movers(context: &Context) -> Result<()> {
    let mover = Fixture::c(context, "moves_code")?;
    let words = shell_that_starts(&Fixture::c(context, "sleeper")?)?;
    let session = traced_tree(context, &words)?;
    for _ in 0..20 {
        run(mover.command())?.succeeded()?;
    }
    session.signal("INT")?;
    session.finish()?;
    Ok(())
}

/// A running process whose C library is in no file any more: memtap says that it sees nothing.
fn moved_before(context: &Context) -> Result<()> {
    let mover = Fixture::c(context, "moves_code")?;
    let memtap = Memtap::record(context)?;
    let end = memtap.directory().join("end");
    let mut command = mover.command();
    command.arg(&end);
    let mut target = RunningProgram::start(command)?;
    ensure!(
        eventually(LIMIT, || Ok(
            target.stdout().contains("moved") || !target.is_alive()?
        ))?,
        "the target does not move its code"
    );
    let recording = memtap.process(target.pid()).arguments(["-d", "500ms"]).run()?;
    let said = &recording.finished.stderr;
    ensure!(
        said.contains("has moved the code of") && said.contains("libc"),
        "memtap says nothing of code that was moved: {said}"
    );
    std::fs::write(&end, "")?;
    target.finish(LIMIT)?.succeeded()?;
    Ok(())
}

/// A command that moves its code with breakpoints in it dies of them, and memtap says of what.
fn moved_meanwhile(context: &Context) -> Result<()> {
    let mover = Fixture::c(context, "moves_code")?;
    let recording = Memtap::record(context)?.fixture(&mover).run()?;
    let said = &recording.finished.stderr;
    ensure!(
        recording.finished.code() == 133 && said.contains("SIGTRAP"),
        "the command ended with {}: {said}",
        recording.finished.code()
    );
    Ok(())
}

/// A running process that moves its code while it is traced: memtap says what it has died of.
fn moved_by_a_target(context: &Context) -> Result<()> {
    let mover = Fixture::c(context, "moves_code")?;
    let memtap = Memtap::record(context)?;
    let begin = memtap.directory().join("begin");
    let mut command = mover.command();
    // What is waited for between is there.
    command.arg("/").arg(&begin);
    let target = RunningProgram::start(command)?;
    ensure!(
        eventually(LIMIT, || Ok(target.stdout().contains("ready")))?,
        "the target does not begin"
    );
    let mut session = memtap.process(target.pid()).start()?;
    session.wait_until_tracing()?;
    std::fs::write(&begin, "")?;
    let recording = session.finish()?;
    let expected = format!("process {} died of SIGTRAP", target.pid());
    ensure!(
        recording.finished.code() == 0 && recording.finished.stderr.contains(&expected),
        "memtap ended with {}: {}",
        recording.finished.code(),
        recording.finished.stderr
    );
    Ok(())
}

/// With `--scope machine`, every process that maps the file has the breakpoints.
fn whole_machine(context: &Context) -> Result<()> {
    let bystander = waiting(context)?;
    let words = shell_that_starts(&Fixture::c(context, "sleeper")?)?;
    let memtap = Memtap::record(context)?.arguments(["--scope", "machine"]);
    let mut session = memtap.command(&words).start()?;
    session.wait_until_tracing()?;
    let text = differing_text(context, bystander.pid())?;
    ensure!(!text.is_empty(), "a bystander's code was not changed");
    session.signal("INT")?;
    session.finish()?;
    Ok(())
}

/// A tree of more processes than have links: the probes become the machine's, which is said, and no
/// call is lost or counted twice meanwhile.
fn many_at_once(context: &Context) -> Result<()> {
    let program = Fixture::c(context, "fork")?;
    let program = program.path.to_str().context("not a plain path")?;
    // Each of the forty makes 333 calls of malloc and one of calloc in its child, and 35 itself.
    let script = format!("for i in $(seq 40); do (sleep 1; exec {program} >&2) & done; wait");
    let recording = Memtap::record(context)?
        .arguments(TREE)
        .command(["sh", "-c", &script])
        .run()?
        .whole()?;
    let said = &recording.finished.stderr;
    ensure!(
        said.contains("processes at once"),
        "memtap does not say that its probes are everywhere: {said}"
    );
    let summary = recording.summary()?;
    summary.lost_nothing()?;
    let calls = summary.number("/totals/functions/calloc/calls")?;
    let folded = recording.folded()?;
    let of = |function: &str| folded.weight_of(|line| line.frames.iter().any(|frame| frame == function));
    ensure!(
        of("child_work") == 40 * (333 * 77 + 99) && of("parent_work") == 40 * 35 * 1000 && calls >= 40,
        "{} bytes of children, {} of their parents",
        of("child_work"),
        of("parent_work")
    );
    Ok(())
}

/// Children that must not be stopped are traced as soon as may be.
fn late_children(context: &Context) -> Result<()> {
    let program = Fixture::c(context, "sleeper")?;
    let program = program.path.to_str().context("not a plain path")?;
    let script = format!("{program} 300; {program} 300");
    let recording = Memtap::record(context)?
        .arguments(TREE)
        .argument("--stop-children=never")
        .command(["sh", "-c", &script])
        .run()?;
    ensure!(recording.finished.code() == 0, "the command failed");
    let said = &recording.finished.stderr;
    ensure!(!said.contains("every process"), "the tree was left: {said}");
    let late = recording.summary()?.number("/losses/late_probes")?;
    ensure!(late == 2, "{late} children are counted as late");
    Ok(())
}

/// A command that looks after the stops of its children: the machine's scope is said, in the
/// summary too, and where no child is stopped unseen the tree's stays.
fn watching_commands(context: &Context) -> Result<()> {
    let program = Fixture::c(context, "sleeper")?;
    let program = program.path.to_str().context("not a plain path")?;
    let script = format!("{program} 20; {program} 20; true");
    for (options, at_end) in [
        (&[][..], "machine"),
        (&["--scope", "machine"], "machine"),
        (&["--no-follow"], "tree"),
        (&["--stop-children=never"], "tree"),
        (&["--stop-children=always"], "tree"),
    ] {
        let recording = Memtap::record(context)?
            .arguments(options)
            .command(["bash", "-c", &script])
            .run()?
            .ended_with(0)?;
        let summary = recording.summary()?;
        let asked = if options.contains(&"machine") {
            "machine"
        } else {
            "tree"
        };
        let (scope, last) = (
            &summary.json["settings"]["scope"],
            &summary.json["settings"]["scope_at_end"],
        );
        ensure!(
            scope == asked && last == at_end,
            "{options:?}: the scope was {scope}, at the end {last}"
        );
        let said = &recording.finished.stderr;
        let is_said = said.contains("bash looks after the stops of its children");
        ensure!(is_said == (asked != at_end), "{options:?}: {said}");
        let late = summary.number("/losses/late_probes")?;
        let expected = 2 * u64::from(options.contains(&"--stop-children=never"));
        ensure!(
            late == expected,
            "{options:?}: {late} children are counted as late"
        );
    }
    Ok(())
}

/// After a hundred short-lived children there are not more links than their few living ones have.
fn links_go(context: &Context) -> Result<()> {
    let words = shell_that_starts(&Fixture::c(context, "sleeper")?)?;
    let links = |context: &Context| -> Result<usize> { Ok(Leftovers::now(context)?.count("link")) };
    let before = links(context)?;
    let session = traced_tree(context, &words)?;
    std::thread::sleep(Duration::from_millis(500));
    let early = links(context)?;
    std::thread::sleep(Duration::from_secs(3));
    let late = links(context)?;
    ensure!(
        early > before && late < early + 60,
        "{before} links before, {early} early, {late} after many children"
    );
    session.signal("INT")?;
    session.finish()?.summary()?.lost_nothing()
}

/// Processes of the machine and of a cgroup come from anywhere: there is no tree of them.
fn no_tree(context: &Context) -> Result<()> {
    Memtap::record(context)?
        .arguments(["-a", "--scope", "tree"])
        .run()?
        .refused(2, &["--scope tree"])?;
    Ok(())
}

/// More processes than the kernel side's table has room for: ended ones make room while the command
/// goes on, and every child's call is counted.
fn storm(context: &Context) -> Result<()> {
    // Some 2.5 ms more for each child in the tree's scope.
    storm_of(context, "tree", 3_000)?;
    storm_of(context, "machine", 20_000)
}

fn storm_of(context: &Context, scope: &str, children: u64) -> Result<()> {
    let program = Fixture::c(context, "children")?;
    let program = program.path.to_str().context("not a plain path")?;
    let recording = Memtap::record(context)?
        .arguments(["--strict", "--scope", scope])
        .command([program, &children.to_string()])
        .run()?
        .whole()?;
    let said = &recording.finished.stderr;
    ensure!(
        said.contains(&format!("made {children}")),
        "not all were made: {said}"
    );
    let folded = recording.folded()?;
    let bytes =
        folded.weight_of(|line| line.function == "malloc" && line.frames.iter().any(|it| it == "main"));
    ensure!(
        (children * 77..children * 77 + 10_000).contains(&bytes),
        "{bytes} bytes of {} are counted",
        children * 77
    );
    recording.summary()?.lost_nothing()
}

/// A process that is no target maps code and takes it away for seconds: memtap keeps nothing of it.
fn map_loop(context: &Context) -> Result<()> {
    let target = waiting(context)?;
    let mut command = Fixture::c(context, "maps_code")?.command();
    command.arg("6");
    let noise = RunningProgram::start(command)?;
    let mut session = Memtap::record(context)?
        .process(target.pid())
        .arguments(["-d", "5s"])
        .start()?;
    session.wait_until_tracing()?;
    let memtap = session.pid()?;
    let resident_kib = || memory_kib(memtap, "VmRSS:").context("no VmRSS");
    std::thread::sleep(Duration::from_secs(1));
    let early = resident_kib()?;
    std::thread::sleep(Duration::from_secs(3));
    let late = resident_kib()?;
    session.finish()?;
    let made = noise.finish(LIMIT)?.succeeded()?.stdout;
    let made: u64 = made.trim().parse().context("the noise tells no number")?;
    ensure!(made > 20_000, "only {made} mappings were made");
    ensure!(
        late < early + 8 * 1024 && late < 512 * 1024,
        "memtap went from {early} to {late} KiB while another process made {made} mappings"
    );
    Ok(())
}

/// memtap stands still while a target makes children: after some seconds they are not stopped any
/// more, and when memtap goes on they are again, in the tree's scope.
fn still_memtap(context: &Context) -> Result<()> {
    let memtap = Memtap::record(context)?;
    let made_path = memtap.directory().join("made");
    let words = shell_that_starts(&Fixture::c(context, "sleeper")?)?;
    let script = words[2].replace(" 20;", &format!(" 1; echo >> {};", made_path.display()));
    let made = || std::fs::read(&made_path).map_or(0, |made| made.len());
    let mut session = memtap.command(["sh", "-c", &script]).start()?;
    session.wait_until_tracing()?;
    ensure!(
        eventually(LIMIT, || Ok(made() > 10))?,
        "the target makes no children"
    );
    session.signal("STOP")?;
    std::thread::sleep(Duration::from_secs(5));
    let before = made();
    std::thread::sleep(Duration::from_secs(3));
    let meanwhile = made() - before;
    session.signal("CONT")?;
    std::thread::sleep(Duration::from_secs(2));
    session.signal("INT")?;
    let recording = session.finish()?;
    let said = &recording.finished.stderr;
    ensure!(
        meanwhile > 100,
        "{meanwhile} children in three seconds without memtap: {said}"
    );
    let summary = recording.summary()?;
    let late = summary.number("/losses/late_probes")?;
    ensure!(
        late >= meanwhile as u64 && said.contains("memtap stood still"),
        "{late} of {meanwhile} are counted as late: {said}"
    );
    let scope = &summary.json["settings"]["scope_at_end"];
    ensure!(scope == "tree", "the scope at the end was {scope}: {said}");
    Ok(())
}

/// memtap stands still while others map more code than their events have room for: the records
/// that were lost are a loss as others are.
fn lost_life(context: &Context) -> Result<()> {
    let target = waiting(context)?;
    let memtap = Memtap::record(context)?.arguments(["-d", "30s", "--strict"]);
    let mut session = memtap.process(target.pid()).start()?;
    session.wait_until_tracing()?;
    session.signal("STOP")?;
    let mut command = Fixture::c(context, "maps_code")?.command();
    command.arg("3");
    run(command)?.succeeded()?;
    session.signal("CONT")?;
    // The next record tells of them.
    let mut command = Fixture::c(context, "maps_code")?.command();
    command.arg("1");
    run(command)?.succeeded()?;
    session.signal("INT")?;
    let recording = session.finish()?.ended_with(3)?;
    let lost = recording.summary()?.number("/losses/life_record_lost")?;
    let total = recording.summary()?.number("/losses/total")?;
    let said = &recording.finished.stderr;
    ensure!(
        lost > 0 && total >= lost && said.contains("of process life"),
        "{lost} of {total} lost: {said}"
    );
    Ok(())
}

/// Programs that look after the stops of their children go on, whether memtap knows them or not:
/// most stop themselves when a child does.
fn stop_watchers(context: &Context) -> Result<()> {
    let watcher = Fixture::c(context, "watches_stops")?;
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let unknown = watcher.path.to_str().context("not a plain path")?;
    for command in [
        words(&["timeout", "100", "sh", "-c", "sleep 0.1; echo went on"]),
        words(&["script", "-qec", "sleep 0.1; echo went on", "/dev/null"]),
        words(&[
            "strace",
            "-qo",
            "/dev/null",
            "sh",
            "-c",
            "sleep 0.1; echo went on",
        ]),
        words(&[unknown, "sh", "-c", "sleep 0.1; echo went on"]),
        words(&[
            "sh",
            "-c",
            &format!("{unknown} sh -c 'sleep 0.1; echo went on'; true"),
        ]),
    ] {
        let recording = Memtap::record(context)?.command(&command).run()?;
        ensure!(
            recording.finished.code() == 0 && recording.finished.stdout.contains("went on"),
            "{command:?} ended with {}: {}",
            recording.finished.code(),
            recording.finished.stderr
        );
    }
    Ok(())
}

/// A parent sees no signal and no stop of its children that would not be there without memtap, and
/// none of their calls is missed: those that would see one are told in time.
fn unseen_stops(context: &Context) -> Result<()> {
    let parent = Fixture::c(context, "sees_stops")?;
    let parent = parent.path.to_str().context("not a plain path")?;
    for way in ["handler", "cont", "waits", "blocked", "stops", "sleeps"] {
        let recording = Memtap::record(context)?
            .arguments(["--min-size", "12345", "--max-size", "12345"])
            .command([parent, way])
            .run()?;
        ensure!(
            recording.finished.code() == 0 && recording.finished.stdout.contains("noticed 0\n"),
            "{way}: {}{}",
            recording.finished.stdout,
            recording.finished.stderr
        );
        match way {
            // Its signal mask is not looked at before it makes a child: that one is not stopped,
            // and the next ones come before the machine's probes are in, which is said.
            "blocked" => {
                let said = &recording.finished.stderr;
                let late = recording.summary()?.number("/losses/late_probes")?;
                ensure!(
                    late > 0 && said.contains("its first calls were not seen"),
                    "{way}: {late} counted as late: {said}"
                );
            }
            // A child that it has stopped may not have come to its call.
            "stops" => {}
            _ => {
                let calls = recording.summary()?.number("/totals/functions/malloc/calls")?;
                ensure!(calls == 20, "{way}: {calls} calls: {}", recording.finished.stderr);
            }
        }
    }
    Ok(())
}
