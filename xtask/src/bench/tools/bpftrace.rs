//! bpftrace's one-liner for the same question: bytes by stack.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{Running, Seen, Tracer};
use crate::bench::target::Target;
use crate::{privilege, workspace};

/// bpftrace as the distribution ships it, with `-p PID`; 0.17 attaches for all processes even so, so that a filter is
/// needed too.
pub(crate) struct Bpftrace;

impl Tracer for Bpftrace {
    fn missing(&self) -> Option<String> {
        missing()
    }

    fn attach(&self, target: &Target, folder: &Path) -> Result<Running> {
        let pid = target.pid();
        let probe = format!("uprobe:{}:malloc", target.libc().display());
        let sums = format!("/pid == {pid}/ {{ @[ustack] = sum(arg0) }}");
        let mut command = privilege::elevated(Path::new("bpftrace"));
        command.args([
            "-f",
            "json",
            "-p",
            &pid.to_string(),
            "-e",
            &format!("{probe} {sums}"),
        ]);
        Running::start(&mut command, folder)
    }

    fn seen(&self, folder: &Path) -> Result<Seen> {
        let text = fs::read_to_string(folder.join("stdout")).context("failed to read bpftrace's output")?;
        total_bytes(&text).map(Seen::Bytes)
    }
}

/// Why bpftrace cannot run here.
pub(crate) fn missing() -> Option<String> {
    (!workspace::in_path("bpftrace")).then(|| "bpftrace is not installed".to_owned())
}

/// A map that bpftrace printed when it ended: its value is in a line like
/// `{"type": "map", "data": {"@name": …}}`.
pub(crate) fn map(output: &str, name: &str) -> Result<serde_json::Value> {
    for line in output.lines().filter(|line| !line.trim().is_empty()) {
        let message: serde_json::Value =
            serde_json::from_str(line).with_context(|| format!("failed to read bpftrace's line {line:?}"))?;
        if message["type"] == "map" && !message["data"][name].is_null() {
            return Ok(message["data"][name].clone());
        }
    }
    bail!("failed to find {name} in bpftrace's output")
}

/// The sum over all stacks of bpftrace's map without a name.
fn total_bytes(output: &str) -> Result<u64> {
    let stacks = map(output, "@")?;
    let stacks = stacks
        .as_object()
        .context("failed to read bpftrace's map of stacks")?;
    Ok(stacks.values().filter_map(serde_json::Value::as_u64).sum())
}

#[cfg(test)]
mod tests {
    use super::total_bytes;

    #[test]
    fn sums_of_all_stacks() {
        let output = r#"{"type": "attached_probes", "data": {"probes": 1}}
{"type": "map", "data": {"@": {"\n    malloc+0\n    main+5\n": 640, "\n    malloc+0\n": 64}}}

"#;
        assert_eq!(total_bytes(output).ok(), Some(704));
        assert!(total_bytes("Attaching").is_err());
    }
}
