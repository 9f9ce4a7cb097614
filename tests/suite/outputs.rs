//! Output: folded stacks, flame graphs, the table, and reports of losses.

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Fixture, FoldedStacks, Memtap, Need};
use quick_xml::Reader;
use quick_xml::events::Event;

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("outputs::equal_runs", &[Need::Compiler], equal_runs),
    case("outputs::alloc_count", &[Need::Compiler], alloc_count),
    case("outputs::standard_output", &[Need::Compiler], standard_output),
    case("outputs::flame_graph", &[Need::Compiler], flame_graph),
    case("outputs::table", &[Need::Compiler], table),
    case("outputs::quiet", &[Need::Compiler], quiet),
    case("outputs::no_calls", &[Need::Compiler], no_calls),
    case("outputs::strict", &[Need::Compiler], strict),
    case("outputs::stacks_run_out", &[Need::Compiler], stacks_run_out),
];

fn equal_runs(context: &Context) -> Result<()> {
    for name in ["functions", "threads", "deep"] {
        let fixture = Fixture::c(context, name)?;
        let run = || Memtap::record(context)?.fixture(&fixture).run()?.whole();
        let (one, two) = (run()?, run()?);
        ensure!(
            one.folded()?.text == two.folded()?.text,
            "two runs of {name} differ:\n{}\n{}",
            one.folded()?.text,
            two.folded()?.text
        );
    }
    Ok(())
}

fn alloc_count(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "functions")?;
    let recording = Memtap::record(context)?
        .metric("alloc-count")
        .fixture(&fixture)
        .run()?
        .whole()?;
    let rest = recording
        .folded()?
        .compare(&recording.reported()?, |chain| chain.count.calls)?;
    ensure!(rest.is_empty(), "stacks that are not the fixture's: {rest:?}");
    Ok(())
}

fn standard_output(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "quick")?;
    let recording = Memtap::record(context)?
        .without_outputs()
        .arguments(["-o", "-"])
        .fixture(&fixture)
        .run()?
        .ended_with(0)?;
    let folded = FoldedStacks::parse(&recording.finished.stdout)?;
    ensure!(folded.total() == 3210, "{} of 3210 bytes", folded.total());
    let with_file = Memtap::record(context)?.fixture(&fixture).run()?.whole()?;
    ensure!(
        with_file.folded()?.text == folded.text,
        "the file and standard output differ"
    );
    Ok(())
}

fn flame_graph(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "functions")?;
    let memtap = Memtap::record(context)?;
    let path = memtap.directory().join("graph.svg");
    let recording = memtap
        .argument("-o")
        .argument(&path)
        .fixture(&fixture)
        .run()?
        .whole()?;
    let svg = std::fs::read_to_string(recording.directory().join("graph.svg"))?;
    let text = text_of_xml(&svg).context("the flame graph is not well-formed")?;
    for name in ["main", "parse", "make_node", "grow_large", "malloc", "realloc"] {
        ensure!(text.contains(name), "the flame graph does not name {name}");
    }
    Ok(())
}

/// The text of a document, which must be well-formed and an SVG.
fn text_of_xml(xml: &str) -> Result<String> {
    let mut reader = Reader::from_str(xml);
    let mut text = String::new();
    let mut root = None;
    let mut depth = 0;
    loop {
        match reader.read_event()? {
            Event::Start(start) => {
                root.get_or_insert_with(|| start.name().as_ref().to_vec());
                depth += 1;
            }
            Event::End(_) => depth -= 1,
            Event::Text(part) => text.push_str(&part.decode()?),
            Event::Eof => break,
            _ => {}
        }
    }
    ensure!(depth == 0, "{depth} elements are not closed");
    ensure!(root.as_deref() == Some(b"svg"), "the root is no svg");
    Ok(text)
}

/// Without an option for output the report is a table on standard output.
fn table(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "functions")?;
    let recording = Memtap::record(context)?
        .without_outputs()
        .fixture(&fixture)
        .run()?
        .ended_with(0)?;
    let stdout = &recording.finished.stdout;
    for word in ["BYTES", "CALLS", "SITE", "realloc", "grow_large", "functions.c:"] {
        ensure!(stdout.contains(word), "the table does not have {word}");
    }
    ensure!(
        !stdout.contains('\u{1b}') && !recording.finished.stderr.contains('\u{1b}'),
        "colours are for terminals"
    );
    ensure!(
        stdout.to_lowercase().contains("nothing lost") || stdout.to_lowercase().contains("0 lost"),
        "the report does not say that nothing was lost"
    );
    Ok(())
}

fn quiet(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "quick")?;
    let recording = Memtap::record(context)?
        .argument("-q")
        .fixture(&fixture)
        .run()?
        .whole()?;
    ensure!(
        recording.finished.stderr.is_empty(),
        "a quiet run that went well says nothing on standard error"
    );
    Ok(())
}

/// A program that never calls the allocator is a zero, not an error.
fn no_calls(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "regions")?;
    let recording = Memtap::record(context)?.fixture(&fixture).run()?.whole()?;
    let summary = recording.summary()?;
    ensure!(summary.number("/totals/alloc/count")? == 0, "there are calls");
    // Other processes of the machine may share the probes: their events are foreign.
    let seen = summary.number("/events/seen")?;
    let foreign = summary.number("/events/foreign")?;
    ensure!(seen == foreign, "{seen} events were seen, {foreign} are others'");
    Ok(())
}

fn strict(context: &Context) -> Result<()> {
    let quick = Fixture::c(context, "quick")?;
    for code in ["0", "5"] {
        let recording = Memtap::record(context)?
            .argument("--strict")
            .command([quick.path.as_os_str(), code.as_ref()])
            .run()?
            .ended_with(code.parse()?)?;
        recording.summary()?.lost_nothing()?;
    }
    Ok(())
}

/// More stacks than there is room for: the totals stand, and what lost its stack is counted and
/// reported.
fn stacks_run_out(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "functions")?;
    let run = |arguments: &[&str]| {
        Memtap::record(context)?
            .arguments(arguments)
            .fixture(&fixture)
            .run()
    };
    for room in [4, 16] {
        let recording = run(&["--max-stacks", &room.to_string()])?.ended_with(0)?;
        recording.has_functions(&recording.reported()?.functions())?;
        let summary = recording.summary()?;
        ensure!(
            summary.number("/losses/stack_map_full")? > 0,
            "{room} stacks are enough for this program, which has more: {}",
            summary.json["losses"]
        );
        ensure!(
            summary.number("/stacks/distinct")? <= room,
            "there are more stacks than {room}"
        );
        ensure!(
            recording.finished.stderr.to_lowercase().contains("lost"),
            "the loss is not reported on standard error"
        );
    }
    run(&["--max-stacks", "4", "--strict"])?.ended_with(3)?;
    Ok(())
}
