//! Files of a recording: they are written whatever happens to anything else.

pub(crate) mod owners;

use std::fs::Metadata;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Finished, Fixture, FoldedStacks, Memtap, Need, RunningProgram, run};

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case(
        "output_files::killed",
        &[Need::Compiler],
        nothing_is_left_of_a_recording_that_is_killed,
    ),
    case("output_files::no_messages", &[], no_messages),
    case(
        "output_files::terminal_goes",
        &[Need::Compiler, Need::Python],
        terminal_goes,
    ),
    case("output_files::full_streams", &[], full_streams),
    case("output_files::one_fails", &[], one_fails),
    case("output_files::file_size_limit", &[], file_size_limit),
    case("output_files::full_disk", &[Need::Namespaces], full_disk),
    case("output_files::devices_and_pipes", &[], devices_and_pipes),
];

/// All three kinds of files.
pub(crate) const RECORD: &str = "record -o out.folded -o out.svg --summary out.json -- sh -c :";

/// Runs a shell script as root, with the path of memtap as `$1`.
pub(crate) fn shell(context: &Context, directory: &Path, script: &str) -> Result<Finished> {
    let mut command = context.privileged("sh");
    command
        .args(["-c", script, "sh"])
        .arg(&context.memtap)
        .current_dir(directory);
    run(command)
}

pub(crate) fn ended_with(finished: Finished, code: i32) -> Result<Finished> {
    ensure!(
        finished.code() == code,
        "ended with {} instead of {code}: {}",
        finished.code(),
        finished.stderr
    );
    Ok(finished)
}

pub(crate) fn names(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Fails unless the three files of [`RECORD`] are there, whole, and nothing else.
pub(crate) fn are_all_there(directory: &Path) -> Result<[Metadata; 3]> {
    let found = names(directory)?;
    ensure!(
        found == ["out.folded", "out.json", "out.svg"],
        "the directory has {found:?}"
    );
    are_whole(directory)
}

fn are_whole(directory: &Path) -> Result<[Metadata; 3]> {
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).with_context(|| name.to_owned());
    ensure!(
        FoldedStacks::parse(&read("out.folded")?)?.total() > 0,
        "no stacks"
    );
    ensure!(read("out.svg")?.trim_end().ends_with("</svg>"), "half a picture");
    let summary: serde_json::Value = serde_json::from_str(&read("out.json")?)?;
    ensure!(summary["schema"] == "memtap.summary/1", "no summary");
    let metadata = |name: &str| std::fs::symlink_metadata(directory.join(name));
    Ok([
        metadata("out.folded")?,
        metadata("out.svg")?,
        metadata("out.json")?,
    ])
}

/// Whatever ends memtap before its files are whole, nothing is left of them.
fn nothing_is_left_of_a_recording_that_is_killed(context: &Context) -> Result<()> {
    let sleeper = Fixture::c(context, "sleeper")?;
    let target = RunningProgram::start(sleeper.command())?;
    let directory = tempfile::tempdir()?;
    let output = directory.path().join("out.svg");
    for signal in ["KILL", "QUIT", "INT"] {
        for delay_ms in [0, 50, 150, 500] {
            let session = Memtap::record(context)?
                .without_outputs()
                .process(target.pid())
                .argument("-o")
                .argument(&output)
                .start()?;
            sleep(Duration::from_millis(delay_ms));
            session.signal(signal)?;
            session.finish()?;
            let found = names(directory.path())?;
            // An interrupt may have come to a recording, which is reported then.
            ensure!(
                found.is_empty() || signal == "INT" && found == ["out.svg"],
                "{signal} after {delay_ms} ms leaves {found:?}"
            );
            if !found.is_empty() {
                std::fs::remove_file(&output)?;
            }
        }
    }
    Ok(())
}

/// Standard error and output that are closed, or full.
fn no_messages(context: &Context) -> Result<()> {
    for streams in [
        "2>/dev/full",
        "2>&-",
        ">&- 2>&-",
        "<&- >&- 2>&-",
        ">/dev/full 2>/dev/full",
    ] {
        for verbose in ["", "-v"] {
            let directory = tempfile::tempdir()?;
            let script = format!(
                "\"$1\" {} {streams}",
                RECORD.replace("record", &format!("record {verbose}"))
            );
            ended_with(shell(context, directory.path(), &script)?, 0).with_context(|| streams.to_owned())?;
            are_all_there(directory.path()).with_context(|| streams.to_owned())?;
        }
    }
    // Errors have their exit codes also where nobody hears of them.
    let directory = tempfile::tempdir()?;
    for (arguments, code) in [
        ("record -p 4194305", 1),
        ("record", 2),
        ("--nonsense", 2),
        ("", 2),
    ] {
        let script = format!("\"$1\" {arguments} 2>/dev/full");
        ended_with(shell(context, directory.path(), &script)?, code)?;
    }
    Ok(())
}

