//! The distribution's Python: a large program without frame pointers, attached to while it runs.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use memtap_tests::{Context, Memtap, Need, RunningProgram, eventually};

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[case("python::running", &[Need::Python], running)];

/// Every object is a block of the C library's with `PYTHONMALLOC=malloc`.
const SCRIPT: &str = "
import sys
def make(number):
    return [str(number), number * 1.5, {number: [number] * 20}]
print('ready', flush=True)
held = []
while True:
    for number in range(1000):
        held.append(make(number))
    held.clear()
";

fn running(context: &Context) -> Result<()> {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", SCRIPT]).env("PYTHONMALLOC", "malloc");
    let mut python = RunningProgram::start(command)?;
    let is_ready = eventually(Duration::from_secs(10), || {
        ensure!(python.is_alive()?, "python ended: {}", python.stderr());
        Ok(python.stdout().contains("ready"))
    })?;
    ensure!(is_ready, "python does not start");
    let recording = Memtap::record(context)?
        .process(python.pid())
        .arguments(["-d", "2s"])
        .run()?
        .whole()?;
    ensure!(python.is_alive()?, "python did not survive");
    let summary = recording.summary()?;
    let calls = summary.number("/totals/functions/malloc/calls")?;
    ensure!(calls > 10_000, "{calls} calls in two seconds");
    ensure!(summary.processes()?.len() == 1, "there is one process");
    // The caller of malloc is read from the stack and never lost: it is the interpreter, by name or
    // by place.
    let folded = recording.folded()?;
    let of_python = folded.weight_of(|line| {
        line.frames.last().is_some_and(|frame| {
            frame.starts_with("Py") || frame.starts_with("_Py") || frame.contains("[python3")
        })
    });
    ensure!(
        of_python * 10 >= folded.total() * 9,
        "{of_python} of {} bytes were asked for by the interpreter:\n{}",
        folded.total(),
        folded.text
    );
    let named = folded.weight_of(|line| line.passes("Py"));
    ensure!(
        named > 0,
        "no function of the interpreter is named:\n{}",
        folded.text
    );
    Ok(())
}
