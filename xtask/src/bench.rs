//! `cargo xtask bench`: what tracing costs, beside other tools: a malloc/free loop, a process that works, real programs;
//! what a walk of the stack costs, beside the kernel's own; and what making unwind tables takes.
//!
//! Each measurement is of a fresh process. Tools take turns within a round, so that a machine that slows down or speeds
//! up does so for all. What a tool counted is compared with what was done: a tool that misses calls is not a fast one.

mod budget;
mod code;
mod compare;
mod effort;
mod grid;
mod interrupt;
mod measure;
mod part;
mod programs;
mod progress;
mod readme;
mod report;
mod results;
mod running_loop;
mod tables;
mod target;
mod tools;
mod versions;

use std::fs;
use std::path::{Path, PathBuf};
use std::slice;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum as _};

use crate::{packages, privilege, process, product, setup, workspace};
use compare::{Limit, Share};
use effort::Effort;
use part::Part;
use results::{Document, Line, Sizes};
use tools::Tool;

/// What to measure, and how.
#[derive(Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line, and independent of the others"
)]
pub(crate) struct Options {
    /// Measure these parts alone
    #[arg(value_enum, value_name = "PART")]
    parts: Vec<Part>,
    /// Say which parts and rows there are, and which cannot be measured here
    #[arg(long)]
    list: bool,
    /// Only tools whose names contain this, beside bare and memtap
    #[arg(long, value_name = "NAME")]
    tool: Vec<String>,
    /// Only real programs whose names contain this
    #[arg(long, value_name = "NAME")]
    program: Vec<String>,
    /// Fewer and shorter rounds, at depth 20 alone, without the slow tools on programs: a look, not figures to quote
    #[arg(long)]
    quick: bool,
    /// Call depths of the loop: functions between main and malloc [default: 0,20,60]
    #[arg(long, value_delimiter = ',', value_name = "FRAMES")]
    depth: Vec<u32>,
    /// Install the tools to compare with, and the programs to measure, where the package manager has them
    #[arg(long)]
    install_peers: bool,
    /// Write the figures to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail if memtap is over a limit, or missed a call
    #[arg(long)]
    check: bool,
    /// Measure nothing: write the figures of this file, which --json wrote, into docs/costs.md
    #[arg(long, value_name = "FILE", exclusive = true)]
    readme: Option<PathBuf>,
}

/// Bytes of each block: glibc serves it from the thread's cache, so the loop itself is as short as it gets.
const SIZE_BYTES: u64 = 64;

/// Functions of the program for walks: stacks of 12, 27 and 67 frames with those that libc starts it with.
const WALK_DEPTHS: [u32; 3] = [
    12 - report::START_FRAMES,
    27 - report::START_FRAMES,
    67 - report::START_FRAMES,
];

const DEPTHS: [u32; 3] = [0, 20, 60];
/// The depth at which one depth is enough.
const DEPTH: u32 = 20;

/// Measures, prints tables, and says whether memtap is within its limits.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(file) = &options.readme {
        return readme::rewrite(file);
    }
    privilege::prime()?;
    setup::run(&setup::Options::default())?;
    packages::ensure(packages::BUILD)?;
    if options.install_peers {
        // One by one: what cannot be had must not keep the others out.
        for package in packages::BENCH {
            if let Err(error) = packages::ensure(slice::from_ref(package)) {
                eprintln!("xtask: {error:#}");
            }
        }
    }
    let memtap = product::build()?;
    let examples = build_examples()?;
    if options.list {
        process::report(&part::list(&memtap, &examples.join("walk_cost")));
        return Ok(());
    }
    privilege::prime()?;
    interrupt::catch();
    let _event = tools::perf::EventGuard;
    let folder = workspace::target_dir()?.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let run = Run {
        options,
        effort: if options.quick {
            effort::QUICK
        } else {
            effort::FULL
        },
        builds: target::Builds::new(&folder)?,
        walk_cost: examples.join("walk_cost"),
        memtap,
        folder,
    };
    let mut document = run.document();
    process::report(&report::heading(&document));
    for &part in Part::value_variants() {
        if options.parts.is_empty() || options.parts.contains(&part) {
            let text = run.part(part, &examples, &mut document)?;
            process::report(&text);
            document.passes = results::passes(&document.judgements);
            // After each part: what comes may be interrupted.
            if let Some(file) = &options.json {
                document.write(file)?;
            }
        }
    }
    process::report(&report::ending(&document));
    if options.check && !document.passes {
        bail!("failed to keep memtap within its limits; see the list above");
    }
    Ok(())
}

/// What all parts of a run share.
struct Run<'a> {
    options: &'a Options,
    effort: Effort,
    builds: target::Builds,
    memtap: PathBuf,
    walk_cost: PathBuf,
    folder: PathBuf,
}