/// Runs memtap on a terminal of its own, and takes that terminal away.
const TERMINAL: &str = "
import os, pty, select, sys, time
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
text, end = b'', time.time() + 60
while b'probe' not in text and time.time() < end:
    if select.select([terminal], [], [], .2)[0]:
        text += os.read(terminal, 4096)
time.sleep(1)
os.close(terminal)
status = os.waitpid(child, 0)[1]
print(os.waitstatus_to_exitcode(status))
";

/// The terminal that memtap says all on is closed, as by a connection that drops.
fn terminal_goes(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "holding")?;
    let target = RunningProgram::start(fixture.command())?;
    let directory = tempfile::tempdir()?;
    let mut command = context.privileged("/usr/bin/python3");
    command
        .args(["-c", TERMINAL])
        .arg(&context.memtap)
        .args(["record", "-v", "-p", &target.pid().to_string()])
        .args("-o out.folded -o out.svg --summary out.json --sample 1 --max-overhead off".split(' '))
        .current_dir(directory.path());
    let finished = run(command)?.succeeded()?;
    ensure!(
        finished.stdout.trim() == "0",
        "memtap ended with {}",
        finished.stdout
    );
    are_all_there(directory.path())?;
    Ok(())
}

/// Returns the file that a message says a profile was saved as, and removes it at the end.
struct SavedFile(PathBuf);

impl SavedFile {
    fn of(finished: &Finished, output: &str) -> Result<Self> {
        let path = finished
            .stderr
            .lines()
            .filter(|line| line.contains(output))
            .find_map(|line| line.split_once("it was saved as ")?.1.strip_suffix(" instead"))
            .with_context(|| format!("nothing says where {output} was saved: {}", finished.stderr))?;
        Ok(Self(path.into()))
    }

    fn text(&self) -> Result<String> {
        std::fs::read_to_string(&self.0).with_context(|| self.0.display().to_string())
    }
}

impl Drop for SavedFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            eprintln!("suite: {}: {error}", self.0.display());
        }
    }
}

/// A profile or a table that standard output does not take.
fn full_streams(context: &Context) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let script = format!("\"$1\" {} >/dev/full", RECORD.replace("record", "record -o -"));
    let finished = ended_with(shell(context, directory.path(), &script)?, 1)?;
    are_all_there(directory.path())?;
    let saved = SavedFile::of(&finished, "-")?;
    let own = std::fs::read_to_string(directory.path().join("out.folded"))?;
    ensure!(saved.text()? == own, "another profile was saved");
    for command in [
        "record -- true",
        "record --summary out.json -- true",
        "live -- true",
    ] {
        let finished = ended_with(
            shell(context, directory.path(), &format!("\"$1\" {command} >/dev/full"))?,
            1,
        )?;
        ensure!(
            finished.stderr.contains("failed to write to standard output"),
            "{command}: {}",
            finished.stderr
        );
    }
    are_all_there(directory.path())?;
    for command in ["doctor", "doctor --json", "record -- true", "record -o - -- true"] {
        // A reader that has seen enough is no error.
        let script = format!("{{ \"$1\" {command}; echo $? >&2; }} | true");
        let finished = ended_with(shell(context, directory.path(), &script)?, 0)?;
        ensure!(
            finished.stderr_lines().last() == Some(&"0"),
            "{command} with a closed pipe: {}",
            finished.stderr
        );
    }
    Ok(())
}

/// Files that cannot be written keep none of the others from it.
fn one_fails(context: &Context) -> Result<()> {
    let directory = tempfile::tempdir()?;
    symlink("/dev/full", directory.path().join("bad.svg"))?;
    let script = format!(
        "\"$1\" {}",
        RECORD.replace("record", "record -o bad.svg --raw /dev/full")
    );
    let finished = ended_with(shell(context, directory.path(), &script)?, 1)?;
    are_whole(directory.path())?;
    ensure!(
        SavedFile::of(&finished, "bad.svg")?.text()?.contains("</svg>"),
        "half a picture was saved"
    );
    ensure!(
        SavedFile::of(&finished, "/dev/full:")?
            .text()?
            .starts_with("# process"),
        "no addresses were saved"
    );
    Ok(())
}

