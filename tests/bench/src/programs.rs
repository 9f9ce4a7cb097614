//! Real programs, and by how much tools slow them down.
//!
//! Before each run under a tool there is one alone, and the two are set beside each other. What a
//! program took is what `tests/bench/fixtures/spend.c` says of it and its children, so that a
//! tool's own work in other processes does not count; it shows in the wall's time where there are
//! too few processors.

mod compiler;
mod git;
pub(super) mod group;
mod python;
pub(super) mod redis;
mod sqlite;
mod under;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::effort::Effort;
use super::measure::{median, patiently};
use super::results::{ProgramRow, RowKind};
use super::target::compile;
use super::{interrupt, progress};
use test_support::workspace;
pub(crate) use under::figures;
use under::{ProgramOutcome, Under};

/// A program and what it is to do.
pub(crate) struct ProgramWorkload {
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
}

/// The directory and the tools of a measurement of programs.
pub(crate) struct ProgramsSetup {
    pub(crate) memtap: PathBuf,
    /// `spend.c`, compiled.
    pub(crate) spend: PathBuf,
    /// A loop that waits, so that one sees when probes are there.
    pub(crate) sentinel: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) quick: bool,
}

/// A row under construction: every round's figures.
struct Rounds {
    program: &'static str,
    tool: usize,
    outcomes: Vec<(Option<ProgramOutcome>, ProgramOutcome)>,
    problem: Option<String>,
}

/// The programs that take part, by name.
pub(crate) const NAMES: &[&str] = &["cc1 -O2", "python3 json", "git log -p", "sqlite3", "redis-server"];

/// The tools and programs that take part, by name.
pub(crate) struct WantedNames<'a> {
    pub(crate) tool: &'a dyn Fn(&str) -> bool,
    pub(crate) program: &'a dyn Fn(&str) -> bool,
}

/// Measures every program under every tool whose names fit.
pub(crate) fn measure(
    memtap: &Path,
    sentinel: &Path,
    effort: &Effort,
    quick: bool,
    directory: &Path,
    wanted: &WantedNames<'_>,
) -> Result<Vec<ProgramRow>> {
    let directory = directory.join("programs");
    fs::create_dir_all(&directory).with_context(|| format!("failed to create {}", directory.display()))?;
    let place = ProgramsSetup {
        memtap: memtap.to_path_buf(),
        spend: compile("spend.c", &["-static"], &directory, "spend")?,
        sentinel: sentinel.to_path_buf(),
        directory: directory.clone(),
        quick,
    };
    let tools: Vec<Under> = Under::all()
        .into_iter()
        .filter(|tool| tool.kind() == RowKind::Bare || (wanted.tool)(tool.name()))
        .collect();
    let mut rows = Vec::new();
    let workloads = [compiler::prepare, python::prepare, git::prepare, sqlite::prepare];
    for (prepare, name) in workloads
        .into_iter()
        .zip(NAMES)
        .filter(|(_, name)| (wanted.program)(name))
    {
        let workload = prepare(&directory);
        let mut rounds = start(name, &tools, &place, workload.as_ref().err());
        if let Ok(workload) = &workload {
            let run = |tool: Under| tool.run(workload, &place);
            go(&mut rounds, &tools, effort, &run)?;
        }
        rows.extend(finish(rounds, &tools));
    }
    let name = NAMES[NAMES.len() - 1];
    if !(wanted.program)(name) {
        return Ok(rows);
    }
    let missing = redis::missing();
    let mut rounds = start(name, &tools, &place, missing.as_ref());
    if missing.is_none() {
        go(&mut rounds, &tools, effort, &|tool| redis::run(tool, &place))?;
    }
    rows.extend(finish(rounds, &tools));
    Ok(rows)
}

fn start(
    program: &'static str,
    tools: &[Under],
    place: &ProgramsSetup,
    missing: Option<&anyhow::Error>,
) -> Vec<Rounds> {
    let row = |(index, tool): (usize, &Under)| Rounds {
        program,
        tool: index,
        outcomes: Vec::new(),
        problem: missing
            .map(|error| format!("{error:#}"))
            .or_else(|| tool.missing(program, place)),
    };
    tools.iter().enumerate().map(row).collect()
}

