//! The machine around memtap: tracefs, full disks, sudo, and what `doctor` says of it all.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Fixture, FoldedStacks, Memtap, Need};

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case(
        "system::tracefs_not_mounted",
        &[Need::Compiler, Need::Namespaces],
        tracefs_not_mounted,
    ),
    case(
        "system::tracefs_mounted",
        &[Need::Compiler, Need::Namespaces],
        tracefs_mounted,
    ),
    case(
        "system::full_disk",
        &[Need::Compiler, Need::Namespaces],
        full_disk,
    ),
    case("system::user_behind_sudo", &[], user_behind_sudo),
    case("system::environment_and_input", &[], environment),
    case("system::doctor", &[], doctor),
    case(
        "system::doctor_without_privilege",
        &[Need::Namespaces],
        doctor_without_privilege,
    ),
    case("system::help", &[], help),
];

/// Mounts of tracefs that the whole machine sees.
fn tracefs_mounts() -> Result<Vec<String>> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts
        .lines()
        .filter(|line| line.split(' ').nth(2) == Some("tracefs"))
        .map(str::to_owned)
        .collect())
}

const UNMOUNT: &str = "umount /sys/kernel/tracing 2>/dev/null || true; \
                       umount /sys/kernel/debug/tracing 2>/dev/null || true; \
                       umount /sys/kernel/debug 2>/dev/null || true; \
                       if grep -q ' tracefs ' /proc/self/mounts; then exit 99; fi";

fn tracefs_not_mounted(context: &Context) -> Result<()> {
    let before = tracefs_mounts()?;
    let fixture = Fixture::c(context, "regions")?;
    let recording = Memtap::record(context)?
        .after(UNMOUNT)
        .arguments(["--events", "heap,region"])
        .fixture(&fixture)
        .run()?
        .whole()?;
    ensure!(
        recording.summary()?.number("/totals/regions/mmap/calls")? > 100,
        "memory-map calls were not seen"
    );
    ensure!(tracefs_mounts()? == before, "tracefs was mounted for the machine");
    Ok(())
}

fn tracefs_mounted(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "regions")?;
    let recording = Memtap::record(context)?
        .after("test -e /sys/kernel/tracing/uprobe_events || mount -t tracefs tracefs /sys/kernel/tracing")
        .arguments(["--events", "heap,region"])
        .fixture(&fixture)
        .run()?
        .whole()?;
    ensure!(
        recording.summary()?.number("/totals/regions/mmap/calls")? > 100,
        "memory-map calls were not seen"
    );
    Ok(())
}

/// The profile does not fit where it was asked for: it is saved elsewhere, whole, and memtap says
/// where.
fn full_disk(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "deep")?;
    let memtap = Memtap::record(context)?;
    let small = memtap.directory().join("small");
    std::fs::create_dir(&small)?;
    let asked = small.join("profile.folded");
    let prelude = format!("mount -t tmpfs -o size=4k tmpfs {}", small.display());
    let recording = memtap
        .after(&prelude)
        .argument("-o")
        .argument(&asked)
        .fixture(&fixture)
        .run()?;
    let stderr = &recording.finished.stderr;
    ensure!(
        stderr.contains(&asked.display().to_string()),
        "the output that failed is not named"
    );
    let saved = stderr
        .lines()
        .filter(|line| line.contains("saved"))
        .flat_map(|line| line.split(|c: char| c.is_whitespace() || "\"'`,;:()".contains(c)))
        .map(|word| PathBuf::from(word.trim_end_matches('.')))
        .find(|path| path.is_absolute() && path.is_file() && *path != asked)
        .context("no message says where the profile was saved instead")?;
    let text = std::fs::read_to_string(&saved)?;
    std::fs::remove_file(&saved)?;
    let folded = FoldedStacks::parse(&text)?;
    ensure!(
        folded.text == recording.folded()?.text,
        "what was saved in {} is not the profile",
        saved.display()
    );
    Ok(())
}