impl Run<'_> {
    fn document(&self) -> Document {
        Document {
            schema: results::SCHEMA.to_owned(),
            command: command(),
            machine: report::machine(),
            effort: Sizes {
                quick: self.options.quick,
                rounds: self.effort.rounds,
                batches: self.effort.batches,
                pairs: self.effort.pairs,
                size_bytes: SIZE_BYTES,
            },
            versions: versions::ask(&self.memtap),
            ..Document::default()
        }
    }

    /// Measures a part, puts it into the document, and returns its text.
    fn part(&self, part: Part, examples: &Path, document: &mut Document) -> Result<String> {
        let name = part.name();
        let depths = self.depths();
        let memtap = &self.memtap;
        let (text, mut judgements) = match part {
            Part::Loops => {
                let tools = tools::calls(memtap, &self.walk_cost);
                let judged = (tools::CALLS_LIMITS, Share::Whole);
                let (lines, judgements) = self.lines(name, tools, &depths, 1, judged)?;
                document.loops = lines;
                (report::loops(&document.loops), judgements)
            }
            Part::Live => {
                let judged = (tools::LIVE_LIMITS, Share::Whole);
                let (lines, judgements) = self.lines(name, tools::live(memtap), &depths, 1, judged)?;
                document.live = lines;
                (report::live(&document.live), judgements)
            }
            Part::Threads => {
                let none = (&[] as &[Limit], Share::Whole);
                let calls = tools::calls(memtap, &self.walk_cost);
                document.threads = self.lines(name, calls, &[DEPTH], 2, none)?.0;
                let (live, judgements) = self.lines(name, tools::live(memtap), &[DEPTH], 2, none)?;
                document.threads.extend(live);
                (report::threads(&document.threads), judgements)
            }
            Part::Budget => {
                let tools = self.filtered(tools::budget(memtap));
                let spans = if self.options.quick {
                    &budget::QUICK
                } else {
                    &budget::FULL
                };
                document.budget = budget::measure(&tools, spans, &self.folder)?;
                let server = budget::measure_server(memtap, spans, &self.folder);
                document.budget.push(server);
                interrupt::check()?;
                (report::budget(&document.budget), budget::judge(&document.budget))
            }
            Part::Programs => {
                let sentinel = self.builds.binary(target::Build::FramePointers);
                let wanted = programs::Wanted {
                    tool: &|tool| self.wants(tool),
                    program: &|program| contains_one(program, &self.options.program),
                };
                let quick = self.options.quick;
                document.programs =
                    programs::measure(memtap, sentinel, &self.effort, quick, &self.folder, &wanted)?;
                (report::programs(&document.programs), Vec::new())
            }
            Part::Walks => {
                let judged = (tools::WALK_LIMITS, Share::Addition);
                let (lines, judgements) =
                    self.lines(name, tools::walks(&self.walk_cost), &WALK_DEPTHS, 1, judged)?;
                document.walks = lines;
                (report::walks(&document.walks), judgements)
            }
            Part::Tables => {
                progress::say("tables");
                document.tables = tables::measure(&examples.join("table_cost"), self.effort.rounds * 2 + 1)?;
                (
                    report::unwind_tables(&document.tables),
                    tables::judge(&document.tables),
                )
            }
        };
        document.judgements.append(&mut judgements);
        Ok(text)
    }

    fn lines(
        &self,
        part: &str,
        tools: Vec<Tool>,
        depths: &[u32],
        threads: u32,
        (limits, share): (&[Limit], Share),
    ) -> Result<(Vec<Line>, Vec<results::Judgement>)> {
        let tools = self.filtered(tools);
        let place = measure::Place {
            part,
            effort: &self.effort,
            builds: &self.builds,
            folder: &self.folder,
        };
        let rows = measure::all(&tools, depths, threads, &place)?;
        let lines = compare::lines(&tools, &rows, share);
        let judgements = compare::judge(part, &lines, limits, share);
        Ok((lines, judgements))
    }

    fn depths(&self) -> Vec<u32> {
        match (self.options.depth.is_empty(), self.options.quick) {
            (false, _) => self.options.depth.clone(),
            (true, true) => vec![DEPTH],
            (true, false) => DEPTHS.to_vec(),
        }
    }

    fn filtered(&self, tools: Vec<Tool>) -> Vec<Tool> {
        let stays = |tool: &Tool| {
            matches!(tool.kind, results::Kind::Bare | results::Kind::Headline) || self.wants(tool.name)
        };
        tools.into_iter().filter(stays).collect()
    }

    fn wants(&self, tool: &str) -> bool {
        contains_one(tool, &self.options.tool)
    }
}

/// Whether `text` contains one of `names`, or there are none.
fn contains_one(text: &str, names: &[String]) -> bool {
    names.is_empty() || names.iter().any(|name| text.contains(&**name))
}

/// The command as it was typed, without the file that it writes: that is some place of this machine.
fn command() -> String {
    let mut words = vec!["cargo xtask".to_owned()];
    let mut arguments = std::env::args().skip(1);
    while let Some(word) = arguments.next() {
        if word == "--json" {
            arguments.next();
        } else if !word.starts_with("--json=") {
            words.push(word);
        }
    }
    words.join(" ")
}

/// Builds the programs that measure parts of memtap, with the feature that puts these parts' eBPF programs in
/// their object. memtap's own binary has been built without it. Returns their folder.
fn build_examples() -> Result<PathBuf> {
    let mut command = workspace::cargo();
    command.args(["build", "--release", "-p", "memtap", "--features", "bench"]);
    command.args(["--example", "walk_cost", "--example", "table_cost"]);
    process::run(&mut command, "build what measures walks and tables")?;
    Ok(workspace::target_dir()?.join("release/examples"))
}
