//! Programs that are executed for a command: the command, and nothing that its arguments name.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Memtap, Need, run};

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case(
        "commands::hostile_interpreters",
        &[Need::Compiler],
        hostile_interpreters,
    ),
    case("commands::executed", &[Need::Strace], executed),
];

/// The time that a recording of `wc` may take; the interpreters take longer, and one writes more
/// than there is room for.
const PATIENCE: Duration = Duration::from_mins(1);

/// Programs that are nothing but arguments, and ask for a dynamic linker that is somebody's script.
fn hostile_interpreters(context: &Context) -> Result<()> {
    const SLEEP: &str = "sleep 100";
    const FLOOD: &str = "head -c 2000000000 /dev/zero";
    for script in ["true", SLEEP, FLOOD] {
        let memtap = Memtap::record(context)?;
        let directory = memtap.directory().to_owned();
        let executed = directory.join("executed");
        let interpreter = directory.join("interpreter");
        let text = format!(
            "#!/bin/sh\necho \"$*\" >> {}\nexec {script}\n",
            executed.display()
        );
        fs::write(&interpreter, text)?;
        fs::set_permissions(&interpreter, fs::Permissions::from_mode(0o755))?;
        let sample = directory.join("sample");
        build(&directory, &interpreter, &sample)?;

        let begun = Instant::now();
        let sample = sample.to_str().context("not a plain path")?;
        // As a word of its own, and inside of another.
        let words = ["sh", "-c", &format!("wc -c {sample}; wc -c < {sample}"), sample];
        let recording = memtap.command(words).run()?.ended_with(0)?.whole()?;
        ensure!(begun.elapsed() < PATIENCE, "`{script}` was waited for");
        ensure!(
            !executed.exists(),
            "an argument's interpreter was run with `{}`",
            fs::read_to_string(&executed)?.trim_end()
        );
        recording.summary()?.lost_nothing()?;
    }
    Ok(())
}

/// Makes a program that asks for this dynamic linker.
fn build(directory: &Path, interpreter: &Path, program: &Path) -> Result<()> {
    let source = directory.join("sample.c");
    fs::write(&source, "int main(void) { return 0; }\n")?;
    let mut compile = std::process::Command::new("cc");
    compile
        .arg(format!("-Wl,--dynamic-linker={}", interpreter.display()))
        .arg("-o")
        .args([program, &source]);
    run(compile)?.succeeded()?;
    Ok(())
}

/// memtap, its own process that reads names, and the command are all that is executed.
fn executed(context: &Context) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (log, profile) = (
        directory.path().join("log"),
        directory.path().join("stacks.folded"),
    );
    let mut strace = context.privileged("strace");
    strace
        .args(["-f", "-e", "trace=execve,execveat", "-o"])
        .args([&log, &context.memtap])
        .args(["record", "-q", "-o"])
        .arg(&profile)
        .args(["--", "/bin/sh", "-c", ": python3 /bin/ls"]);
    run(strace)?.succeeded()?;
    let log = fs::read_to_string(&log)?;
    let calls: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("execve") && line.ends_with("= 0"))
        .filter(|line| !line.contains("\"/proc/self/exe\"") || !line.contains("symbolize-worker"))
        .collect();
    let is_expected = calls.len() == 2 && calls[1].contains("(\"/bin/sh\"");
    ensure!(is_expected, "these were executed:\n{}", calls.join("\n"));
    Ok(())
}
