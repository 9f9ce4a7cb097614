//! The time of a recording that has nothing to record: what loading, attaching and detaching take,
//! beside other tools.
//!
//! Times are of the tool's process and of all children that it has waited for, by `wait4`'s
//! resource usage, which `tests/bench/fixtures/spend.c` writes down.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use test_support::{privilege, process, workspace};

use super::grid::{Grid, Side, cell};
use super::measure::{empty, median, patiently};
use super::programs::{figures, program};
use super::results::{Judgement, LimitVerdict, RowKind};
use super::target::compile;
use super::{interrupt, progress, tables};

/// Runs of each tool.
pub(crate) const FULL: usize = 11;
/// Runs for a look.
pub(crate) const QUICK: usize = 3;

/// Everything that was measured of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Startup {
    /// The machine's load of one minute before the first run: on a machine that is busy, seconds
    /// mean little.
    load: Option<f64>,
    rows: Vec<StartupRow>,
}

/// One tool on `true`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StartupRow {
    tool: String,
    /// User and system time: the median of the runs.
    cpu_s: Option<f64>,
    wall_s: Option<f64>,
    round_cpu_s: Vec<f64>,
    round_wall_s: Vec<f64>,
    /// The reason for missing figures, or not of all runs.
    problem: Option<String>,
}

/// A tool that records `true`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StartupTool {
    Memtap,
    MemtapLive,
    Bpftrace,
    Heaptrack,
}

const TOOLS: [StartupTool; 4] = [
    StartupTool::Memtap,
    StartupTool::MemtapLive,
    StartupTool::Bpftrace,
    StartupTool::Heaptrack,
];

/// The most that a row may take.
struct SecondsLimit {
    tool: StartupTool,
    what: &'static str,
    of: fn(&StartupRow) -> Option<f64>,
    seconds: f64,
}

const LIMITS: &[SecondsLimit] = &[
    SecondsLimit {
        tool: StartupTool::Memtap,
        what: "CPU time",
        of: |row| row.cpu_s,
        seconds: 0.30,
    },
    SecondsLimit {
        tool: StartupTool::Memtap,
        what: "time",
        of: |row| row.wall_s,
        seconds: 0.4,
    },
    SecondsLimit {
        tool: StartupTool::MemtapLive,
        what: "CPU time",
        of: |row| row.cpu_s,
        seconds: 0.45,
    },
];

impl StartupTool {
    fn name(self) -> &'static str {
        match self {
            Self::Memtap => "memtap record -- true",
            Self::MemtapLive => "memtap record --live -- true",
            Self::Bpftrace => "bpftrace uprobe:malloc -c true",
            Self::Heaptrack => "heaptrack true",
        }
    }

    fn kind(self) -> RowKind {
        match self {
            Self::Memtap => RowKind::Headline,
            Self::MemtapLive => RowKind::Memtap,
            Self::Bpftrace | Self::Heaptrack => RowKind::Peer,
        }
    }

    /// Returns why it cannot run here.
    fn missing(self) -> Option<String> {
        let program = match self {
            Self::Memtap | Self::MemtapLive => return None,
            Self::Bpftrace => "bpftrace",
            Self::Heaptrack => "heaptrack",
        };
        (!workspace::in_path(program)).then(|| format!("{program} is not installed"))
    }

    /// Its command line.
    fn words(self, memtap: &Path, libc: &Path) -> Result<Vec<OsString>> {
        let idle = program("true")?;
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        Ok(match self {
            Self::Memtap => [vec![memtap.into()], words(&["record", "--", &idle])].concat(),
            Self::MemtapLive => [vec![memtap.into()], words(&["record", "--live", "--", &idle])].concat(),
            Self::Bpftrace => {
                let probe = format!("uprobe:{}:malloc {{ @ = count(); }}", libc.display());
                words(&["bpftrace", "-e", &probe, "-c", &idle])
            }
            Self::Heaptrack => words(&["heaptrack", "-o", "profile", &idle]),
        })
    }
}

/// The rows, and why some cannot be measured here.
pub(crate) fn list() -> Vec<(String, Option<String>)> {
    TOOLS
        .map(|tool| (tool.name().to_owned(), tool.missing()))
        .to_vec()
}

/// Runs every tool `runs` times, in turns.
pub(crate) fn measure(memtap: &Path, runs: usize, directory: &Path) -> Result<Startup> {
    let load = load();
    let directory = directory.join("startup");
    empty(&directory)?;
    let spend = compile("spend.c", &["-static"], &directory, "spend")?;
    let libc = tables::libc()?;
    let mut rows: Vec<(StartupTool, StartupRow)> = TOOLS.map(|tool| (tool, StartupRow::new(tool))).into();
    for run in 1..=runs {
        progress::say(&format!("startup: run {run} of {runs}"));
        for (tool, row) in rows.iter_mut().filter(|(_, row)| row.problem.is_none()) {
            interrupt::check()?;
            match patiently(tool.kind(), || {
                spent(&spend, &tool.words(memtap, &libc)?, &directory)
            }) {
                Ok((cpu_s, wall_s)) => {
                    row.round_cpu_s.push(cpu_s);
                    row.round_wall_s.push(wall_s);
                }
                Err(error) => row.problem = Some(format!("{error:#}")),
            }
        }
    }
    let rows = rows.into_iter().map(|(_, row)| row.with_medians()).collect();
    Ok(Startup { load, rows })
}

