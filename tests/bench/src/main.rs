//! `cargo xtask bench`: what tracing costs, beside other tools: a malloc/free loop, a process that
//! works, real programs; what a walk of the stack costs, beside the kernel's own; what making
//! unwind tables takes; and how smooth a page of many stacks is.
//!
//! Each measurement is of a fresh process. Tools take turns within a round, so that a machine that
//! slows down or speeds up does so for all. What a tool counted is compared with what was done: a
//! tool that misses calls is not a fast one.

mod budget;
mod code;
mod compare;
mod effort;
mod grid;
mod interrupt;
mod measure;
mod page;
mod part;
mod programs;
mod progress;
mod readme;
mod report;
mod results;
mod running_loop;
mod scope;
mod startup;
mod tables;
mod target;
mod tools;
mod versions;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::slice;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum as _};

use compare::{ComparedPart, RatioLimit};
use effort::Effort;
use part::BenchPart;
use results::{Document, LoopLine, Sizes};
use test_support::{packages, privilege, process, product, workspace};
use tools::BenchTool;

/// The parts to measure, and their settings.
#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    bin_name = "cargo xtask bench",
    about = "Measure the cost of tracing for loops and real programs, beside other tools"
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line, and independent of the others"
)]
struct BenchOptions {
    /// Measure these parts alone
    #[arg(value_enum, value_name = "PART")]
    parts: Vec<BenchPart>,
    /// Say which parts and rows there are, and which cannot be measured here
    #[arg(long)]
    list: bool,
    /// Only tools whose names contain this, beside bare and memtap
    #[arg(long, value_name = "NAME")]
    tool: Vec<String>,
    /// Only real programs whose names contain this
    #[arg(long, value_name = "NAME")]
    program: Vec<String>,
    /// Fewer and shorter rounds, at depth 20 alone, without the slow tools on programs: a look, not
    /// figures to quote
    #[arg(long)]
    quick: bool,
    /// Call depths of the loop: functions between main and malloc [default: 0,20,60]
    #[arg(long, value_delimiter = ',', value_name = "FRAMES")]
    depth: Vec<u32>,
    /// Install the tools to compare with, and the programs to measure, where the package manager
    /// has them
    #[arg(long)]
    install_peers: bool,
    /// Write the figures to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail if memtap is over a limit, or missed a call
    #[arg(long)]
    check: bool,
    /// Measure loops, live and walks of this memtap too, in turns; --check holds this build against
    /// it, not against other tools. Of walks, by the program `walk_cost` beside it or in
    /// `examples/` there
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Fresh processes for each row of the loop [default: 3; 25 with --against]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Use this memtap instead of building one
    #[arg(long, value_name = "FILE", hide = true)]
    memtap: Option<PathBuf>,
    /// Measure nothing: write the figures of this file, which --json wrote, into docs/costs.md
    #[arg(long, value_name = "FILE", exclusive = true)]
    readme: Option<PathBuf>,
}

/// Bytes of each block: glibc serves it from the thread's cache, so the loop itself is as short as
/// it gets.
const SIZE_BYTES: u64 = 64;

/// Functions of the program for walks: stacks of 12, 27 and 67 frames with those that libc starts
/// it with.
const WALK_DEPTHS: [u32; 3] = [
    12 - report::START_FRAMES,
    27 - report::START_FRAMES,
    67 - report::START_FRAMES,
];

const DEPTHS: [u32; 3] = [0, 20, 60];
/// The depth at which one depth is enough.
const DEPTH: u32 = 20;

