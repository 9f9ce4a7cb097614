//! Files for speedscope, against speedscope's own schema and against folded stacks.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Browser, Context, Fixture, LIMIT, Memtap, Need, Speedscope, eventually, run};
use serde_json::Value;

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("speedscope::stacks", &[Need::Compiler], stacks),
    case("speedscope::schema", &[Need::Compiler, Need::Speedscope], schema),
    case(
        "speedscope::page",
        &[Need::Compiler, Need::Speedscope, Need::Chromium],
        page,
    ),
];

/// The folded lines of one profile of the file.
fn folded(file: &Value, profile: usize) -> Result<BTreeMap<String, u64>> {
    let names: Vec<&str> = file["shared"]["frames"]
        .as_array()
        .context("no frames")?
        .iter()
        .filter_map(|frame| frame["name"].as_str())
        .collect();
    let profile = &file["profiles"][profile];
    let samples = profile["samples"].as_array().context("no samples")?;
    let weights = profile["weights"].as_array().context("no weights")?;
    ensure!(samples.len() == weights.len(), "samples without weights");
    let mut lines = BTreeMap::new();
    for (sample, weight) in samples.iter().zip(weights) {
        let line: Option<Vec<&str>> = sample
            .as_array()
            .into_iter()
            .flatten()
            .map(|frame| names.get(usize::try_from(frame.as_u64()?).ok()?).copied())
            .collect();
        let line = line.context("a frame that is not there")?.join(";");
        *lines.entry(line).or_default() += weight.as_u64().context("no integer")?;
    }
    Ok(lines)
}

/// The file has the stacks and weights of the folded file, and a profile for each metric.
fn stacks(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "functions")?;
    let recording = Memtap::record(context)?
        .arguments(["--events", "heap,region", "--live", "-o", "all.speedscope.json"])
        .fixture(&fixture)
        .run()?
        .whole()?;
    let text = std::fs::read_to_string(recording.directory().join("all.speedscope.json"))?;
    let file: Value = serde_json::from_str(&text)?;
    let expected: BTreeMap<String, u64> = recording
        .folded()?
        .text
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(stack, weight)| Ok((stack.to_owned(), weight.parse()?)))
        .collect::<Result<_>>()?;
    ensure!(
        folded(&file, 0)? == expected,
        "the stacks are not those of the folded file"
    );
    let profiles = file["profiles"].as_array().context("no profiles")?;
    let names: Vec<&str> = profiles.iter().filter_map(|it| it["name"].as_str()).collect();
    ensure!(
        names
            == [
                "alloc-bytes",
                "alloc-count",
                "live-bytes",
                "live-count",
                "freed-bytes",
                "temporary-count",
                "peak-bytes",
                "region-bytes"
            ],
        "the profiles are {names:?}"
    );
    let has_line = file["shared"]["frames"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|frame| {
            let file = frame["file"].as_str().unwrap_or_default();
            frame["name"] == "make_node" && file.ends_with("functions.c") && frame["line"].as_u64() > Some(0)
        });
    ensure!(has_line, "make_node has no file and line");
    Ok(())
}

fn schema(context: &Context) -> Result<()> {
    let speedscope = Speedscope::get().context("no package")?;
    let fixture = Fixture::c(context, "functions")?;
    let recording = Memtap::record(context)?
        .arguments(["--live", "--events", "heap,region"])
        .arguments(["-o", "alloc-count=checked.speedscope.json"])
        .fixture(&fixture)
        .run()?
        .whole()?;
    let path = recording.directory().join("checked.speedscope.json");
    let check = |path: &std::path::Path| {
        let mut node = Command::new("node");
        node.arg(&speedscope.checker).arg(path);
        run(node)
    };
    check(&path)?.succeeded().context("the file breaks the schema")?;
    // The checker does find what is wrong.
    let broken = recording.directory().join("broken.speedscope.json");
    let text = std::fs::read_to_string(&path)?.replace("\"samples\"", "\"simples\"");
    std::fs::write(&broken, text)?;
    ensure!(check(&broken)?.code() == 1, "a broken file passes");
    Ok(())
}

/// speedscope's own page opens the file, and names its metrics. It draws nothing without a graphics
/// card, so that no more can be seen.
fn page(context: &Context) -> Result<()> {
    let speedscope = Speedscope::get().context("no package")?;
    let fixture = Fixture::c(context, "functions")?;
    let recording = Memtap::record(context)?
        .arguments(["-o", "all.speedscope.json"])
        .fixture(&fixture)
        .run()?
        .whole()?;
    // The way in which speedscope's own command passes a file to the page.
    let text = std::fs::read_to_string(recording.directory().join("all.speedscope.json"))?;
    let script = recording.directory().join("profile.js");
    std::fs::write(
        &script,
        format!("speedscope.loadFileFromBase64('all.speedscope.json', btoa(JSON.stringify({text})))"),
    )?;
    let mut browser = Browser::start()?;
    browser.open(
        &speedscope.page,
        &format!("localProfilePath={}", script.display()),
    )?;
    let has_opened = eventually(LIMIT, || {
        Ok(browser.text("title")?.starts_with("memtap: functions-"))
    })?;
    ensure!(
        has_opened,
        "speedscope does not show the file: {}",
        browser.text("body")?
    );
    let shown = browser.text("body")?;
    ensure!(shown.contains("alloc-bytes (1/2)"), "{shown}");
    Ok(())
}
