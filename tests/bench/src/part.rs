//! The parts of a run.

use std::path::Path;

use clap::ValueEnum;

use super::tools::{self, BenchTool};
use super::{page, programs, scope, startup};

/// Rows that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchPart {
    /// malloc and free in a loop, its allocations traced
    Loops,
    /// The same loop, every block followed to its free
    Live,
    /// Both in two threads at once, beside one thread
    Threads,
    /// The share of a million calls a second that a process keeps, under memtap's budget and under
    /// others
    Budget,
    /// Real programs: a compiler, python3, git, sqlite3, redis-server
    Programs,
    /// The cost of a walk of the stack, beside the kernel's own
    Walks,
    /// The time and memory that unwind tables take to make
    Tables,
    /// The cost of the scope of breakpoints: for each process that a target starts, and for each
    /// call of a process that nobody traces
    Scope,
    /// CPU time and time of a recording of `true`: loading, attaching and detaching
    Startup,
    /// The size of a page of 50,000 stacks, and its frames in a browser
    Page,
}

impl BenchPart {
    /// The name on the command line and in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loops => "loops",
            Self::Live => "live",
            Self::Threads => "threads",
            Self::Budget => "budget",
            Self::Programs => "programs",
            Self::Walks => "walks",
            Self::Tables => "tables",
            Self::Scope => "scope",
            Self::Startup => "startup",
            Self::Page => "page",
        }
    }
}

/// All parts, with their rows and why some cannot be measured here.
pub(crate) fn list(memtap: &Path, walk_cost: &Path) -> String {
    let mut lines = Vec::new();
    for &part in BenchPart::value_variants() {
        lines.push(part.name().to_owned());
        let rows: Vec<(String, Option<String>)> = match part {
            BenchPart::Loops => named(&tools::calls(memtap, walk_cost)),
            BenchPart::Live => named(&tools::live(memtap)),
            BenchPart::Budget => named(&tools::budget(memtap)),
            BenchPart::Walks => named(&tools::walks(walk_cost)),
            BenchPart::Threads => vec![("the rows of loops and of live".to_owned(), None)],
            BenchPart::Programs => programs::NAMES
                .iter()
                .map(|name| ((*name).to_owned(), None))
                .collect(),
            BenchPart::Scope => scope::list(),
            BenchPart::Startup => startup::list(),
            BenchPart::Page => vec![("50,000 stacks in chromium".to_owned(), page::missing())],
            BenchPart::Tables => vec![(
                "libc, the compiler's library, all that is mapped".to_owned(),
                None,
            )],
        };
        for (name, missing) in rows {
            let reason = missing
                .map(|reason| format!(" (not here: {reason})"))
                .unwrap_or_default();
            lines.push(format!("  {name}{reason}"));
        }
    }
    lines.join("\n")
}

fn named(tools: &[BenchTool]) -> Vec<(String, Option<String>)> {
    let row = |tool: &BenchTool| (tool.name.to_owned(), tool.way.missing());
    tools.iter().map(row).collect()
}