/// A limit on the size of files ends nobody, and no half of a file is left; what fits is written.
fn file_size_limit(context: &Context) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let script = "TMPDIR=$PWD; export TMPDIR; ulimit -f 24; \
                  exec \"$1\" record -o out.svg -o out.folded -- sh -c \
                  'while read name mask; do [ $name != SigIgn: ] || echo $mask; done </proc/self/status'";
    let finished = ended_with(shell(context, directory.path(), script)?, 1)?;
    ensure!(
        names(directory.path())? == ["out.folded"],
        "{:?}",
        names(directory.path())?
    );
    let line = finished
        .stderr
        .lines()
        .find(|line| line.contains("out.svg"))
        .context("nothing is said of the picture")?;
    for word in ["File too large", "could not be saved", "ulimit -f"] {
        ensure!(line.contains(word), "{word:?} is missing: {line}");
    }
    // The command has the signal's own action: bit 25 - 1 of the ignored ones.
    let ignored = finished
        .stdout
        .split_whitespace()
        .last()
        .and_then(|mask| u64::from_str_radix(mask, 16).ok())
        .context("no mask of signals")?;
    ensure!(
        ignored & (1 << 24) == 0,
        "the command ignores SIGXFSZ: {ignored:x}"
    );
    Ok(())
}

/// A full file system: what does not fit is saved in `TMPDIR`, or else is told to be lost.
fn full_disk(context: &Context) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let small = directory.path().join("small");
    std::fs::create_dir(&small)?;
    let script = format!(
        "mount -t tmpfs -o size=12k none small && cd small && TMPDIR={} && export TMPDIR && \"$1\" {}; \
         code=$?; ls -A >&2; exit $code",
        directory.path().display(),
        RECORD
    );
    let mut command = context.privileged("unshare");
    command
        .args(["-m", "sh", "-c", &script, "sh"])
        .arg(&context.memtap)
        .current_dir(directory.path());
    let finished = ended_with(run(command)?, 1)?;
    let saved = SavedFile::of(&finished, "out.svg")?;
    ensure!(
        saved.0.parent() == Some(directory.path()),
        "it was not saved in TMPDIR but as {}",
        saved.0.display()
    );
    ensure!(saved.text()?.contains("</svg>"), "half a picture was saved");
    let left: Vec<&str> = finished
        .stderr_lines()
        .into_iter()
        .rev()
        .take_while(|line| line.starts_with("out."))
        .collect();
    ensure!(!left.contains(&"out.svg"), "half a picture was left");
    ensure!(
        left.contains(&"out.folded"),
        "the stacks had room: {}",
        finished.stderr
    );
    Ok(())
}

/// Outputs that are no regular files.
fn devices_and_pipes(context: &Context) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let schema = "memtap.summary/1";
    // Standard output is a pipe, a file, and a file that is appended to.
    let piped = "\"$1\" record -q --summary /dev/stdout -- true | cat";
    let finished = ended_with(shell(context, directory.path(), piped)?, 0)?;
    ensure!(finished.stdout.contains(schema), "nothing came through the pipe");
    let appended = "echo first >out; \"$1\" record -q --summary /dev/stdout -- true >>out; cat out";
    let finished = ended_with(shell(context, directory.path(), appended)?, 0)?;
    ensure!(
        finished.stdout.starts_with("first\n{") && finished.stdout.contains(schema),
        "the file has not both: {}",
        finished.stdout
    );
    let numbered = "\"$1\" record -q --summary /dev/fd/7 -- true 7>out; cat out";
    let finished = ended_with(shell(context, directory.path(), numbered)?, 0)?;
    ensure!(finished.stdout.contains(schema), "nothing is in the file");
    ensure!(
        Path::new("/dev/stdout").is_symlink() && names(directory.path())? == ["out"],
        "something was replaced"
    );
    let fifo =
        "mkfifo pipe.folded; cat pipe.folded & \"$1\" record -q -o pipe.folded -o null.svg -- sh -c :; wait";
    symlink("/dev/null", directory.path().join("null.svg"))?;
    let finished = ended_with(shell(context, directory.path(), fifo)?, 0)?;
    ensure!(
        FoldedStacks::parse(&finished.stdout)?.total() > 0,
        "no stacks came through the FIFO"
    );
    for name in ["pipe.folded", "null.svg"] {
        let metadata = directory.path().join(name).symlink_metadata()?;
        ensure!(!metadata.is_file(), "{name} was replaced");
    }
    Ok(())
}
