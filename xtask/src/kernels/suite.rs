//! The suite's executable, built on the host, and which of its tests run elsewhere.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::test_output::{self, TestCounts};
use crate::{privilege, process, workspace};

/// The tests that every kernel has to pass: what a kernel can do differently, and no more, since an
/// emulated processor takes its time. Nothing that compares times, and nothing that needs rustc,
/// which takes longer to start there than the test itself.
const CORE: &[&str] = &[
    "sums::every_function",
    "sums::one_call_instruction",
    "sums::failing_calls",
    "sums::four_threads",
    "sums::deep_stacks",
    "processes::fork",
    "processes::fork_and_exec",
    "processes::per_pid",
    "lives::chain_of_execs",
    "cgroups::moved_in_and_out",
    "cgroups::born_into",
    "containers::inner_pid_in_the_report",
    "regions::every_call",
    "regions::with_heap",
    "sampling::words",
    "stacks::chains",
    "stacks::signal_handlers",
    "stacks::coroutines",
    "tables::loaded_late",
    "attach::sums_each_way",
    "system::doctor",
];

/// The suite, and what to run of it.
pub(super) struct Suite {
    /// Its executable.
    pub(super) path: PathBuf,
    /// Arguments that choose the tests.
    pub(super) arguments: Vec<OsString>,
}

impl Suite {
    /// Builds it, and chooses the core tests or, with `only`, all whose names contain that.
    pub(super) fn build(only: Option<&str>) -> Result<Self> {
        let mut cargo = workspace::cargo();
        cargo
            .args(["test", "--no-run", "-p", "memtap-tests", "--test", "suite"])
            .args(["--release", "--message-format=json-render-diagnostics"])
            .stderr(Stdio::inherit());
        let messages = process::output(&mut cargo, "build the suite")?;
        let path = executable_in(&messages).context("failed to find the suite in cargo's messages")?;
        let listed = process::output(
            workspace::untouched(&path).args(["--list", "--format", "terse"]),
            "list the suite's tests",
        )?;
        let names = names_in(&listed);
        // The guest's output is a terminal to it, whatever it is here.
        let mut arguments: Vec<OsString> = vec!["--test-threads=1".into(), "--color=never".into()];
        match only {
            Some(filter) if names.iter().any(|name| name.contains(filter)) => arguments.push(filter.into()),
            Some(filter) => bail!("failed to choose tests: the suite has none whose name contains {filter}"),
            None => arguments.extend(all_but(&names, CORE)?),
        }
        Ok(Self { path, arguments })
    }

    /// Runs the tests here. It shows what fails on any kernel, and compiles the programs that are
    /// traced, which a guest could not keep.
    pub(super) fn run_here(&self, memtap: &Path) -> Result<TestCounts> {
        let mut command = privilege::elevated(Path::new("env"));
        let mut assignment = OsString::from("MEMTAP_BIN=");
        assignment.push(memtap);
        command.arg(assignment).arg(&self.path).args(&self.arguments);
        let (results, status) = test_output::run(&mut command)?;
        let counts = results.counts;
        if !status.success() && counts.failed == 0 {
            bail!("failed to run the suite: it ended with {status}");
        }
        Ok(counts)
    }
}

/// The suite's runner takes one filter, but any number of tests to leave out.
fn all_but(names: &[&str], wanted: &[&str]) -> Result<Vec<OsString>> {
    let missing: Vec<&str> = wanted
        .iter()
        .copied()
        .filter(|name| !names.contains(name))
        .collect();
    if !missing.is_empty() {
        bail!(
            "failed to choose the core tests: the suite has no {}; correct the list in \
             xtask/src/kernels/suite.rs",
            missing.join(", ")
        );
    }
    let unwanted = names.iter().filter(|name| !wanted.contains(name));
    let mut arguments = vec![OsString::from("--exact")];
    arguments.extend(unwanted.flat_map(|name| ["--skip".into(), OsString::from(name)]));
    Ok(arguments)
}

/// The names in lines such as `sums::sizes: test`.
fn names_in(listed: &str) -> Vec<&str> {
    listed
        .lines()
        .filter_map(|line| line.trim().strip_suffix(": test"))
        .collect()
}

/// The suite's path in cargo's messages, one JSON object a line.
fn executable_in(messages: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_suite = message["reason"] == "compiler-artifact" && message["target"]["name"] == "suite";
        is_suite.then_some(())?;
        message["executable"].as_str().map(PathBuf::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"x\"},\"executable\":\"/x\"}\n\
                        {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"suite\"},\"executable\":\"/s\"}\n\
                        {\"reason\":\"build-finished\",\"success\":true}\n";
        assert_eq!(executable_in(messages), Some(PathBuf::from("/s")));
        assert_eq!(executable_in("{}\nnothing"), None);
    }

    #[test]
    fn choosing() {
        let names = names_in("a::b: test\na::c: test\n\n2 tests\n");
        assert_eq!(names, ["a::b", "a::c"]);
        assert_eq!(
            all_but(&names, &["a::c"]).expect("all are there"),
            ["--exact", "--skip", "a::b"]
        );
        let error = all_but(&names, &["a::d"]).map_err(|error| error.to_string());
        assert!(error.is_err_and(|message| message.contains("a::d")));
    }
}