fn go(
    rows: &mut [Rounds],
    tools: &[Under],
    effort: &Effort,
    run: &dyn Fn(Under) -> Result<ProgramOutcome>,
) -> Result<()> {
    for round in 1..=effort.rounds {
        for row in rows.iter_mut().filter(|row| row.problem.is_none()) {
            let tool = tools[row.tool];
            if round > tool.rounds() {
                continue;
            }
            progress::say(&format!(
                "programs: {}: round {round} of {}: {}",
                row.program,
                effort.rounds.min(tool.rounds()),
                tool.name()
            ));
            let pair = || -> Result<(Option<ProgramOutcome>, ProgramOutcome)> {
                let alone = if tool.kind() == RowKind::Bare {
                    None
                } else {
                    Some(run(Under::Bare)?)
                };
                Ok((alone, run(tool)?))
            };
            match patiently(tool.kind(), pair) {
                Ok(pair) => row.outcomes.push(pair),
                Err(error) => {
                    interrupt::check()?;
                    eprintln!("xtask: {} under {}: {error:#}", row.program, tool.name());
                    row.problem = Some(format!("{error:#}"));
                }
            }
        }
    }
    Ok(())
}

fn finish(rows: Vec<Rounds>, tools: &[Under]) -> Vec<ProgramRow> {
    let headline = rows
        .iter()
        .find(|row| tools[row.tool].kind() == RowKind::Headline)
        .and_then(|row| row.ratio(|outcome| outcome.cpu_s));
    rows.into_iter()
        .map(|row| {
            let tool = tools[row.tool];
            let middle = |of: &dyn Fn(&ProgramOutcome) -> Option<f64>| {
                median(
                    &mut row
                        .outcomes
                        .iter()
                        .filter_map(|(_, own)| of(own))
                        .collect::<Vec<_>>(),
                )
            };
            let cpu_of_bare = row.ratio(|outcome| outcome.cpu_s);
            ProgramRow {
                name: row.program.to_owned(),
                tool: tool.name().to_owned(),
                kind: tool.kind(),
                cpu_s: middle(&|outcome| Some(outcome.cpu_s)),
                wall_s: middle(&|outcome| Some(outcome.wall_s)),
                cpu_of_bare,
                wall_of_bare: row.ratio(|outcome| outcome.wall_s),
                requests_per_s: middle(&|outcome| outcome.requests_per_s),
                memtap_of_it: headline
                    .zip(cpu_of_bare)
                    .filter(|_| tool.kind() == RowKind::Peer)
                    .map(|(own, other)| own / other),
                calls_seen: row.outcomes.last().and_then(|(_, outcome)| outcome.calls_seen),
                note: row.outcomes.last().and_then(|(_, outcome)| outcome.note.clone()),
                problem: row.problem,
            }
        })
        .collect()
}

impl Rounds {
    /// The median of the ratios of each run to the one alone before it.
    fn ratio(&self, of: impl Fn(&ProgramOutcome) -> f64) -> Option<f64> {
        let ratios = self.outcomes.iter().filter_map(|(alone, own)| {
            let alone = alone.as_ref()?;
            Some(of(own) / of(alone))
        });
        median(&mut ratios.collect::<Vec<_>>())
    }
}

/// The distribution's program of this name, or the one in PATH: a wrapper that picks a version is
/// another program.
pub(crate) fn program(name: &str) -> Result<String> {
    let shipped = Path::new("/usr/bin").join(name);
    if shipped.is_file() {
        return Ok(shipped.display().to_string());
    }
    let found = workspace::find(name).with_context(|| format!("{name} is not installed"))?;
    Ok(found.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_pairs() {
        let outcome = |cpu_s| ProgramOutcome {
            cpu_s,
            wall_s: 1.0,
            ..ProgramOutcome::default()
        };
        let rounds = Rounds {
            program: "a program",
            tool: 0,
            outcomes: vec![
                (Some(outcome(1.0)), outcome(2.0)),
                (Some(outcome(10.0)), outcome(30.0)),
                (Some(outcome(1.0)), outcome(9.0)),
            ],
            problem: None,
        };
        assert_eq!(rounds.ratio(|outcome| outcome.cpu_s), Some(3.0));
        assert_eq!(rounds.ratio(|outcome| outcome.wall_s), Some(1.0));
    }
}
