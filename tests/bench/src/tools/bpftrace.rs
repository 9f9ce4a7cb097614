//! bpftrace's one-liner for the same question: bytes by stack.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::{fmt, fs};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{RunningTracer, SeenCalls, Tracer};
use crate::target::LoopTarget;
use test_support::{privilege, workspace};

/// bpftrace as the distribution ships it, with `-p PID`; 0.17 attaches for all processes even so,
/// so that a filter is needed too.
pub(crate) struct Bpftrace;

impl Tracer for Bpftrace {
    fn missing(&self) -> Option<String> {
        missing()
    }

    fn attach(&self, target: &LoopTarget, directory: &Path) -> Result<RunningTracer> {
        let pid = target.pid();
        let probe = format!("uprobe:{}:malloc", target.libc().display());
        let sums = format!("/pid == {pid}/ {{ @[ustack] = sum(arg0) }}");
        let mut command = command();
        command.args([
            "-f",
            "json",
            "-p",
            &pid.to_string(),
            "-e",
            &format!("{probe} {sums}"),
        ]);
        RunningTracer::start(&mut command, directory)
    }

    fn seen(&self, directory: &Path) -> Result<SeenCalls> {
        let text =
            fs::read_to_string(directory.join("stdout")).context("failed to read bpftrace's output")?;
        total_bytes(&text).map(SeenCalls::Bytes)
    }
}

/// bpftrace as root. It is told to read a process's symbols once: by default it reads all of them
/// for each frame that it prints, after its measuring.
pub(crate) fn command() -> Command {
    let mut command = privilege::elevated(Path::new("env"));
    command.args(["BPFTRACE_CACHE_USER_SYMBOLS=1", "bpftrace"]);
    command
}

/// Returns why bpftrace cannot run here.
pub(crate) fn missing() -> Option<String> {
    (!workspace::in_path("bpftrace")).then(|| "bpftrace is not installed".to_owned())
}

/// The values of a map by keys; a key may be there more than once: bpftrace keeps threads' stacks
/// apart, and gives them the same names.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct MapValues(pub(crate) Vec<i64>);

/// A line of its output: `{"type": "map", "data": {"@name": …}}`.
#[derive(Deserialize)]
struct Message {
    r#type: String,
    #[serde(default)]
    data: Data,
}

/// The data of a line; other lines have other data.
#[derive(Deserialize)]
#[serde(untagged)]
enum Data {
    Map(HashMap<String, MapValues>),
    Other(IgnoredAny),
}

impl Default for Data {
    fn default() -> Self {
        Self::Other(IgnoredAny)
    }
}

impl<'de> Deserialize<'de> for MapValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValuesReader)
    }
}

struct ValuesReader;

impl<'de> Visitor<'de> for ValuesReader {
    type Value = MapValues;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number, or numbers by keys")
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<MapValues, E> {
        Ok(MapValues(vec![value]))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<MapValues, E> {
        i64::try_from(value)
            .map(|value| MapValues(vec![value]))
            .map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MapValues, A::Error> {
        let mut values = Vec::new();
        while let Some((IgnoredAny, value)) = map.next_entry()? {
            values.push(value);
        }
        Ok(MapValues(values))
    }
}

/// A map that bpftrace printed when it ended.
pub(crate) fn map(output: &str, name: &str) -> Result<MapValues> {
    for line in output.lines().filter(|line| !line.trim().is_empty()) {
        let message: Message =
            serde_json::from_str(line).with_context(|| format!("failed to read bpftrace's line {line:?}"))?;
        if let (Data::Map(mut data), "map") = (message.data, &*message.r#type)
            && let Some(values) = data.remove(name)
        {
            return Ok(values);
        }
    }
    bail!("failed to find {name} in bpftrace's output")
}

/// The sum over all stacks of bpftrace's map without a name.
fn total_bytes(output: &str) -> Result<u64> {
    let MapValues(bytes) = map(output, "@")?;
    u64::try_from(bytes.iter().sum::<i64>()).context("failed to add up bpftrace's stacks")
}

#[cfg(test)]
mod tests {
    use super::{MapValues, map, total_bytes};

    #[test]
    fn sums_of_all_stacks() {
        let output = r#"{"type": "attached_probes", "data": {"probes": 1}}
{"type": "map", "data": {"@": {"\n    malloc+0\n    main+5\n": 640, "\n    malloc+0\n": 64}}}

"#;
        assert_eq!(total_bytes(output).ok(), Some(704));
        assert!(total_bytes("Attaching").is_err());
        assert!(total_bytes("{\"type\": \"attached_probes\", \"data\": {\"probes\": 1}}\n").is_err());
    }

    #[test]
    fn stacks_of_two_threads_have_one_name() {
        let output = r#"{"type": "map", "data": {"@": {"\n    malloc+0\n": 640, "\n    malloc+0\n": 64}}}"#;
        assert_eq!(total_bytes(output).ok(), Some(704));
        let number = r#"{"type": "map", "data": {"@calls": 80}}"#;
        assert_eq!(map(number, "@calls").ok(), Some(MapValues(vec![80])));
        let lines = "{\"type\": \"text\", \"data\": \"words\"}\n".to_owned() + number;
        assert_eq!(map(&lines, "@calls").ok(), Some(MapValues(vec![80])));
    }
}