/// Behind sudo the command runs as the user who called it, with none of root's groups.
fn user_behind_sudo(context: &Context) -> Result<()> {
    let mut memtap = Memtap::record(context)?;
    // The outputs are that user's too.
    std::fs::set_permissions(memtap.directory(), PermissionsExt::from_mode(0o777))?;
    let expected = if context.is_root() {
        memtap = memtap
            .environment("SUDO_UID", "65534")
            .environment("SUDO_GID", "65534")
            .environment("SUDO_USER", "nobody");
        "65534 65534".to_owned()
    } else {
        let output = std::process::Command::new("sh")
            .args(["-c", "echo $(id -u) $(id -g)"])
            .output()?;
        String::from_utf8(output.stdout)?.trim().to_owned()
    };
    let recording = memtap
        .command(["sh", "-c", "echo $(id -u) $(id -g); id -G"])
        .run()?
        .whole()?;
    let mut lines = recording.finished.stdout.lines();
    let found = lines.next().unwrap_or_default();
    ensure!(
        found == expected,
        "the command ran as {found:?}, not {expected:?}"
    );
    let groups = lines.next().context("no groups")?;
    ensure!(
        !groups.split(' ').any(|group| group == "0"),
        "the command kept root's groups: {groups}"
    );
    Ok(())
}

/// The command has memtap's own directory, environment and streams.
fn environment(context: &Context) -> Result<()> {
    let memtap = Memtap::record(context)?.environment("MEMTAP_TEST_WORD", "seen");
    let directory = memtap.directory().canonicalize()?;
    let recording = memtap
        .command(["sh", "-c", "echo $MEMTAP_TEST_WORD; pwd -P; echo aside >&2; cat"])
        .run()?
        .whole()?;
    let stdout = &recording.finished.stdout;
    ensure!(
        *stdout == format!("seen\n{}\n", directory.display()),
        "the command wrote {stdout:?}"
    );
    ensure!(
        recording.finished.stderr_lines().contains(&"aside"),
        "standard error is not the command's too"
    );
    Ok(())
}

fn doctor(context: &Context) -> Result<()> {
    let recording = Memtap::bare(context)?.argument("doctor").run()?.ended_with(0)?;
    let stdout = &recording.finished.stdout;
    let answers = stdout
        .lines()
        .filter(|line| {
            line.split_whitespace()
                .any(|word| ["yes", "no", "unknown"].contains(&word))
        })
        .count();
    ensure!(answers >= 5, "{answers} requirements are answered");

    let recording = Memtap::bare(context)?
        .arguments(["doctor", "--json"])
        .run()?
        .ended_with(0)?;
    let json: serde_json::Value = serde_json::from_str(&recording.finished.stdout)?;
    let text = json.to_string();
    ensure!(
        json.is_object() && text.contains("\"yes\""),
        "not an answer: {text}"
    );
    Ok(())
}

/// Without privilege it answers all the same: that something is missing, and what.
fn doctor_without_privilege(context: &Context) -> Result<()> {
    let recording = Memtap::bare(context)?.unprivileged().argument("doctor").run()?;
    let stdout = recording.finished.stdout.to_lowercase();
    ensure!(
        stdout.contains("cap_") && stdout.split_whitespace().any(|word| word == "no"),
        "the missing privilege is not named"
    );
    Ok(())
}

fn help(context: &Context) -> Result<()> {
    let help = |arguments: &[&str]| -> Result<String> {
        let recording = Memtap::bare(context)?.arguments(arguments).run()?;
        Ok(recording.ended_with(0)?.finished.stdout)
    };
    let text = help(&["record", "--help"])?;
    for word in [
        "--pid",
        "--all",
        "--comm",
        "--duration",
        "--output",
        "--metric",
        "--events",
        "--per-pid",
        "--min-size",
        "--max-size",
        "--summary",
        "--strict",
        "--unwind",
        "--max-stacks",
        "--no-follow",
    ] {
        ensure!(text.contains(word), "the help does not have {word}");
    }
    ensure!(help(&["--help"])?.contains("doctor"), "no doctor in the help");
    ensure!(help(&["--version"])?.starts_with("memtap "), "not a version");
    Ok(())
}