fn main() -> ExitCode {
    match run(&BenchOptions::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, prints tables, and says whether memtap is within its limits.
fn run(options: &BenchOptions) -> Result<()> {
    if let Some(file) = &options.readme {
        return readme::rewrite(file);
    }
    privilege::prime()?;
    packages::ensure(packages::BUILD)?;
    if options.install_peers {
        // One by one: what cannot be had must not keep the others out.
        for package in packages::BENCH {
            if let Err(error) = packages::ensure(slice::from_ref(package)) {
                eprintln!("xtask: {error:#}");
            }
        }
    }
    let memtap = match &options.memtap {
        Some(memtap) => memtap
            .canonicalize()
            .with_context(|| format!("failed to find {}", memtap.display()))?,
        None => product::build()?,
    };
    let examples = if options.needs_examples() {
        build_examples()?
    } else {
        workspace::target_dir()?.join("release/examples")
    };
    if options.list {
        process::report(&part::list(&memtap, &examples.join("walk_cost")));
        return Ok(());
    }
    privilege::prime()?;
    interrupt::catch();
    let _event = tools::perf::EventGuard;
    let directory = workspace::target_dir()?.join("bench");
    fs::create_dir_all(&directory).with_context(|| format!("failed to create {}", directory.display()))?;
    let run = BenchRun {
        options,
        effort: options.effort(),
        builds: target::Builds::new(&directory)?,
        walk_cost: examples.join("walk_cost"),
        before: options.against.as_deref().map(PreviousBuild::find).transpose()?,
        memtap,
        directory,
    };
    let mut document = run.document();
    process::report(&report::heading(&document));
    for &part in BenchPart::value_variants() {
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

/// State that all parts of a run share.
struct BenchRun<'a> {
    options: &'a BenchOptions,
    effort: Effort,
    builds: target::Builds,
    memtap: PathBuf,
    walk_cost: PathBuf,
    /// The build that this one is held against.
    before: Option<PreviousBuild>,
    directory: PathBuf,
}

/// Another build of memtap.
struct PreviousBuild {
    memtap: PathBuf,
    walk_cost: PathBuf,
}

impl PreviousBuild {
    fn find(memtap: &Path) -> Result<Self> {
        let memtap = memtap
            .canonicalize()
            .with_context(|| format!("failed to find {}", memtap.display()))?;
        let beside = memtap.with_file_name("walk_cost");
        let walk_cost = if beside.is_file() {
            beside
        } else {
            memtap.with_file_name("examples").join("walk_cost")
        };
        Ok(Self { memtap, walk_cost })
    }
}

impl BenchOptions {
    fn effort(&self) -> Effort {
        let effort = if self.quick { effort::QUICK } else { effort::FULL };
        let rounds = match self.rounds {
            Some(rounds) => rounds,
            None if self.against.is_some() && !self.quick => effort::ROUNDS_AGAINST,
            None => effort.rounds,
        };
        Effort { rounds, ..effort }
    }

    /// Returns whether something is to be measured by programs that are built for it.
    fn needs_examples(&self) -> bool {
        let needing = [
            BenchPart::Loops,
            BenchPart::Threads,
            BenchPart::Walks,
            BenchPart::Tables,
        ];
        self.parts.is_empty() || self.parts.iter().any(|part| needing.contains(part))
    }
}

impl BenchRun<'_> {
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
    fn part(&self, part: BenchPart, examples: &Path, document: &mut Document) -> Result<String> {
        let name = part.name();
        let depths = self.depths();
        let memtap = &self.memtap;
        let (text, mut judgements) = match part {
            BenchPart::Loops => {
                let tools = self.with_before(tools::calls);
                let judged = (tools::CALLS_LIMITS, ComparedPart::Whole);
                let (lines, judgements) = self.lines(name, tools, &depths, &[1], judged)?;
                document.loops = lines;
                (report::loops(&document.loops), judgements)
            }
            BenchPart::Live => {
                let tools = self.with_before(|memtap, _| tools::live(memtap));
                let judged = (tools::LIVE_LIMITS, ComparedPart::Whole);
                let (lines, judgements) = self.lines(name, tools, &depths, &[1], judged)?;
                document.live = lines;
                (report::live(&document.live), judgements)
            }
            BenchPart::Threads => {
                let none = (&[] as &[RatioLimit], ComparedPart::Whole);
                let calls = tools::calls(memtap, &self.walk_cost);
                document.threads = self.lines(name, calls, &[DEPTH], &[1, 2], none)?.0;
                let live = self.lines(name, tools::live(memtap), &[DEPTH], &[1, 2], none)?.0;
                document.threads.extend(live);
                (
                    report::threads(&document.threads),
                    compare::judge_threads(name, &document.threads),
                )
            }
            BenchPart::Budget => {
                let tools = self.filtered(tools::budget(memtap));
                let spans = if self.options.quick {
                    &budget::QUICK
                } else {
                    &budget::FULL
                };
                document.budget = budget::measure(&tools, spans, &self.directory)?;
                let server = budget::measure_server(memtap, spans, &self.directory);
                document.budget.push(server);
                interrupt::check()?;
                (report::budget(&document.budget), budget::judge(&document.budget))
            }
            BenchPart::Programs => {
                let sentinel = self.builds.binary(target::Build::FramePointers);
                let wanted = programs::WantedNames {
                    tool: &|tool| self.wants(tool),
                    program: &|program| contains_one(program, &self.options.program),
                };
                let quick = self.options.quick;
                document.programs =
                    programs::measure(memtap, sentinel, &self.effort, quick, &self.directory, &wanted)?;
                (report::programs(&document.programs), Vec::new())
            }
            BenchPart::Walks => {
                let judged = (tools::WALK_LIMITS, ComparedPart::Addition);
                let tools = self.with_before(|_, walk_cost| tools::walks(walk_cost));
                let (lines, judgements) = self.lines(name, tools, &WALK_DEPTHS, &[1], judged)?;
                document.walks = lines;
                (report::walks(&document.walks), judgements)
            }
            BenchPart::Tables => {
                progress::say("tables");
                document.tables = tables::measure(&examples.join("table_cost"), self.effort.rounds * 2 + 1)?;
                (
                    report::unwind_tables(&document.tables),
                    tables::judge(&document.tables),
                )
            }
            BenchPart::Page => {
                document.page = page::measure(memtap, &self.directory);
                interrupt::check()?;
                (page::text(&document.page), page::judge(&document.page))
            }
            BenchPart::Scope => {
                let runs = if self.options.quick {
                    scope::QUICK
                } else {
                    scope::FULL
                };
                document.scope = scope::measure(memtap, runs, &self.directory)?;
                (scope::text(&document.scope), Vec::new())
            }
            BenchPart::Startup => {
                let runs = if self.options.quick {
                    startup::QUICK
                } else {
                    startup::FULL
                };
                document.startup = startup::measure(memtap, runs, &self.directory)?;
                (
                    startup::text(&document.startup),
                    startup::judge(&document.startup),
                )
            }
        };
        document.judgements.append(&mut judgements);
        Ok(text)
    }

    fn lines(
        &self,
        part: &str,
        tools: Vec<BenchTool>,
        depths: &[u32],
        threads: &[u32],
        (limits, share): (&[RatioLimit], ComparedPart),
    ) -> Result<(Vec<LoopLine>, Vec<results::Judgement>)> {
        let tools = self.filtered(tools);
        let place = measure::LoopSetup {
            part,
            effort: &self.effort,
            builds: &self.builds,
            directory: &self.directory,
            threads,
        };
        let rows = measure::all(&tools, depths, &place)?;
        let lines = compare::lines(&tools, &rows, share);
        let judgements = if self.before.is_some() {
            compare::judge_against(part, &lines)
        } else {
            compare::judge(part, &lines, limits, share)
        };
        Ok((lines, judgements))
    }

    /// The tools of this build, each of memtap's with that of the build before behind it.
    fn with_before(&self, tools: impl Fn(&Path, &Path) -> Vec<BenchTool>) -> Vec<BenchTool> {
        let own = tools(&self.memtap, &self.walk_cost);
        match &self.before {
            Some(before) => BenchTool::beside(own, tools(&before.memtap, &before.walk_cost)),
            None => own,
        }
    }

    fn depths(&self) -> Vec<u32> {
        match (self.options.depth.is_empty(), self.options.quick) {
            (false, _) => self.options.depth.clone(),
            (true, true) => vec![DEPTH],
            (true, false) => DEPTHS.to_vec(),
        }
    }

    fn filtered(&self, tools: Vec<BenchTool>) -> Vec<BenchTool> {
        let stays = |tool: &BenchTool| match (tool.kind, &self.before) {
            (results::RowKind::Bare | results::RowKind::Headline, _) => true,
            // Other tools only where they are named: they are not what is compared.
            (results::RowKind::Peer, Some(_)) => !self.options.tool.is_empty() && self.wants(tool.name),
            (results::RowKind::Memtap, Some(_)) => {
                self.wants(tool.name) || tool.is_before && tools::is_headline(tool.name)
            }
            (_, None) => self.wants(tool.name),
        };
        tools.into_iter().filter(stays).collect()
    }

    fn wants(&self, tool: &str) -> bool {
        contains_one(tool, &self.options.tool)
    }
}

/// Returns whether `text` contains one of `names`, or there are none.
fn contains_one(text: &str, names: &[String]) -> bool {
    names.is_empty() || names.iter().any(|name| text.contains(&**name))
}

/// The command as it was typed, without its files: those are paths of this machine.
fn command() -> String {
    const FILES: [&str; 3] = ["--json", "--memtap", "--against"];
    let mut words = vec!["cargo xtask bench".to_owned()];
    let mut arguments = std::env::args().skip(1);
    while let Some(word) = arguments.next() {
        let name = word.split_once('=').map_or(&*word, |(name, _)| name);
        if !FILES.contains(&name) {
            words.push(word);
        } else if name == word {
            arguments.next();
        }
    }
    words.join(" ")
}

/// Builds the programs that measure parts of memtap, with the feature that puts these parts' eBPF
/// programs in their object. memtap's own binary has been built without it. Returns their
/// directory.
fn build_examples() -> Result<PathBuf> {
    let mut command = workspace::cargo();
    command.args(["build", "--release", "-p", "memtap", "--features", "bench"]);
    command.args(["--example", "walk_cost", "--example", "table_cost"]);
    process::run(&mut command, "build what measures walks and tables")?;
    Ok(workspace::target_dir()?.join("release/examples"))
}
