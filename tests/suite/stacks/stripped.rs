//! Programs without symbols: the same frames, by their places in the file.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Fixture, Memtap, Need, Recipe, run};

use super::elf;
use super::walked::Walked;
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[case(
    "stacks::stripped",
    &[Need::Compiler, Need::Binutils],
    stripped,
)];

fn stripped(context: &Context) -> Result<()> {
    let named = Recipe::plain_c("chains").build(context)?;
    let memtap = Memtap::record(context)?;
    let bare = Fixture {
        path: memtap.directory().join("chains"),
        comm: named.comm.clone(),
    };
    let mut strip = Command::new("strip");
    strip.arg("-s").arg("-o").arg(&bare.path).arg(&named.path);
    run(strip)?.succeeded()?;

    let by_name = Walked::record(context, &named)?;
    let by_place = Walked::run(memtap.fixture(&bare))?;
    by_name.holds_nothing_but(&by_name.recording.reported()?)?;
    by_place.ends_are("complete")?;

    let functions = elf::functions(&named.path)?;
    let own = |frame: &str| functions.values().any(|name| name == frame);
    let mut renamed: BTreeMap<_, u64> = BTreeMap::new();
    for line in &by_place.recording.folded()?.lines {
        ensure!(
            !line.frames.iter().any(|frame| own(frame)),
            "not stripped: {line:?}"
        );
        let frames = line.frames.iter().map(|frame| name_of(frame, &functions));
        let frames = frames.collect::<Result<Vec<_>>>()?;
        *renamed.entry((frames, line.function.clone())).or_default() += line.weight;
    }
    let folded = by_name.recording.folded()?;
    let expected: BTreeMap<_, u64> = folded
        .lines
        .iter()
        .map(|line| ((line.frames.clone(), line.function.clone()), line.weight))
        .collect();
    ensure!(
        renamed == expected,
        "the places of the stripped program are these:\n{renamed:#?}\nthose of the whole one:\n{}",
        folded.text
    );
    Ok(())
}

/// The function that a place in the program is in; other frames as they are.
fn name_of(frame: &str, functions: &BTreeMap<u64, String>) -> Result<String> {
    let place = frame
        .strip_prefix("[chains+0x")
        .and_then(|rest| rest.strip_suffix(']'));
    let Some(place) = place else {
        return Ok(frame.to_owned());
    };
    let address = u64::from_str_radix(place, 16)?;
    let function = functions.range(..=address).next_back();
    let (_, name) = function.with_context(|| format!("{frame} is before all functions"))?;
    Ok(name.clone())
}