/// Seconds of CPU time and of the clock that a command takes.
fn spent(spend: &Path, words: &[OsString], directory: &Path) -> Result<(f64, f64)> {
    let work = directory.join("run");
    empty(&work)?;
    let file: PathBuf = work.join("spent");
    let mut command = privilege::elevated(spend);
    command.current_dir(&work).arg(&file).args(words);
    process::output(&mut command, "record a program that does nothing")?;
    let text = fs::read_to_string(&file).context("failed to read what the tool took")?;
    let outcome = figures(&text).context("failed to read what the tool took")?;
    ensure!(outcome.cpu_s > 0.0, "it took no time");
    Ok((outcome.cpu_s, outcome.wall_s))
}

/// The machine's load of one minute.
fn load() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

impl StartupRow {
    fn new(tool: StartupTool) -> Self {
        Self {
            tool: tool.name().to_owned(),
            cpu_s: None,
            wall_s: None,
            round_cpu_s: Vec::new(),
            round_wall_s: Vec::new(),
            problem: tool.missing(),
        }
    }

    fn with_medians(mut self) -> Self {
        self.cpu_s = median(&mut self.round_cpu_s.clone());
        self.wall_s = median(&mut self.round_wall_s.clone());
        self
    }
}

impl Startup {
    fn row(&self, tool: StartupTool) -> Option<&StartupRow> {
        self.rows.iter().find(|row| row.tool == tool.name())
    }

    fn load_text(&self) -> String {
        let load = self
            .load
            .map_or_else(|| "unknown".to_owned(), |load| format!("{load:.2}"));
        format!("the machine's load before it was {load}")
    }
}

/// The table of it.
pub(crate) fn text(startup: &Startup) -> String {
    let mut grid = Grid::new(&[
        ("recording", Side::Left),
        ("CPU s", Side::Right),
        ("wall s", Side::Right),
        ("runs", Side::Right),
        ("notes", Side::Left),
    ]);
    for row in &startup.rows {
        grid.row(vec![
            row.tool.clone(),
            cell(row.cpu_s, 3),
            cell(row.wall_s, 3),
            row.round_cpu_s.len().to_string(),
            row.problem.clone().unwrap_or_default(),
        ]);
    }
    format!(
        "## Start-up: a recording of a program that does nothing\n\n{}\nMedians. CPU: user and system time of the tool and \
         its children. Seconds count on an idle machine alone; {}.\n",
        grid.markdown(),
        startup.load_text()
    )
}

/// Holds memtap against its limits, and against bpftrace on the clock. bpftrace's CPU time is out
/// of reach: the verifier alone takes half of it for a program that walks stacks, and bpftrace has
/// none.
pub(crate) fn judge(startup: &Startup) -> Vec<Judgement> {
    let mut judgements = Vec::new();
    for limit in LIMITS {
        let figure = startup.row(limit.tool).and_then(limit.of);
        let seconds = figure.map_or_else(|| "no figure".to_owned(), |figure| format!("{figure:.3} s"));
        let (name, what) = (limit.tool.name(), limit.what);
        let sentence = format!(
            "`{name}`: {seconds} of {what}; the limit is {} s; {}",
            limit.seconds,
            startup.load_text()
        );
        judgements.push(judgement(figure, limit.seconds, LimitVerdict::Unknown, sentence));
    }
    let wall = |tool| startup.row(tool).and_then(|row| row.wall_s);
    let figure = wall(StartupTool::Memtap)
        .zip(wall(StartupTool::Bpftrace))
        .map(|(own, other)| own / other);
    let name = StartupTool::Memtap.name();
    let sentence = figure.map_or_else(
        || format!("`{name}` beside bpftrace: there are not both figures"),
        |figure| format!("`{name}` takes {figure:.2} of bpftrace's time; the limit is 1"),
    );
    // bpftrace may be missing.
    judgements.push(judgement(figure, 1.0, LimitVerdict::Skip, sentence));
    judgements
}

fn judgement(figure: Option<f64>, limit: f64, without: LimitVerdict, sentence: String) -> Judgement {
    let verdict = match LimitVerdict::on(figure, limit) {
        LimitVerdict::Unknown => without,
        verdict => verdict,
    };
    Judgement {
        verdict,
        part: "startup".to_owned(),
        figure,
        limit,
        sentence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_seconds_and_beside_bpftrace() {
        let row = |tool: StartupTool, cpu_s, wall_s| StartupRow {
            round_cpu_s: vec![cpu_s],
            round_wall_s: vec![wall_s],
            problem: None,
            ..StartupRow::new(tool)
        };
        let startup = |rows: Vec<StartupRow>| Startup {
            load: Some(0.1),
            rows: rows.into_iter().map(StartupRow::with_medians).collect(),
        };
        let verdicts = |startup: &Startup| judge(startup).iter().map(|each| each.verdict).collect::<Vec<_>>();
        let (pass, fail) = (LimitVerdict::Pass, LimitVerdict::Fail);
        let measured = startup(vec![
            row(StartupTool::Memtap, 0.2, 0.5),
            row(StartupTool::MemtapLive, 0.4, 0.4),
            row(StartupTool::Bpftrace, 0.3, 0.6),
        ]);
        assert_eq!(verdicts(&measured), [pass, fail, pass, pass]);
        let alone = startup(vec![row(StartupTool::Memtap, 0.2, 0.3)]);
        assert_eq!(
            verdicts(&alone),
            [pass, pass, LimitVerdict::Unknown, LimitVerdict::Skip]
        );
        assert!(text(&measured).contains("load before it was 0.10"));
    }
}
