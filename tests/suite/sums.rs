//! Sums of launched programs: exact, by function, by call chain, by process.

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Count, Counts, Fixture, Memtap, MemtapRecording, Need, Reported, shim_counts};

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("sums::every_function", &[Need::Compiler], every_function),
    case("sums::one_call_instruction", &[Need::Compiler], indirect),
    case("sums::failing_calls", &[Need::Compiler], failing),
    case("sums::four_threads", &[Need::Compiler], four_threads),
    case("sums::quick_exit", &[Need::Compiler], quick_exit),
    case("sums::deep_stacks", &[Need::Compiler], deep_stacks),
    case("sums::sizes", &[Need::Compiler], sizes),
    case("sums::rust_program", &[Need::Compiler, Need::Rustc], rust_program),
];

/// Records a C fixture that tells its chains, and compares everything there is to compare. What the
/// C library allocates on the program's behalf is in the shim's count and not in the fixture's: it
/// must be the whole of the lines that are no chain of the fixture.
fn exact(context: &Context, name: &str) -> Result<MemtapRecording> {
    let fixture = Fixture::c(context, name)?;
    let (counts, _) = shim_counts(context, fixture.command())?;
    let recording = Memtap::record(context)?.fixture(&fixture).run()?.whole()?;
    recording.has_functions(&counts)?;
    let reported = recording.reported()?;
    let rest = recording
        .folded()?
        .compare(&reported, |chain| chain.count.bytes)?;
    let bytes = |counts: &Counts| counts.values().map(|count| count.bytes).sum::<u64>();
    let runtime = bytes(&counts) - bytes(&reported.functions());
    let found: u64 = rest.iter().map(|line| line.weight).sum();
    ensure!(
        found == runtime,
        "{found} bytes are in stacks that are not the fixture's, {runtime} expected: {rest:?}"
    );
    Ok(recording)
}

fn every_function(context: &Context) -> Result<()> {
    let recording = exact(context, "functions")?;
    // No chain of this fixture is the C library's own.
    recording.has_functions(&recording.reported()?.functions())?;
    let summary = recording.summary()?;
    ensure!(
        summary.number("/events/nested")? > 0,
        "realloc(NULL) and reallocarray go on to malloc and realloc: some events are nested"
    );
    let reported = recording.reported()?;
    let process = summary.process(reported.images[0].pid, "functions")?;
    ensure!(process.has_exited, "the process has ended");
    Ok(())
}

fn indirect(context: &Context) -> Result<()> {
    exact(context, "indirect").map(drop)
}

/// Without return probes failed calls are among the calls, and what they ask for is not compared.
fn failing(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "failing")?;
    let recording = Memtap::record(context)?.fixture(&fixture).run()?.whole()?;
    let calls = |counts: Counts| -> Counts {
        let without_bytes = |(name, count): (String, Count)| (name, Count { bytes: 0, ..count });
        counts.into_iter().map(without_bytes).collect()
    };
    let expected = calls(recording.reported()?.functions());
    let found = calls(recording.summary()?.functions()?);
    if let Some(difference) = memtap_tests::difference(&expected, &found) {
        anyhow::bail!("the calls are not what they should be:\n{difference}");
    }
    Ok(())
}

fn four_threads(context: &Context) -> Result<()> {
    let recording = exact(context, "threads")?;
    let summary = recording.summary()?;
    ensure!(
        summary.processes()?.len() == 1,
        "threads are one process: {}",
        summary.json["processes"]
    );
    let own = recording.reported()?.functions();
    let all = summary.functions()?;
    ensure!(
        all["calloc"].calls == own["calloc"].calls + 4,
        "each pthread_create calls calloc once: {:?} in all, {:?} of the fixture",
        all["calloc"],
        own["calloc"]
    );
    Ok(())
}

/// The names of a command that has long ended.
fn quick_exit(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "quick")?;
    for _ in 0..10 {
        let recording = Memtap::record(context)?.fixture(&fixture).run()?.whole()?;
        let count = Count {
            calls: 3,
            bytes: 3210,
        };
        recording.has_functions(&Counts::from([("malloc".to_owned(), count)]))?;
        let folded = recording.folded()?;
        let named = folded.weight_of(|line| {
            line.process == "quick"
                && line.function == "malloc"
                && line.frames.ends_with(&["main".into(), "quick_work".into()])
        });
        ensure!(named == 3210, "the chain is not named:\n{}", folded.text);
    }
    Ok(())
}

