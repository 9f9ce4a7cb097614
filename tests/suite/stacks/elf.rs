//! Reports of binutils on a fixture.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use memtap_tests::run;

/// The functions of a file, by their addresses.
pub(super) fn functions(path: &Path) -> Result<BTreeMap<u64, String>> {
    let mut command = Command::new("nm");
    command.arg("--defined-only").arg(path);
    let text = run(command)?.succeeded()?.stdout;
    let function = |line: &str| {
        let mut words = line.split(' ');
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let is_code = words.next()?.eq_ignore_ascii_case("t");
        is_code.then_some((address, words.next()?.to_owned()))
    };
    Ok(text.lines().filter_map(function).collect())
}

/// Returns what `readelf` shows of a file: one of its options.
pub(super) fn shown(path: &Path, option: &str) -> Result<String> {
    let mut command = Command::new("readelf");
    command.args(["-W", option]).arg(path);
    Ok(run(command)?.succeeded()?.stdout)
}

/// The call frame information of a function, as `readelf` shows it.
pub(super) fn frame_information(path: &Path, function: &str) -> Result<String> {
    let functions = functions(path)?;
    let (address, _) = functions
        .iter()
        .find(|(_, name)| *name == function)
        .with_context(|| format!("{} has no function {function}", path.display()))?;
    let text = shown(path, "--debug-dump=frames")?;
    let begins_there = |entry: &&str| {
        let pc = entry
            .split_once("pc=")
            .and_then(|(_, rest)| rest.split_once(".."));
        pc.is_some_and(|(pc, _)| u64::from_str_radix(pc, 16) == Ok(*address))
    };
    text.split("\n\n")
        .find(begins_there)
        .map(str::to_owned)
        .with_context(|| format!("{function} has no call frame information"))
}
