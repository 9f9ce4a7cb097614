//! Errors are reported in one line, with what to do, and with the right exit code.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Fixture, Memtap, MemtapRecording, Need, RunningProgram, eventually};

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("errors::no_such_process", &[], no_such_process),
    case("errors::zombie", &[], zombie),
    case("errors::kernel_thread", &[], kernel_thread),
    case("errors::wrong_usage", &[], wrong_usage),
    case("errors::unknown_format", &[], unknown_format),
    case("errors::unwritable_output", &[], unwritable_output),
    case("errors::unwritable_summary", &[], unwritable_summary),
    case("errors::unknown_command", &[], unknown_command),
    case("errors::not_root", &[Need::Namespaces], not_root),
    case(
        "errors::no_allocator",
        &[Need::Compiler, Need::StaticLibc],
        no_allocator,
    ),
    case("errors::no_such_name", &[], no_such_name),
];

fn no_such_process(context: &Context) -> Result<()> {
    let mut child = Command::new("true").spawn()?;
    let pid = child.id();
    child.wait()?;
    Memtap::record(context)?
        .process(pid)
        .run()?
        .refused(1, &["process", &pid.to_string()])?;
    Ok(())
}

fn zombie(context: &Context) -> Result<()> {
    let mut child = Command::new("true").spawn()?;
    let pid = child.id();
    let stat = format!("/proc/{pid}/stat");
    let is_dead = eventually(std::time::Duration::from_secs(5), || {
        Ok(std::fs::read_to_string(&stat)?.contains(") Z "))
    })?;
    ensure!(is_dead, "`true` does not end");
    let recording = Memtap::record(context)?.process(pid).run()?;
    child.wait()?;
    recording.refused(1, &[&pid.to_string()])?;
    Ok(())
}

/// `kthreadd` is process 2 on every machine whose kernel threads can be seen; it has no user memory
/// at all.
fn kernel_thread(context: &Context) -> Result<()> {
    let is_kthreadd = std::fs::read_to_string("/proc/2/comm").is_ok_and(|comm| comm.trim() == "kthreadd");
    // In a container there is none to trace.
    if is_kthreadd {
        Memtap::record(context)?.process(2).run()?.refused(1, &["2"])?;
    }
    Ok(())
}

fn wrong_usage(context: &Context) -> Result<()> {
    let cases: [&[&str]; 8] = [
        &["record"],
        &["record", "-p", "1", "-a"],
        &["record", "-p", "one"],
        &["record", "-a", "--metric", "nonsense"],
        &["record", "-a", "--events", "nonsense"],
        &["record", "-a", "-d", "soon"],
        &["record", "-a", "--no-such-option"],
        &["no-such-command"],
    ];
    for arguments in cases {
        let recording = Memtap::bare(context)?
            .arguments(arguments)
            .run()?
            .ended_with(2)
            .with_context(|| arguments.join(" "))?;
        ensure!(
            recording.finished.stdout.is_empty() && !recording.finished.stderr.is_empty(),
            "errors are written to standard error: {arguments:?}"
        );
    }
    Ok(())
}

/// A command that leaves a mark where it should never have run.
fn with_mark(memtap: Memtap<'_>) -> Result<(Memtap<'_>, std::path::PathBuf)> {
    let mark = memtap.directory().join("mark");
    let command = ["touch", mark.to_str().context("not a plain path")?];
    let memtap = memtap.command(command);
    Ok((memtap, mark))
}

fn unknown_format(context: &Context) -> Result<()> {
    let memtap = Memtap::record(context)?
        .without_outputs()
        .arguments(["-o", "profile.docx"]);
    let (memtap, mark) = with_mark(memtap)?;
    let recording = memtap.run()?;
    let code = recording.finished.code();
    ensure!((1..=2).contains(&code), "exit code {code} instead of 1 or 2");
    ensure!(!mark.exists(), "the command was run all the same");
    let recording = recording.refused(code, &["docx", ".svg", ".folded"])?;
    ensure!(
        !recording.directory().join("profile.docx").exists(),
        "the file was made all the same"
    );
    Ok(())
}

fn unwritable_output(context: &Context) -> Result<()> {
    for path in ["/nonexistent/dir/profile.folded", "/proc/profile.svg"] {
        let memtap = Memtap::record(context)?.without_outputs().arguments(["-o", path]);
        let (memtap, mark) = with_mark(memtap)?;
        let recording = memtap.run()?;
        ensure!(!mark.exists(), "the command was run all the same");
        recording.refused(1, &[path])?;
    }
    Ok(())
}

fn unwritable_summary(context: &Context) -> Result<()> {
    let path = "/nonexistent/dir/summary.json";
    let memtap = Memtap::record(context)?
        .without_outputs()
        .arguments(["--summary", path]);
    let (memtap, mark) = with_mark(memtap)?;
    let recording = memtap.run()?;
    ensure!(!mark.exists(), "the command was run all the same");
    recording.refused(1, &[path])?;
    Ok(())
}

fn unknown_command(context: &Context) -> Result<()> {
    // A file that may not be executed.
    let not_a_program = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for command in ["./nonexistent", "no-such-command-anywhere", not_a_program] {
        let recording = Memtap::record(context)?.command([command]).run()?;
        let code = recording.finished.code();
        ensure!([1, 126, 127].contains(&code), "exit code {code} for `{command}`");
        let recording = recording
            .refused(code, &[command])
            .with_context(|| command.to_owned())?;
        ensure!(
            !recording.finished.stderr.contains("allocator"),
            "`{command}` cannot be run, whatever it may allocate by"
        );
    }
    Ok(())
}

fn not_root(context: &Context) -> Result<()> {
    Memtap::record(context)?
        .unprivileged()
        .command(["true"])
        .run()?
        .refused(1, &["sudo", "cap_"])?;
    Ok(())
}

/// A static executable without symbols: there is nothing to put a probe on, and no zero is
/// reported.
fn no_allocator(context: &Context) -> Result<()> {
    let fixture = Fixture::static_c(context, "sleeper")?;
    let target = RunningProgram::start(fixture.command())?;
    Memtap::record(context)?
        .process(target.pid())
        .arguments(["-d", "1s"])
        .run()?
        .refused(1, &["allocator", &target.pid().to_string()])?;
    drop(target);
    let recording: MemtapRecording = Memtap::record(context)?
        .command([fixture.path.as_os_str(), "1".as_ref()])
        .run()?;
    recording.refused(1, &["allocator"])?;
    Ok(())
}

/// `--comm` waits for processes of that name: a duration ends the wait, and nothing was seen.
fn no_such_name(context: &Context) -> Result<()> {
    let recording = Memtap::record(context)?
        .arguments(["--comm", "no-such-name", "-d", "300ms"])
        .run()?;
    let code = recording.finished.code();
    if code == 0 {
        let calls = recording.summary()?.number("/totals/alloc/count")?;
        ensure!(calls == 0, "{calls} calls of nobody");
        return Ok(());
    }
    recording.refused(1, &["no-such-name"])?;
    Ok(())
}
