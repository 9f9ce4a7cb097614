//! The cost of the scope of breakpoints: to a target that starts processes, for each that it
//! starts, and to a process that nobody traces, for each of its calls.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use test_support::child::{ChildGuard, Scope};
use test_support::{privilege, process, workspace};

use super::grid::{Grid, Side, cell};
use super::measure::{empty, median};
use super::target::compile;
use super::{interrupt, progress};

/// Runs of each row.
pub(crate) const FULL: usize = 5;
/// Runs for a look.
pub(crate) const QUICK: usize = 1;

/// Scopes of memtap, as its option names them.
const SCOPES: [&str; 2] = ["tree", "machine"];

/// C files of the build.
const FILES: u32 = 60;

/// Everything that was measured of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ScopeCosts {
    starts: Vec<StartRow>,
    bystanders: Vec<BystanderRow>,
}

/// A workload that starts processes.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StartRow {
    workload: String,
    /// Processes that it starts.
    started: u32,
    bare_s: Option<f64>,
    /// Seconds of the recording, by scope.
    traced_s: Vec<Option<f64>>,
    problem: Option<String>,
}

/// A process that nobody traces, while another is recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct BystanderRow {
    while_recording: String,
    ns_per_pair: Option<f64>,
}

/// Programs that start processes: a name, the number of processes, the command.
struct StartWorkload {
    name: &'static str,
    started: u32,
    words: Vec<OsString>,
    missing: Option<String>,
}

/// The names of the rows, and why some cannot be measured here.
pub(crate) fn list() -> Vec<(String, Option<String>)> {
    let mut rows: Vec<_> = workloads(Path::new(""))
        .into_iter()
        .map(|workload| (workload.name.to_owned(), workload.missing))
        .collect();
    rows.push(("a process that nobody traces".to_owned(), None));
    rows
}

fn workloads(directory: &Path) -> Vec<StartWorkload> {
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let missing =
        |program: &str| (!workspace::in_path(program)).then(|| format!("{program} is not installed"));
    let repeat = "i=0; while [ $i -lt 200 ]; do /bin/true; i=$((i+1)); done";
    let mut make = words(&["make", "-s", "-j2", "-C"]);
    make.push(directory.into());
    vec![
        StartWorkload {
            name: "shell script, vfork (dash, 200 × true)",
            started: 200,
            words: words(&["dash", "-c", repeat]),
            missing: missing("dash"),
        },
        StartWorkload {
            name: "shell script, fork (bash, 200 × true)",
            started: 200,
            words: words(&["bash", "-c", repeat]),
            missing: missing("bash"),
        },
        StartWorkload {
            name: "build (make -j2, 60 × cc)",
            // The driver, the compiler and the assembler.
            started: 3 * FILES,
            words: make,
            missing: missing("make"),
        },
    ]
}

/// Measures all rows, bare and in both scopes in turns.
pub(crate) fn measure(memtap: &Path, runs: usize, directory: &Path) -> Result<ScopeCosts> {
    let directory = directory.join("scope");
    empty(&directory)?;
    write_build(&directory)?;
    let mut costs = ScopeCosts::default();
    for workload in workloads(&directory) {
        progress::say(&format!("scope: {}", workload.name));
        costs.starts.push(start_row(&workload, memtap, runs, &directory)?);
    }
    progress::say("scope: a process that nobody traces");
    let bystander = compile("bystander.c", &[], &directory, "bystander")?;
    for scope in [None, Some(SCOPES[0]), Some(SCOPES[1])] {
        costs.bystanders.push(bystander_row(&bystander, memtap, scope)?);
    }
    Ok(costs)
}

/// Writes C files and a Makefile that compiles them anew each time.
fn write_build(directory: &Path) -> Result<()> {
    let mut objects = String::new();
    for number in 0..FILES {
        let text = format!(
            "#include <stdio.h>\n#include <stdlib.h>\nint f{number}(int a) {{ return printf(\"%d\", a) + {number}; }}\n"
        );
        fs::write(directory.join(format!("f{number}.c")), text)?;
        write!(objects, " f{number}.o")?;
    }
    let makefile = format!("all:{objects}\n%.o: %.c FORCE\n\tcc -c -o $@ $<\nFORCE:\n");
    fs::write(directory.join("Makefile"), makefile)?;
    Ok(())
}

