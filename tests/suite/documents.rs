//! The README's commands, run as they are written but for targets and times.

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Fixture, Memtap, Need, RunningProgram, TestCgroup};

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[case(
    "documents::commands",
    &[Need::Compiler, Need::Cgroup2],
    commands,
)];

const README: &str = include_str!("../../README.md");

/// The process ids that the README uses.
const PIDS: [&str; 2] = ["4711", "4712"];

fn commands(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "steady")?;
    let start = || {
        let mut command = fixture.command();
        command.arg("1000");
        RunningProgram::start(command)
    };
    let targets = [start()?, start()?];
    let cgroup = TestCgroup::create(context)?;
    cgroup.take(targets[0].pid(), "")?;
    let mut count = 0;
    let blocks = README.split("```").skip(1).step_by(2);
    for line in blocks.flat_map(str::lines) {
        let Some(command) = line.trim_start_matches("sudo ").strip_prefix("memtap ") else {
            continue;
        };
        // Neither a comment nor a pipe is memtap's.
        let rest = command.split(['#', '|']).next().unwrap_or_default();
        let (arguments, program) = rest
            .split_once(" -- ")
            .map_or((rest, false), |(arguments, _)| (arguments, true));
        let mut memtap = Memtap::bare(context)?;
        let mut before = "";
        for word in arguments.split_whitespace() {
            memtap = match before {
                "-d" => memtap.argument("500ms"),
                "--comm" => memtap.argument(&fixture.comm),
                "--cgroup" => memtap.argument(cgroup.name()),
                "-p" => memtap.argument(here(word, &targets)),
                _ => memtap.argument(word),
            };
            before = word;
        }
        let records = ["record", "live"].iter().any(|name| arguments.starts_with(name));
        if program {
            let path = fixture.path.to_str().context("a path that is not UTF-8")?;
            memtap = memtap.command([path, "1000", "1"]);
        } else if records && !arguments.contains(" -d ") {
            // The README leaves the end to Ctrl-C.
            memtap = memtap.arguments(["-d", "500ms"]);
        }
        memtap
            .run()?
            .ended_with(0)
            .with_context(|| format!("the README's `memtap {command}`"))?;
        count += 1;
    }
    ensure!(count >= 10, "only {count} commands in the README");
    Ok(())
}

/// The README's process ids, as those of the targets.
fn here(pids: &str, targets: &[RunningProgram; 2]) -> String {
    let pids = pids.split(',').map(|pid| {
        let target = PIDS.iter().position(|known| *known == pid);
        target.map_or_else(|| pid.to_owned(), |target| targets[target].pid().to_string())
    });
    pids.collect::<Vec<_>>().join(",")
}