/// The most frames that are kept.
const MAX_FRAMES: usize = 127;

fn deep_stacks(context: &Context) -> Result<()> {
    let recording = exact(context, "deep")?;
    let folded = recording.folded()?;
    let of_depth = |depth: u64| {
        let leaf = format!("leaf_{depth}");
        let mut lines = folded
            .lines
            .iter()
            .filter(|line| line.frames.last() == Some(&leaf));
        let line = lines.next().with_context(|| format!("no {leaf}"))?;
        ensure!(lines.next().is_none(), "{leaf} has two stacks");
        ensure!(line.weight == depth, "{leaf} weighs {}", line.weight);
        Ok(line)
    };
    let shallow = of_depth(1)?;
    // main and what calls it.
    let outer = shallow.frames.len() - 2;
    for depth in [1, 10, 50, 100, 120, 126, 127, 128, 200, 1000] {
        let line = of_depth(depth)?;
        let turns = line.frames.iter().filter(|name| *name == "descend").count();
        let frames = outer + usize::try_from(depth)? + 1;
        if frames > MAX_FRAMES {
            ensure!(
                line.is_truncated && line.frames.len() == MAX_FRAMES && turns == MAX_FRAMES - 1,
                "depth {depth}: {turns} turns in {} frames, truncated: {}",
                line.frames.len(),
                line.is_truncated
            );
        } else {
            ensure!(
                line.frames.len() == frames && turns as u64 == depth && line.passes("main"),
                "depth {depth}: {turns} turns in {} frames: {line:?}",
                line.frames.len()
            );
            ensure!(
                line.is_truncated == shallow.is_truncated || frames == MAX_FRAMES,
                "depth {depth} ends otherwise than depth 1 does: {line:?}"
            );
        }
    }
    Ok(())
}

/// Functions with calls and bytes.
type Expected<'a> = &'a [(&'a str, u64, u64)];

fn sizes(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "functions")?;
    let mega = 1 << 20;
    let cases: [(&[&str], Expected); 3] = [
        (
            &["--min-size", "48", "--max-size", "48"],
            &[("malloc", 1000, 48000)],
        ),
        (
            &["--min-size", "20000000"],
            &[("malloc", 1, 40 * mega), ("realloc", 2, 96 * mega)],
        ),
        (
            &["--max-size", "0"],
            &[("malloc", 1, 0), ("calloc", 1, 0), ("realloc", 50, 0)],
        ),
    ];
    for (limits, expected) in cases {
        let recording = Memtap::record(context)?
            .arguments(limits)
            .fixture(&fixture)
            .run()?
            .whole()?;
        let expected: Counts = expected
            .iter()
            .map(|&(name, calls, bytes)| (name.to_owned(), Count { calls, bytes }))
            .collect();
        recording
            .has_functions(&expected)
            .with_context(|| limits.join(" "))?;
        let reported: Reported = recording.reported()?;
        let all: Count = reported.functions().values().copied().sum();
        let kept: Count = expected.values().copied().sum();
        let filtered = recording.summary()?.number("/events/filtered")?;
        ensure!(
            filtered >= all.calls - kept.calls,
            "{}: {filtered} filtered, of {} calls {} kept",
            limits.join(" "),
            all.calls,
            kept.calls
        );
    }
    Ok(())
}

fn rust_program(context: &Context) -> Result<()> {
    let fixture = Fixture::rust(context, "words")?;
    let (counts, alone) = shim_counts(context, fixture.command())?;
    let recording = Memtap::record(context)?.fixture(&fixture).run()?.whole()?;
    recording.has_functions(&counts)?;
    ensure!(
        recording.finished.stdout == alone.stdout,
        "the program's own output changed"
    );
    let folded = recording.folded()?;
    for name in ["make_words", "count_letters", "thread_work"] {
        let bytes = folded.weight_of(|line| line.passes(name));
        ensure!(bytes > 0, "no stack passes {name}:\n{}", folded.text);
    }
    ensure!(
        !folded.text.contains("_ZN") && !folded.text.contains("_RN"),
        "names are demangled:\n{}",
        folded.text
    );
    // 6,500 words of 11 bytes, each made once and cloned once.
    let words = folded.weight_of(|line| line.function == "malloc" && line.passes("count_letters"));
    ensure!(words >= 6_500 * 11, "{words} bytes are below count_letters");
    Ok(())
}