fn start_row(workload: &StartWorkload, memtap: &Path, runs: usize, directory: &Path) -> Result<StartRow> {
    let mut row = StartRow {
        workload: workload.name.to_owned(),
        started: workload.started,
        bare_s: None,
        traced_s: vec![None; SCOPES.len()],
        problem: workload.missing.clone(),
    };
    if row.problem.is_some() {
        return Ok(row);
    }
    let mut bare = Vec::new();
    let mut traced = vec![Vec::new(); SCOPES.len()];
    for _ in 0..runs {
        interrupt::check()?;
        bare.push(bare_seconds(&workload.words)?);
        for (scope, seconds) in SCOPES.iter().zip(&mut traced) {
            match recorded_seconds(memtap, scope, &workload.words, directory) {
                Ok(recorded) => seconds.push(recorded),
                Err(error) => row.problem = Some(format!("{error:#}")),
            }
        }
    }
    row.bare_s = median(&mut bare);
    row.traced_s = traced.iter_mut().map(|seconds| median(seconds)).collect();
    Ok(row)
}

fn bare_seconds(words: &[OsString]) -> Result<f64> {
    let mut command = privilege::elevated(Path::new(&words[0]));
    command.args(&words[1..]);
    let begun = Instant::now();
    process::output(&mut command, "run what is to be traced")?;
    Ok(begun.elapsed().as_secs_f64())
}

/// The duration of a recording, from the command's release to its end.
fn recorded_seconds(memtap: &Path, scope: &str, words: &[OsString], directory: &Path) -> Result<f64> {
    let summary = directory.join("summary.json");
    let mut command = privilege::elevated(memtap);
    command
        // A build has more stacks than are kept by default.
        .args([
            "record",
            "-q",
            "--max-stacks",
            "1000000",
            "--scope",
            scope,
            "--summary",
        ])
        .arg(&summary)
        .arg("--")
        .args(words);
    process::output(&mut command, "record what starts processes")?;
    let text = fs::read_to_string(&summary).context("failed to read memtap's summary")?;
    let summary: serde_json::Value = serde_json::from_str(&text)?;
    let lost = summary["losses"]["total"].as_u64();
    ensure!(lost == Some(0), "memtap lost {lost:?} events");
    summary["duration_s"]
        .as_f64()
        .context("the summary has no duration")
}

/// Times a process while memtap records another one that sleeps, or nothing.
fn bystander_row(bystander: &Path, memtap: &Path, scope: Option<&str>) -> Result<BystanderRow> {
    let recording = scope
        .map(|scope| {
            let mut command = privilege::elevated(memtap);
            command
                .args(["record", "-q", "--scope", scope, "--", "sleep", "60"])
                .stdout(Stdio::null());
            let child = ChildGuard::spawn(&mut command, Scope::Group)?;
            // Its probes are in by then.
            std::thread::sleep(Duration::from_secs(2));
            Ok::<_, anyhow::Error>(child)
        })
        .transpose()?;
    let printed = process::output(&mut Command::new(bystander), "time a process that nobody traces")?;
    drop(recording);
    Ok(BystanderRow {
        while_recording: scope.map_or_else(|| "nothing is recorded".to_owned(), |it| format!("--scope {it}")),
        ns_per_pair: printed.trim().parse().ok(),
    })
}

/// The tables of it.
pub(crate) fn text(costs: &ScopeCosts) -> String {
    let mut starts = Grid::new(&[
        ("workload", Side::Left),
        ("processes", Side::Right),
        ("bare s", Side::Right),
        ("tree s", Side::Right),
        ("ms each", Side::Right),
        ("machine s", Side::Right),
        ("ms each", Side::Right),
        ("notes", Side::Left),
    ]);
    for row in &costs.starts {
        let each_ms = |traced: Option<f64>| Some((traced? - row.bare_s?) * 1000.0 / f64::from(row.started));
        starts.row(vec![
            row.workload.clone(),
            row.started.to_string(),
            cell(row.bare_s, 3),
            cell(row.traced_s[0], 3),
            cell(each_ms(row.traced_s[0]), 2),
            cell(row.traced_s[1], 3),
            cell(each_ms(row.traced_s[1]), 2),
            row.problem.clone().unwrap_or_default(),
        ]);
    }
    let mut bystanders = Grid::new(&[("while", Side::Left), ("ns per malloc and free", Side::Right)]);
    for row in &costs.bystanders {
        bystanders.row(vec![row.while_recording.clone(), cell(row.ns_per_pair, 1)]);
    }
    format!(
        "## Scope: processes that a target starts, and a process that nobody traces\n\n{}\nMedians of the clock, from the \
         command's first instruction to its end.\n\n{}",
        starts.markdown(),
        bystanders.markdown()
    )
}
