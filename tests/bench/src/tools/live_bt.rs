//! bpftrace following blocks, by `tests/bench/fixtures/live.bt`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::{RunningTracer, SeenCalls, Tracer, bpftrace};
use crate::target::LoopTarget;
use test_support::workspace;

/// bpftrace with a script that keeps every block's size and stack from its malloc to its free.
pub(crate) struct LiveScript;

impl Tracer for LiveScript {
    fn missing(&self) -> Option<String> {
        bpftrace::missing()
    }

    fn attach(&self, target: &LoopTarget, directory: &Path) -> Result<RunningTracer> {
        let source = workspace::root().join("tests/bench/fixtures/live.bt");
        let script = fs::read_to_string(&source)
            .with_context(|| format!("failed to read {}", source.display()))?
            .replace(":LIBC:", &format!(":{}:", target.libc().display()));
        let file = directory.join("live.bt");
        fs::write(&file, script).with_context(|| format!("failed to write {}", file.display()))?;
        let pid = target.pid().to_string();
        let mut command = bpftrace::command();
        command.args(["-f", "json", "-p", &pid]).arg(file).arg(&pid);
        RunningTracer::start(&mut command, directory)
    }

    fn seen(&self, directory: &Path) -> Result<SeenCalls> {
        let text =
            fs::read_to_string(directory.join("stdout")).context("failed to read bpftrace's output")?;
        seen(&text)
    }
}

/// The count of calls, if every stack's blocks were all given back.
fn seen(output: &str) -> Result<SeenCalls> {
    for bytes in bpftrace::map(output, "@live")?.0 {
        ensure!(
            bytes == 0,
            "{bytes} bytes are live in bpftrace's map, and the loop keeps none"
        );
    }
    let calls = bpftrace::map(output, "@calls")?.0;
    u64::try_from(calls.iter().sum::<i64>())
        .map(SeenCalls::Calls)
        .context("failed to read bpftrace's @calls")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_stay_are_no_figure() {
        let output = |live: i64| {
            format!(
                "{{\"type\": \"map\", \"data\": {{\"@calls\": 80}}}}\n\
                 {{\"type\": \"map\", \"data\": {{\"@live\": {{\"\\n    malloc+0\\n\": {live}}}}}}}\n"
            )
        };
        assert_eq!(seen(&output(0)).ok(), Some(SeenCalls::Calls(80)));
        assert!(seen(&output(64)).is_err());
        assert!(seen(&output(-64)).is_err());
        assert!(seen("").is_err());
    }
}
