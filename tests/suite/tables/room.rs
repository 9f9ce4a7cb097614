//! The memory that tables take: it is given back, and it can be too little.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Memtap, Need, Recipe, shim_counts};

use super::bursts::{Bursts, is_whole, tables};
use crate::case::{Case, case};
use crate::stacks::walked::Walked;

pub(crate) const CASES: &[Case] = &[
    case("tables::given_back", &[Need::Compiler], given_back),
    case("tables::no_room", &[Need::Compiler, Need::Python], no_room),
];

/// A child maps two libraries and ends. Its parent goes on, and the tables of both go; the next
/// child maps one of them again, and its table is made anew.
fn given_back(context: &Context) -> Result<()> {
    let memtap = Memtap::record(context)?.argument("-v");
    let bursts = Bursts::new(context, memtap.directory(), 2)?.waiting();
    let heirs = Recipe::plain_c("heirs").flags(["-ldl"]).build(context)?;
    let command = [heirs.path.as_os_str(), "50".as_ref(), "2".as_ref(), "1".as_ref()];
    let mut session = Walked::start(bursts.of_memtap(memtap)?.command(command))?;
    session.wait_until_said(&["unwind tables given back"])?;
    // That was said when it was done.
    std::thread::sleep(Duration::from_millis(50));
    bursts.begin()?;
    let walked = Walked::end(session)?;
    let reported = walked.recording.reported()?;
    ensure!(reported.images.len() == 2, "two children reported");
    let tables = is_whole(&walked, &reported)?;
    ensure!(
        tables["files_released"] == 2 && tables["bytes"] < tables["bytes_most"],
        "the tables of two libraries were to be given back, and one to be made anew: {tables:?}"
    );
    Ok(())
}

/// Python with a few of its modules, and room for less than its tables. All calls count.
fn no_room(context: &Context) -> Result<()> {
    const SCRIPT: &str = "import json, socket, ssl, sqlite3; print(len(json.dumps(list(range(1000)))))";
    let mut python = Command::new("/usr/bin/python3");
    python
        .args(["-I", "-c", SCRIPT])
        .env("PYTHONMALLOC", "malloc")
        .env("PYTHONHASHSEED", "0");
    let (counts, alone) = shim_counts(context, python)?;
    let walked = Walked::run(
        Memtap::record(context)?
            .arguments(["--unwind-memory", "64k"])
            .environment("PYTHONMALLOC", "malloc")
            .environment("PYTHONHASHSEED", "0")
            .command(["/usr/bin/python3", "-I", "-c", SCRIPT]),
    )?;
    let recording = &walked.recording;
    ensure!(
        recording.finished.stdout == alone.stdout,
        "python says something else"
    );
    recording.has_functions(&counts)?;
    let tables = tables(&walked)?;
    ensure!(
        tables["files_without"] > 0 && tables["bytes_most"] <= tables["bytes_capacity"],
        "there is too little room: {tables:?}"
    );
    let lines = recording.finished.stderr_lines();
    let mut named = Vec::new();
    for line in lines.iter().filter(|line| line.contains("warn")) {
        let rest = line.strip_prefix("memtap: warn: ");
        let (file, rest) = rest
            .and_then(|rest| rest.split_once(" is walked by "))
            .with_context(|| format!("a warning of something else: {line}"))?;
        ensure!(rest.contains("--unwind-memory"), "no advice: {line}");
        ensure!(!named.contains(&(file, rest)), "this was said twice: {line}");
        named.push((file, rest));
    }
    let without = named
        .iter()
        .filter(|(_, rest)| rest.starts_with("frame pointers"));
    ensure!(
        without.count() as u64 == tables["files_without"],
        "{tables:?}, and these were named: {named:?}"
    );
    Ok(())
}
