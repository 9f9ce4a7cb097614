//! The benchmark's figures as a table, as JSON, and as a verdict.

use std::fs;

use serde_json::json;

use super::measure::{Row, median};
use super::tools::{Role, Tool};
use super::{Effort, LIMIT, SIZE_BYTES};

/// A row with its figures set beside the bare loop's and the reference's at the same depth.
struct Line<'a> {
    tool: &'a Tool,
    row: &'a Row,
    median_ns: Option<f64>,
    over_bare_ns: Option<f64>,
    of_reference: Option<f64>,
}

/// All rows, compared.
pub(crate) struct Comparison<'a> {
    lines: Vec<Line<'a>>,
}

impl<'a> Comparison<'a> {
    pub(crate) fn new(tools: &'a [Tool], rows: &'a [Row]) -> Self {
        let median_of = |row: &Row| median(&mut row.round_ns.clone());
        let find = |role: Role, depth: u32| {
            rows.iter()
                .find(|row| row.depth == depth && tools[row.tool].role == role)
                .and_then(median_of)
        };
        let lines = rows.iter().map(|row| {
            let median_ns = median_of(row);
            let beside = |role| median_ns.zip(find(role, row.depth));
            Line {
                tool: &tools[row.tool],
                row,
                median_ns,
                over_bare_ns: beside(Role::Bare).map(|(own, bare)| own - bare),
                of_reference: beside(Role::Reference).map(|(own, reference)| own / reference),
            }
        });
        Self {
            lines: lines.collect(),
        }
    }

    /// Whether memtap is within its limit at every depth, and missed nothing.
    pub(crate) fn passes(&self) -> bool {
        self.subjects().all(|line| verdict(line) == Verdict::Pass)
    }

    fn subjects(&self) -> impl Iterator<Item = &Line<'a>> {
        self.lines.iter().filter(|line| line.tool.role == Role::Subject)
    }

    /// The table and one line of verdict per depth.
    pub(crate) fn markdown(&self, effort: &Effort) -> String {
        let mut text = format!(
            "malloc({SIZE_BYTES}) and free, ns of thread CPU time per pair, {} rounds of {} × {} pairs; {}\n\n",
            effort.rounds,
            effort.batches,
            effort.pairs,
            machine()
        );
        text.push_str("| tool | depth | median ns | fastest ns | over bare | of bpftrace | count error |\n");
        text.push_str("| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n");
        for line in &self.lines {
            text.push_str(&table_row(line));
        }
        for line in self.subjects() {
            text.push('\n');
            text.push_str(&sentence(line));
        }
        text
    }

    /// Everything, with each round's median, for machines.
    pub(crate) fn json(&self, effort: &Effort) -> String {
        let rows: Vec<_> = self
            .lines
            .iter()
            .map(|line| {
                json!({
                    "tool": line.tool.name,
                    "depth": line.row.depth,
                    "median_ns": line.median_ns,
                    "min_ns": line.row.min_ns.is_finite().then_some(line.row.min_ns),
                    "over_bare_ns": line.over_bare_ns,
                    "of_reference": line.of_reference,
                    "count_error": line.row.count_error,
                    "round_ns": line.row.round_ns,
                    "problem": line.row.problem,
                })
            })
            .collect();
        let document = json!({
            "schema": "memtap.bench/1",
            "machine": machine(),
            "size_bytes": SIZE_BYTES,
            "rounds": effort.rounds,
            "batches": effort.batches,
            "pairs": effort.pairs,
            "limit": LIMIT,
            "passes": self.passes(),
            "rows": rows,
        });
        format!("{document:#}\n")
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Pass,
    Fail,
    Unknown,
}

fn verdict(line: &Line<'_>) -> Verdict {
    match line.of_reference {
        _ if line.row.problem.is_some() || line.row.count_error != 0 => Verdict::Fail,
        Some(share) if share <= LIMIT => Verdict::Pass,
        Some(_) => Verdict::Fail,
        None => Verdict::Unknown,
    }
}

fn table_row(line: &Line<'_>) -> String {
    let Line { tool, row, .. } = line;
    let Some(median_ns) = line.median_ns else {
        let problem = row.problem.as_deref().unwrap_or("not measured").replace('|', "/");
        return format!("| {} | {} | {problem} | | | | |\n", tool.name, row.depth);
    };
    let cell = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
    };
    let (over_bare, count_error) = match tool.role {
        Role::Bare => (cell(None, 0), cell(None, 0)),
        _ => (cell(line.over_bare_ns, 1), format!("{:+}", row.count_error)),
    };
    format!(
        "| {} | {} | {median_ns:.1} | {:.1} | {over_bare} | {} | {count_error} |\n",
        tool.name,
        row.depth,
        row.min_ns,
        cell(line.of_reference, 3),
    )
}

fn sentence(line: &Line<'_>) -> String {
    let word = match verdict(line) {
        Verdict::Pass => "PASS",
        Verdict::Fail => "FAIL",
        Verdict::Unknown => "UNKNOWN",
    };
    let depth = line.row.depth;
    let judgement = match line.of_reference {
        Some(share) => {
            format!("memtap costs {share:.3} of bpftrace at {depth} frames; the limit is {LIMIT}")
        }
        None => format!("there are not both figures to compare at {depth} frames"),
    };
    let miscount = match line.row.count_error {
        0 => String::new(),
        calls => format!("; its count of calls is off by {calls:+}"),
    };
    let problem = line
        .row
        .problem
        .as_ref()
        .map(|problem| format!("; {problem}"))
        .unwrap_or_default();
    format!("{word}: {judgement}{miscount}{problem}")
}

/// Kernel and processor: figures belong to the machine that they come from.
fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    format!("Linux {}, {model}", kernel.trim())
}
