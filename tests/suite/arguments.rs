//! Arguments, limits and namespaces that make no sense, or that few have: one clear line each, or
//! the same figures as anywhere else.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Fixture, Memtap, MemtapRecording, Need, RecordingSummary, RunningProgram, run};

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("arguments::nonsense", &[], nonsense),
    case("arguments::limits", &[], limits),
    case("arguments::names_without_utf8", &[], names_without_utf8),
    case(
        "arguments::time_namespace_of_memtap",
        &[Need::Compiler, Need::Namespaces],
        time_namespace_of_memtap,
    ),
    case(
        "arguments::time_namespace_of_the_target",
        &[Need::Compiler, Need::Namespaces],
        time_namespace_of_the_target,
    ),
    case(
        "arguments::hidden_processes",
        &[Need::Namespaces],
        hidden_processes,
    ),
    case("arguments::user_namespace", &[Need::Namespaces], user_namespace),
];

/// Fails unless memtap ended well, or with one line of memtap's own.
fn is_told(recording: MemtapRecording, codes: &[i32], words: &[&str]) -> Result<()> {
    let code = recording.finished.code();
    ensure!(
        codes.contains(&code),
        "ended with {code}: {}",
        recording.finished.stderr
    );
    recording.refused(code, words)?;
    Ok(())
}

fn nonsense(context: &Context) -> Result<()> {
    let cases: [&[&str]; 19] = [
        &["--max-overhead", "1e-300"],
        &["--max-overhead", "1e300"],
        &["--max-overhead", "NaN"],
        &["--max-overhead=-1"],
        &["--max-blocks", "0"],
        &["--max-blocks", "4294967295"],
        &["--max-stacks", "0"],
        &["--max-stacks", "4294967295"],
        &["--max-stacks", "4294967296"],
        &["--max-processes", "4294967295"],
        &["--ring-size", "3"],
        &["--ring-size", "18446744073709551615"],
        &["--unwind-memory", "1"],
        &["--unwind-memory", "999999999999T"],
        &["--sample", "0"],
        &["--top", "99999999999999999999"],
        &["--min-size", "99999999999999999999"],
        &["-d", "1e300s"],
        &["-d", "99999999999999h"],
    ];
    for words in cases {
        let recording = Memtap::bare(context)?
            .arguments(["record"])
            .arguments(words)
            .command(["true"])
            .run()?;
        let option = words[0].split('=').next().unwrap_or_default();
        let option = if option == "-d" { "--duration" } else { option };
        is_told(recording, &[2], &["error", option]).with_context(|| format!("{words:?}"))?;
    }
    Ok(())
}

/// Limits of the process that memtap is started with.
fn limits(context: &Context) -> Result<()> {
    for (limit, word) in [
        ("-n 10", "ulimit -Hn"),
        ("-v 50000", "ulimit -v"),
        ("-d 20000", "ulimit -d"),
    ] {
        for arguments in [
            "record -- true",
            "record -p 1 -d 1s",
            "live -- true",
            "estimate -p 1",
            "doctor",
        ] {
            let mut command = context.privileged("sh");
            command
                .args(["-c", &format!("ulimit {limit} && exec \"$1\" {arguments}"), "sh"])
                .arg(&context.memtap);
            let finished = run(command)?;
            let lines = finished.stderr_lines();
            ensure!(
                finished.code() == 1 && lines.len() == 1 && lines[0].contains(word),
                "{limit}, {arguments}: {} and {}",
                finished.code(),
                finished.stderr
            );
        }
    }
    Ok(())
}

/// Outputs, commands and processes whose names are no UTF-8.
fn names_without_utf8(context: &Context) -> Result<()> {
    let memtap = Memtap::bare(context)?;
    let program = memtap.directory().join(OsStr::from_bytes(b"prog-\xff"));
    std::fs::copy("/bin/sh", &program)?;
    let name = |text: &'static [u8]| OsStr::from_bytes(text);
    let recording = memtap
        .argument("record")
        .arguments([
            OsStr::new("-o"),
            name(b"\xff.svg"),
            OsStr::new("-o"),
            name(b"alloc-count=\xfe=.folded"),
        ])
        .arguments([OsStr::new("--summary"), name(b"\xff.json")])
        .command([name(b"./prog-\xff"), OsStr::new("-c"), OsStr::new(":")])
        .run()?
        .ended_with(0)?;
    for (file, text) in [
        (name(b"\xff.svg"), "</svg>"),
        (name(b"\xfe=.folded"), "prog-\u{fffd};"),
        (name(b"\xff.json"), "memtap.summary/1"),
    ] {
        let found = std::fs::read_to_string(recording.directory().join(file))?;
        ensure!(found.contains(text), "{} lacks {text}", file.display());
    }
    // The process, by its name.
    let program = recording.directory().join(name(b"prog-\xff"));
    let mut command = Command::new(&program);
    command.args(["-c", "while :; do /bin/true; done"]);
    let target = RunningProgram::start(command)?;
    let recording = Memtap::record(context)?
        .argument("--comm")
        .argument(name(b"prog-\xff"))
        .arguments(["-d", "500ms"])
        .run()?
        .whole()?;
    drop(target);
    ensure!(
        recording.summary()?.number("/totals/alloc/count")? > 0,
        "the process was not found by its name"
    );
    Ok(())
}

