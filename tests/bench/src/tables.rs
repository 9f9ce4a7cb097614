//! The cost of making unwind tables: of libc, of the compiler's own library, of all that the
//! machine runs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::grid::{Grid, Side, cell};
use super::results::{Judgement, LimitVerdict};
use test_support::{privilege, process, workspace};

/// The most that the largest library's pruned table may take, as a share of the unpruned one. Small
/// files have theirs for show: each comes with its rules, of which many together have hardly more.
const SIZE_LIMIT: f64 = 0.1;

/// The most that libc's table may take to make.
const LIBC_LIMIT_MS: f64 = 10.0;

/// The most that the table of the largest library may take to make.
const LARGEST_LIMIT_MS: f64 = 500.0;

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * KIB;

/// Files whose tables are made together.
struct TableCase {
    name: String,
    arguments: Vec<PathBuf>,
    limit_ms: Option<f64>,
    size_limit: Option<f64>,
}

/// A case and what came of it, as `tracer/examples/table_cost.rs` says it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TablesRow {
    tables_of: String,
    limit_ms: Option<f64>,
    size_limit: Option<f64>,
    figures: Value,
}

/// Makes all tables, each case in a process of its own, since the most memory that a process had is
/// never less again.
pub(crate) fn measure(binary: &Path, runs: usize) -> Result<Vec<TablesRow>> {
    let mut rows = Vec::new();
    for case in cases()? {
        // All processes' mappings are for root alone to read.
        let mut command = privilege::elevated(binary);
        command.arg("--runs").arg(runs.to_string()).args(&case.arguments);
        let text = process::output(&mut command, &format!("make the tables of {}", case.name))?;
        let figures = serde_json::from_str(&text).context("failed to read what tables came to")?;
        rows.push(TablesRow {
            tables_of: case.name,
            limit_ms: case.limit_ms,
            size_limit: case.size_limit,
            figures,
        });
    }
    Ok(rows)
}

fn cases() -> Result<Vec<TableCase>> {
    let libc = libc()?;
    let driver = driver()?;
    let name = |path: &Path| {
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    Ok(vec![
        TableCase {
            name: name(&libc),
            arguments: vec![libc],
            limit_ms: Some(LIBC_LIMIT_MS),
            size_limit: None,
        },
        TableCase {
            name: name(&driver),
            arguments: vec![driver],
            limit_ms: Some(LARGEST_LIMIT_MS),
            size_limit: Some(SIZE_LIMIT),
        },
        TableCase {
            name: "all that is mapped".to_owned(),
            arguments: vec![PathBuf::from("--mapped")],
            limit_ms: None,
            size_limit: None,
        },
    ])
}

/// The libc of this very process.
pub(crate) fn libc() -> Result<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").context("failed to read the mappings")?;
    let mut files = maps.lines().filter_map(|line| Some(&line[line.find('/')?..]));
    let found = files.find(|file| {
        file.rsplit('/')
            .next()
            .is_some_and(|name| name.starts_with("libc.so"))
    });
    found
        .map(PathBuf::from)
        .context("failed to find this process's libc")
}

/// The library that is the compiler: over 100 MB.
fn driver() -> Result<PathBuf> {
    let directory = workspace::sysroot()?.join("lib");
    let entries =
        fs::read_dir(&directory).with_context(|| format!("failed to read {}", directory.display()))?;
    let is_driver = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("librustc_driver") && name.ends_with(".so")
    };
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(is_driver)
        .with_context(|| format!("failed to find librustc_driver in {}", directory.display()))
}

impl TablesRow {
    fn number(&self, name: &str) -> Option<f64> {
        self.figures[name].as_f64()
    }

    fn size_share(&self) -> Option<f64> {
        let (kept, all) = self.number("table_bytes").zip(self.number("unpruned_bytes"))?;
        Some(kept / all)
    }

    fn cells(&self) -> Vec<String> {
        let whole = |name| cell(self.number(name), 0);
        let scaled = |name, unit: f64| cell(self.number(name).map(|bytes| bytes / unit), 1);
        vec![
            self.tables_of.clone(),
            whole("tables"),
            scaled("file_bytes", MIB),
            cell(self.number("wall_ms"), 2),
            cell(self.number("cpu_ms"), 2),
            whole("rows"),
            scaled("table_bytes", KIB),
            scaled("unpruned_bytes", KIB),
            cell(self.size_share(), 3),
            scaled("peak_bytes", MIB),
        ]
    }

    fn judgements(&self) -> Vec<Judgement> {
        let name = &self.tables_of;
        let judgement = |figure, limit, sentence| Judgement {
            verdict: LimitVerdict::on(figure, limit),
            part: "tables".to_owned(),
            figure,
            limit,
            sentence,
        };
        let mut judgements = Vec::new();
        if let Some(limit) = self.size_limit {
            let share = self.size_share();
            let share_text = cell(share, 3);
            let sentence = format!(
                "the table of {name} takes {share_text} of what it takes unpruned; the limit is {limit}"
            );
            judgements.push(judgement(share, limit, sentence));
        }
        if let Some(limit) = self.limit_ms {
            let wall = self.number("wall_ms");
            let wall_text = cell(wall, 2);
            let sentence = format!("the table of {name} is made in {wall_text} ms; the limit is {limit} ms");
            judgements.push(judgement(wall, limit, sentence));
        }
        judgements
    }
}

/// Holds the rows against their limits.
pub(crate) fn judge(rows: &[TablesRow]) -> Vec<Judgement> {
    rows.iter().flat_map(TablesRow::judgements).collect()
}

/// The table.
pub(crate) fn markdown(rows: &[TablesRow]) -> String {
    let right = |title| (title, Side::Right);
    let mut grid = Grid::new(&[
        ("unwind tables of", Side::Left),
        right("files"),
        right("MiB of files"),
        right("wall ms"),
        right("CPU ms"),
        right("rows"),
        right("KiB of tables"),
        right("KiB unpruned"),
        right("share"),
        right("peak MiB"),
    ]);
    for row in rows {
        grid.row(row.cells());
    }
    format!(
        "{}\nFiles are read whole and were in memory before; several are done at once. Bytes are rows, pages and rules.\n",
        grid.markdown()
    )
}
