//! The tables of a page.

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Browser, Context, Fixture, Memtap, RecordingSummary};
use serde_json::{Value, json};

use super::{click_box, kib_or_mib, open, row_names, rows, says};

/// Tables: what they have, their order, and their ties to the graph.
pub(super) fn tables(context: &Context) -> Result<()> {
    let (recording, mut browser) = open(context, "")?;
    let sites = row_names(&mut browser)?;
    ensure!(
        sites.first().is_some_and(|name| name == "grow_large"),
        "{sites:?}"
    );
    ensure!(
        !sites.iter().any(|name| name == "malloc"),
        "a site is the allocator: {sites:?}"
    );
    let folded = recording.folded()?;
    // The line of each call is a site of its own.
    let heaviest = &rows(&mut browser)?[0];
    ensure!(heaviest[1].ends_with('%'), "{heaviest:?}");

    // The lines of one function are sites of their own: one of them is selected.
    let is_of_grow = |name: &str| name == "grow";
    ensure!(
        sites.iter().filter(|name| is_of_grow(name)).count() > 1,
        "{sites:?}"
    );
    let at = sites
        .iter()
        .position(|name| is_of_grow(name))
        .context("no grow")?
        + 1;
    browser.click_on(&format!("#panel tbody tr:nth-child({at}) th"), 1)?;
    let marked = "[...document.querySelectorAll('#panel tbody tr')].flatMap((tr, index) => \
                  tr.getAttribute('aria-current') === 'true' ? [index + 1] : [])";
    ensure!(browser.evaluate(marked)? == json!([at]), "another row is marked");
    says(&mut browser, "#selected .called", "grow")?;
    browser.reload()?;
    ensure!(browser.evaluate(marked)? == json!([at]), "the row is lost");

    browser.key("2")?;
    let functions = rows(&mut browser)?;
    let of = |name: &str| {
        let row = functions
            .iter()
            .find(|row| row.last().is_some_and(|it| it == name));
        row.with_context(|| format!("no row of {name} in {functions:?}"))
    };
    let parse = folded.weight_of(|line| line.passes("parse"));
    ensure!(
        of("parse")?[0] == kib_or_mib(parse),
        "{:?} for {parse}",
        of("parse")?
    );
    ensure!(
        of("parse")?[2] == "–",
        "parse asks for nothing itself: {:?}",
        of("parse")?
    );
    let node = kib_or_mib(folded.weight_of(|line| line.passes("make_node")));
    ensure!(
        of("make_node")?[2] == node,
        "{:?} is not all its own",
        of("make_node")?
    );

    // By name, upwards, then downwards.
    browser.click_on("#panel th.name button", 1)?;
    let names = row_names(&mut browser)?;
    ensure!(names.is_sorted(), "not sorted: {names:?}");
    ensure!(
        browser.fragment()?.contains("sort=name.up"),
        "the order is not kept"
    );
    browser.click_on("#panel th.name button", 1)?;
    let back = row_names(&mut browser)?;
    ensure!(back.iter().rev().is_sorted(), "not sorted: {back:?}");
    browser.reload()?;
    ensure!(row_names(&mut browser)? == back, "the order is lost");

    // A row selects; a box selects a row.
    let at = back.iter().position(|name| name == "parse").context("no parse")? + 1;
    browser.click_on(&format!("#panel tbody tr:nth-child({at}) th"), 1)?;
    says(&mut browser, "#selected .called", "parse")?;
    says(&mut browser, "#selected", "load")?;
    says(&mut browser, "#selected", "make_table")?;
    let current = browser.text("#panel tr[aria-current='true'] th")?;
    ensure!(current.starts_with("parse"), "{current} is marked");
    browser.click_on(&format!("#panel tbody tr:nth-child({at}) th"), 2)?;
    ensure!(
        browser.fragment()?.contains("zoom="),
        "a double click does not zoom"
    );
    click_box(&mut browser, 1, 0.5)?;
    ensure!(
        browser.evaluate("document.querySelector(\"#panel tr[aria-current='true']\")")? == Value::Null,
        "a process is no row of functions"
    );
    browser.key("3")?;
    says(&mut browser, "#panel tr[aria-current='true']", "functions")?;
    browser.key("4")?;
    says(&mut browser, "#panel", "Blocks by size")?;
    browser.key("5")?;
    for words in [
        "Nothing lost.",
        "Duration",
        "Kernel",
        "Unwinder",
        "Hits of probes",
        "Totals by function",
    ] {
        says(&mut browser, "#panel", words)?;
    }
    browser.has_no_problems()
}

/// The columns of `live`: the leak is the first, with the score of the summary.
pub(super) fn live(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "holding")?;
    let recording = Memtap::bare(context)?
        .arguments([
            "live",
            "-d",
            "4s",
            "--summary",
            "live.json",
            "-o",
            "page.html",
            "--",
        ])
        .argument(&fixture.path)
        .argument("6")
        .run()?
        .ended_with(0)?;
    let summary =
        RecordingSummary::parse(&std::fs::read_to_string(recording.directory().join("live.json"))?)?;
    let stacks = summary.json["top_stacks"].as_array().context("no stacks")?;
    let leak = stacks
        .iter()
        .find(|stack| stack["frames"].to_string().contains("leak_block"))
        .context("no leak in the summary")?;
    let mut browser = Browser::start()?;
    browser.open(&recording.directory().join("page.html"), "")?;
    let heads =
        browser.evaluate("[...document.querySelectorAll('#panel thead th')].map((it) => it.textContent)")?;
    let heads: Vec<String> = serde_json::from_value(heads)?;
    for head in ["Live", "Blocks", "Oldest", "Growth", "Score ▼", "Site"] {
        ensure!(heads.iter().any(|it| it == head), "no {head} in {heads:?}");
    }
    let first = rows(&mut browser)?.into_iter().next().context("no rows")?;
    let cell = |head: &str| {
        let at = heads.iter().position(|it| it == head);
        at.and_then(|at| first.get(at)).cloned().unwrap_or_default()
    };
    ensure!(
        cell("Site") == "leak_block",
        "another site is above the leak: {first:?}"
    );
    let bytes = |name: &str| {
        leak[name]
            .as_u64()
            .with_context(|| format!("no {name} in {leak}"))
    };
    ensure!(
        cell("Score ▼") == kib_or_mib(bytes("score")?),
        "{first:?} for {leak}"
    );
    ensure!(
        cell("Growth") == format!("+{}", kib_or_mib(bytes("growth_bytes")?)),
        "{first:?} for {leak}"
    );
    ensure!(
        cell("Live") == kib_or_mib(bytes("live_bytes")?),
        "{first:?} for {leak}"
    );
    ensure!(
        cell("Blocks").replace(',', "") == bytes("live_blocks")?.to_string(),
        "{first:?} for {leak}"
    );
    // The histograms are those of the selection.
    browser.click_on("#panel tbody tr th", 1)?;
    browser.key("4")?;
    says(&mut browser, "#panel", "Blocks by size, leak_block")?;
    browser.has_no_problems()
}
