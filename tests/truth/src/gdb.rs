//! gdb's side: `tests/truth/scripts/stacks.py` stops the workload at every call and writes down
//! what gdb unwinds.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::job::{TracedJob, limited};
use super::modules::Modules;
use super::stacks::{self, Stacks};
use test_support::workspace;

/// The stacks that gdb saw.
pub(crate) struct GdbStacks {
    pub(crate) main_thread: Stacks,
    pub(crate) other_threads: Stacks,
    pub(crate) modules: Modules,
    pub(crate) end: GdbEnd,
}

/// The end of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GdbEnd {
    /// By itself.
    Exited,
    /// By gdb, after as many hits as were wanted.
    Cut,
}

/// Runs the job under gdb until its end, or until so many hits; 0 stands for its end.
pub(crate) fn record(
    job: &TracedJob,
    functions: &[String],
    hits: u64,
    out: &Path,
    name: &str,
) -> Result<GdbStacks> {
    let file = out.join(format!("{name}.gdb"));
    if file.exists() {
        fs::remove_file(&file).with_context(|| format!("failed to remove {}", file.display()))?;
    }
    let mut command = limited(Path::new("gdb"), false);
    command
        // gdb starts the chain through a shell.
        .env("SHELL", "/bin/sh")
        .env("TRUTH_PROGRAM", &job.program)
        .env("TRUTH_FUNCTIONS", functions.join(","))
        .env("TRUTH_HITS", hits.to_string())
        .env("TRUTH_OUT", &file)
        .args(["-nx", "-batch", "-iex", "set auto-load off"]);
    let aid = job.has_generated_code.then_some("frame_pointers.py");
    for script in aid.into_iter().chain(["stacks.py"]) {
        command
            .arg("-x")
            .arg(workspace::root().join("tests/truth/scripts").join(script));
    }
    command.arg("--args").args(job.chain());
    job.run(command, &file, "run the workload under gdb")?;
    let text = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
    parse(&text).with_context(|| format!("failed to read {}", file.display()))
}

fn parse(text: &str) -> Result<GdbStacks> {
    let mut modules = Modules::default();
    let (mut main_thread, mut other_threads) = (Stacks::default(), Stacks::default());
    let mut end = None;
    let mut is_main = true;
    for line in text.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            let (stack, seen) = stacks::parse(line)?;
            if is_main {
                main_thread.add(stack, seen);
            } else {
                other_threads.add(stack, seen);
            }
            continue;
        };
        match comment.split_once(' ') {
            Some(("map", mapping)) => modules
                .add(mapping)
                .with_context(|| format!("failed to read the line of a mapping: {mapping:?}"))?,
            Some(("thread", thread)) => is_main = thread == "main",
            Some(("end", "cut")) => end = Some(GdbEnd::Cut),
            Some(("end", "exited 0")) => end = Some(GdbEnd::Exited),
            Some(("end", how)) => bail!("failed to run the workload under gdb: it {how}"),
            _ => {}
        }
    }
    Ok(GdbStacks {
        main_thread,
        other_threads,
        modules,
        end: end.context("failed to find out how the run under gdb ended")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_and_ends() {
        let text = "# map 1200 2000 1000 /bin/prog\n# hits 6\n# end cut\n# thread main\n\
                    2 malloc complete 1300\n# thread other\n4 malloc complete 1400\n";
        let truth = parse(text).expect("a run");
        assert_eq!(truth.main_thread.hits(), 2);
        assert_eq!(truth.other_threads.hits(), 4);
        assert_eq!(truth.modules.place(0x1300), "prog+0x300");
        assert_eq!(truth.end, GdbEnd::Cut);
        assert!(parse("# end exited 1\n").is_err());
        assert!(parse("# hits 0\n").is_err());
    }
}