/// `memtap live` after a wrapper's words, on what holds memory. Returns the age of the block that
/// it has from the start, and the growth.
fn live_figures(context: &Context, wrapper: &[&str], target: &[&OsStr]) -> Result<(f64, i64, u64)> {
    let directory = tempfile::tempdir()?;
    let mut words: Vec<OsString> = wrapper.iter().map(OsString::from).collect();
    words.push(context.memtap.clone().into());
    words.extend(["live", "-d", "3s", "--older-than", "1s", "--summary", "live.json"].map(OsString::from));
    words.extend(target.iter().map(|word| (*word).to_owned()));
    let mut command = context.privileged(&words[0]);
    command.args(&words[1..]).current_dir(directory.path());
    let finished = run(command)?.succeeded()?;
    let summary = RecordingSummary::parse(&std::fs::read_to_string(directory.path().join("live.json"))?)?;
    summary.lost_nothing()?;
    let stacks = summary.json["top_stacks"].as_array().context("no stacks")?;
    let start = stacks
        .iter()
        .find(|stack| {
            let mut frames = stack["frames"].as_array().into_iter().flatten();
            frames.any(|frame| frame["function"] == "start_block")
        })
        .context("no stack of the block from the start")?;
    ensure!(
        finished.stdout.contains("start_block"),
        "it is not in the table of old blocks"
    );
    Ok((
        start["oldest_s"].as_f64().context("no age")?,
        summary.json["live"]["growth_bytes"]
            .as_i64()
            .context("no growth")?,
        summary.json["live"]["half_way"]["count"]
            .as_u64()
            .context("no mark")?,
    ))
}

/// The wrapper of a time namespace, ahead of the machine or behind it.
const NAMESPACES: [[&str; 6]; 2] = [
    ["unshare", "-T", "--boottime", "1000", "--monotonic", "1000"],
    ["unshare", "-T", "--boottime", "-100", "--monotonic", "-100"],
];

fn ages_are_true(context: &Context, wrapper: &[&str], target: &[&OsStr]) -> Result<()> {
    let (oldest_s, growth_bytes, half_way) = live_figures(context, wrapper, target)?;
    ensure!(
        (2.0..10.0).contains(&oldest_s) && growth_bytes > 0 && half_way > 0,
        "a block of the first of three seconds is {oldest_s} s old; growth {growth_bytes}; {half_way} blocks half-way"
    );
    Ok(())
}

fn time_namespace_of_memtap(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "holding")?;
    let command = [OsStr::new("--"), fixture.path.as_os_str(), OsStr::new("4")];
    ages_are_true(context, &[], &command)?;
    for wrapper in NAMESPACES {
        ages_are_true(context, &wrapper, &command).with_context(|| wrapper.join(" "))?;
    }
    Ok(())
}

fn time_namespace_of_the_target(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "holding")?;
    for wrapper in NAMESPACES {
        let words = ["--"].iter().chain(&wrapper).map(OsStr::new);
        let command: Vec<&OsStr> = words.chain([fixture.path.as_os_str(), OsStr::new("4")]).collect();
        ages_are_true(context, &[], &command).with_context(|| wrapper.join(" "))?;
    }
    Ok(())
}

/// A process that `/proc` hides is not said to have ended.
fn hidden_processes(context: &Context) -> Result<()> {
    let mut command = context.privileged("sleep");
    command.arg("100");
    let target = RunningProgram::start(command)?;
    let pid = context.behind_sudo(target.pid(), "sleep")?;
    for mode in ["noaccess", "invisible", "ptraceable"] {
        // As root without the right to look at other processes, and as nobody.
        for identity in [
            "--bounding-set -sys_ptrace",
            "--reuid 65534 --regid 65534 --clear-groups",
        ] {
            let script = format!(
                "mount -t proc -o hidepid={mode} proc /proc && exec setpriv {identity} \"$1\" record -p {pid} -d 1s"
            );
            let mut command = context.privileged("unshare");
            command
                .args(["-m", "sh", "-c", &script, "sh"])
                .arg(&context.memtap);
            let finished = run(command)?;
            let lines = finished.stderr_lines();
            ensure!(
                finished.code() == 1
                    && lines.len() == 1
                    && lines[0].contains("CAP_SYS_PTRACE")
                    && !lines[0].contains("ended"),
                "hidepid={mode}, {identity}: {}",
                finished.stderr
            );
        }
    }
    Ok(())
}

/// Root of a user namespace has every capability, and none that counts.
fn user_namespace(context: &Context) -> Result<()> {
    let mut command = context.privileged("sleep");
    command.arg("100");
    let target = RunningProgram::start(command)?;
    let pid = context.behind_sudo(target.pid(), "sleep")?.to_string();
    let mut command = context.privileged("unshare");
    command
        .args(["-Ur", "--"])
        .arg(&context.memtap)
        .args(["record", "-p", &pid, "-d", "1s"]);
    let finished = run(command)?;
    let lines = finished.stderr_lines();
    ensure!(
        finished.code() == 1
            && lines.len() == 1
            && lines[0].contains("root of the machine")
            && !lines[0].contains("ended"),
        "{}",
        finished.stderr
    );
    Ok(())
}
