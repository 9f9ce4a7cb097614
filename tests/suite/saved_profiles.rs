//! Saved profiles: what `memtap report` and `memtap diff` make of them, and what readers do that
//! are not memtap's.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Finished, Fixture, Memtap, MemtapRecording, Need, go_tool, run};

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("saved_profiles::tables", &[Need::Compiler], tables),
    case("saved_profiles::live_report", &[Need::Compiler], live_report),
    case("saved_profiles::outputs", &[Need::Compiler], outputs),
    case("saved_profiles::summary", &[Need::Compiler], summary),
    case("saved_profiles::filters", &[Need::Compiler], filters),
    case("saved_profiles::difference", &[Need::Compiler], difference),
    case(
        "saved_profiles::fail_if_growth",
        &[Need::Compiler],
        fail_if_growth,
    ),
    case("saved_profiles::wrong_files", &[Need::Compiler], wrong_files),
    case(
        "saved_profiles::pprof_totals",
        &[Need::Compiler, Need::Go],
        pprof_totals,
    ),
    case(
        "saved_profiles::pprof_inlines",
        &[Need::Compiler, Need::Binutils, Need::Go],
        pprof_inlines,
    ),
    case(
        "saved_profiles::pprof_difference",
        &[Need::Compiler, Need::Go],
        pprof_difference,
    ),
    case(
        "saved_profiles::changed_by_pprof",
        &[Need::Compiler, Need::Go],
        changed_by_pprof,
    ),
    case("saved_profiles::protoc", &[Need::Compiler, Need::Protoc], protoc),
    case("saved_profiles::go_heap", &[Need::Go], go_heap),
    case("saved_profiles::tcmalloc_heap", &[Need::Go], tcmalloc_heap),
];

/// The metrics of a recording with `--live`.
const METRICS: [&str; 7] = [
    "alloc-bytes",
    "alloc-count",
    "live-bytes",
    "live-count",
    "freed-bytes",
    "temporary-count",
    "peak-bytes",
];

/// Files of formats that show a profile to a person.
const SHOWN: [&str; 3] = ["a.svg", "a.html", "a.speedscope.json"];

/// A recording that has left `saved.pb.gz` in its directory.
struct SavedRecording(MemtapRecording);

impl SavedRecording {
    /// Records a fixture with these options.
    fn of(context: &Context, options: &[&str], command: &[&OsStr]) -> Result<Self> {
        let recording = Memtap::bare(context)?
            .arguments(["record", "--summary", "summary.json", "-o", "saved.pb.gz"])
            .arguments(options)
            .command(command)
            .run()?
            .ended_with(0)?;
        Ok(Self(recording))
    }

    fn path(&self) -> PathBuf {
        self.0.directory().join("saved.pb.gz")
    }

    /// `memtap report` of it, as a user without rights.
    fn report(&self, context: &Context, options: &[&str]) -> Result<MemtapRecording> {
        report(context, &self.path(), options)
    }

    /// A figure of the summary.
    fn number(&self, pointer: &str) -> Result<u64> {
        self.0.summary()?.number(pointer)
    }
}

/// `memtap report FILE`, as a user without rights.
fn report(context: &Context, file: &Path, options: &[&str]) -> Result<MemtapRecording> {
    let memtap = Memtap::bare(context)?.unprivileged();
    // The directory of another run is closed to that user.
    std::fs::copy(file, memtap.directory().join("given.pb.gz"))
        .with_context(|| format!("failed to copy {}", file.display()))?;
    memtap
        .arguments(["report", "given.pb.gz"])
        .arguments(options)
        .run()
}

/// A file that a run has written.
fn written(recording: &MemtapRecording, name: &str) -> Result<String> {
    let path = recording.directory().join(name);
    std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

/// Debian's pprof, in the directory of the profile.
fn pprof(arguments: &[&str], file: &Path) -> Result<Finished> {
    let mut command = Command::new(go_tool("pprof").context("no pprof")?);
    command.args(arguments).arg(file);
    command.env("PPROF_TMPDIR", file.parent().context("a file in no directory")?);
    run(command)?.succeeded()
}

/// The total of a sample type by pprof, in its unit.
fn pprof_total(sample_type: &str, file: &Path) -> Result<u64> {
    let index = format!("-sample_index={sample_type}");
    let shown = pprof(&["-top", "-unit=B", "-nodefraction=0", &index], file)?.stdout;
    let line = shown.lines().find(|line| line.starts_with("Showing nodes"));
    line.and_then(|line| line.rsplit_once(" of "))
        .and_then(|(_, rest)| rest.strip_suffix(" total"))
        .and_then(|total| total.trim_end_matches('B').parse().ok())
        .with_context(|| format!("no total in {shown}"))
}

fn equal(what: &str, report: &str, recorded: &str) -> Result<()> {
    ensure!(
        report == recorded,
        "{what} of the saved profile differs\n--- recorded\n{recorded}\n--- reported\n{report}"
    );
    Ok(())
}

/// The table is the recording's, byte for byte.
fn tables(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "functions")?;
    for options in [
        &[][..],
        &["--live"],
        &["--live", "--metric", "temporary-count", "--top", "3"],
        &["--events", "heap,region", "--per-pid"],
        &["--sample", "4k"],
        &["--events", "region"],
    ] {
        let options = [options, &["--table"]].concat();
        let saved = SavedRecording::of(context, &options, &[fixture.path.as_os_str()])?;
        let table = saved.report(context, &[])?.ended_with(0)?.finished.stdout;
        // The fixture's own account is before it.
        let recorded = &saved.0.finished.stdout;
        ensure!(
            table.lines().count() > 3 && recorded.ends_with(&table),
            "{options:?}: the table differs\n--- recorded\n{recorded}\n--- reported\n{table}"
        );
    }
    Ok(())
}

/// So is the report on live blocks, and other tables can be made of the same file.
fn live_report(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "holding")?;
    let run = Memtap::bare(context)?
        .arguments(["live", "-d", "2s", "-o", "saved.pb.gz", "--older-than", "500ms"])
        .command([fixture.path.as_os_str(), "3".as_ref()])
        .run()?
        .ended_with(0)?;
    let saved = SavedRecording(run);
    let table = saved.report(context, &[])?.ended_with(0)?.finished.stdout;
    ensure!(table.contains("SCORE"), "{table}");
    equal("the report on live blocks", &table, &saved.0.finished.stdout)?;
    let by_bytes = saved.report(context, &["--metric", "alloc-bytes"])?;
    let table = by_bytes.ended_with(0)?.finished.stdout;
    ensure!(table.contains("CALLS") && !table.contains("SCORE"), "{table}");
    Ok(())
}

/// Every output of the saved profile is the recording's.
fn outputs(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "inlined")?;
    let named: Vec<String> = METRICS
        .iter()
        .map(|metric| format!("{metric}={metric}.folded"))
        .collect();
    let mut options = vec!["--live"];
    for name in SHOWN {
        options.extend(["-o", name]);
    }
    options.extend(named.iter().flat_map(|it| ["-o", it]));
    let saved = SavedRecording::of(context, &options, &[fixture.path.as_os_str()])?;
    options.remove(0);
    options.extend(["-o", "again.pb.gz"]);
    let again = saved.report(context, &options)?.ended_with(0)?;
    for metric in METRICS {
        let name = format!("{metric}.folded");
        let text = written(&again, &name)?;
        // A program that is over in a moment may have no snapshot near its peak.
        ensure!(!text.is_empty() || metric == "peak-bytes", "{name} is empty");
        equal(&name, &text, &written(&saved.0, &name)?)?;
    }
    for name in SHOWN {
        equal(name, &written(&again, name)?, &written(&saved.0, name)?)?;
    }
    ensure!(
        std::fs::read(again.directory().join("again.pb.gz"))? == std::fs::read(saved.path())?,
        "the profile that was written again is another file"
    );
    Ok(())
}

fn summary(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "functions")?;
    for options in [&["--live"][..], &["--sample", "4k"], &["--events", "heap,region"]] {
        let saved = SavedRecording::of(context, options, &[fixture.path.as_os_str()])?;
        let again = saved
            .report(context, &["--summary", "again.json"])?
            .ended_with(0)?;
        equal(
            "the summary",
            &written(&again, "again.json")?,
            &written(&saved.0, "summary.json")?,
        )?;
    }
    let saved = SavedRecording::of(context, &[], &[fixture.path.as_os_str()])?;
    saved
        .report(context, &["--summary", "a.json", "--focus", "parse"])?
        .refused(1, &["--summary", "filters"])?;
    Ok(())
}

/// Stacks that pass a function, and those that do not, are the whole.
fn filters(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "functions")?;
    let saved = SavedRecording::of(context, &[], &[fixture.path.as_os_str()])?;
    let folded = |options: &[&str]| -> Result<Vec<String>> {
        let options = [options, &["-o", "-", "-q"]].concat();
        let text = saved.report(context, &options)?.ended_with(0)?.finished.stdout;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let all = folded(&[])?;
    let passing: Vec<String> = all.iter().filter(|it| it.contains(";parse;")).cloned().collect();
    ensure!(!passing.is_empty() && passing.len() < all.len(), "{all:?}");
    let focused = folded(&["--focus", "^parse$"])?;
    ensure!(focused == passing, "{focused:?} instead of {passing:?}");
    let mut both = folded(&["--ignore", "^parse$"])?;
    both.extend(focused);
    both.sort();
    ensure!(both == all, "{both:?} instead of {all:?}");
    let calloc = folded(&["--function", "calloc"])?;
    let expected: Vec<&String> = all.iter().filter(|it| it.contains(";calloc ")).collect();
    ensure!(calloc.iter().collect::<Vec<_>>() == expected, "{calloc:?}");
    ensure!(folded(&["--comm", "functions"])? == all, "all are of that name");
    ensure!(folded(&["--pid", "1"])?.is_empty(), "none is of that process");
    ensure!(
        folded(&["--min-percent", "101"]).is_err(),
        "no stack can weigh as much"
    );
    let heavy = folded(&["--min-percent", "20"])?;
    ensure!(!heavy.is_empty() && heavy.len() < all.len(), "{heavy:?}");
    Ok(())
}

/// Two recordings of a program that keeps more the second time.
fn pair(context: &Context) -> Result<[SavedRecording; 2]> {
    let fixture = Fixture::c(context, "inlined")?;
    let record =
        |count: &str| SavedRecording::of(context, &["--live"], &[fixture.path.as_os_str(), count.as_ref()]);
    Ok([record("10")?, record("30")?])
}

fn diff(context: &Context, files: [&Path; 2], options: &[&str]) -> Result<MemtapRecording> {
    let memtap = Memtap::bare(context)?.unprivileged();
    for (file, name) in files.iter().zip(["before.pb.gz", "after.pb.gz"]) {
        std::fs::copy(file, memtap.directory().join(name))?;
    }
    memtap
        .arguments(["diff", "before.pb.gz", "after.pb.gz"])
        .arguments(options)
        .run()
}

fn difference(context: &Context) -> Result<()> {
    let [before, after] = pair(context)?;
    let (before, after) = (before.path(), after.path());
    let outputs = ["-o", "live-bytes=a.folded", "-o", "a.svg"];
    let run = diff(context, [&before, &after], &outputs)?.ended_with(0)?;
    let folded = written(&run, "a.folded")?;
    ensure!(folded.contains(";keep_block;grow;malloc 640 1920\n"), "{folded}");
    ensure!(
        written(&run, "a.svg")?.contains("keep_block"),
        "the picture has no keep_block"
    );
    let table = diff(context, [&before, &after], &["--metric", "live-bytes"])?.ended_with(0)?;
    let table = table.finished.stdout;
    ensure!(
        table.contains("+1.3 KiB") && table.contains("malloc ← grow ← keep_block"),
        "{table}"
    );
    let functions = diff(context, [&before, &after], &["--by", "function"])?.ended_with(0)?;
    ensure!(
        functions.finished.stdout.contains("give_back (inlined.c)"),
        "{}",
        functions.finished.stdout
    );
    diff(context, [&before, &after], &["--normalize"])?.ended_with(0)?;

    let outputs = ["-o", "a.folded", "-o", "a.svg"];
    let same = diff(context, [&after, &after], &outputs)?.ended_with(0)?;
    ensure!(
        written(&same, "a.folded")?.is_empty(),
        "something changed from a profile to itself"
    );
    ensure!(
        written(&same, "a.svg")?.contains("nothing changed"),
        "the picture has something"
    );
    let same = diff(context, [&after, &after], &[])?
        .ended_with(0)?
        .finished
        .stdout;
    ensure!(same.ends_with("\nnothing changed\n"), "{same}");
    Ok(())
}

fn fail_if_growth(context: &Context) -> Result<()> {
    let [before, after] = pair(context)?;
    let (before, after) = (before.path(), after.path());
    let check = |files, most: &str| {
        diff(
            context,
            files,
            &["--metric", "live-bytes", "--fail-if-growth", most],
        )
    };
    let grew = check([&before, &after], "1279")?.ended_with(4)?;
    let said = &grew.finished.stderr;
    ensure!(
        said.contains("grew by 1.3 KiB") && said.contains("keep_block"),
        "{said}"
    );
    check([&before, &after], "1280")?.ended_with(0)?;
    check([&after, &before], "0")?.ended_with(0)?;
    Ok(())
}

/// One line each, with what to do.
fn wrong_files(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "quick")?;
    let saved = SavedRecording::of(context, &[], &[fixture.path.as_os_str()])?;
    let bytes = std::fs::read(saved.path())?;
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    for (content, words) in [
        (&b""[..], &["empty", "record again"][..]),
        (b"a;b;malloc 3\n", &["no pprof profile", "text", "record -o"]),
        (b"{}", &["no pprof profile", "json"]),
        (&bytes[..middle], &["ends early"]),
        (&flipped, &["given.pb.gz", "again"]),
    ] {
        let file = saved.0.directory().join("wrong");
        std::fs::write(&file, content)?;
        report(context, &file, &[])?.refused(1, words)?;
    }
    Memtap::bare(context)?
        .arguments(["report", "nowhere.pb.gz"])
        .run()?
        .refused(1, &["failed to open nowhere.pb.gz"])?;
    saved
        .report(context, &["--metric", "live-bytes"])?
        .refused(1, &["no live-bytes", "alloc-bytes"])?;
    saved
        .report(context, &["--focus", "("])?
        .refused(2, &["--focus", "unclosed group"])?;
    Ok(())
}

/// pprof adds up the figures that the summary has.
fn pprof_totals(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "functions")?;
    let saved = SavedRecording::of(
        context,
        &["--live", "--events", "heap,region"],
        &[fixture.path.as_os_str()],
    )?;
    let calls: u64 = saved.0.summary()?.functions()?.values().map(|it| it.calls).sum();
    for (sample_type, total) in [
        ("alloc_objects", calls),
        ("alloc_space", saved.number("/totals/alloc/bytes")?),
        ("inuse_objects", saved.number("/totals/live/count")?),
        ("inuse_space", saved.number("/totals/live/bytes")?),
        ("peak_space", saved.number("/totals/peak/by_stack_bytes")?),
        ("freed_objects", saved.number("/totals/freed/count")?),
        ("freed_space", saved.number("/totals/freed/bytes")?),
        ("temporary_objects", saved.number("/totals/temporary/count")?),
    ] {
        let found = pprof_total(sample_type, &saved.path())?;
        ensure!(
            found == total,
            "{sample_type}: pprof has {found}, the summary {total}"
        );
    }
    let regions = saved.0.summary()?.regions()?;
    let calls: u64 = regions.values().map(|it| it.calls).sum();
    let found = pprof_total("region_calls", &saved.path())?;
    ensure!(
        found == calls,
        "region_calls: pprof has {found}, the summary {calls}"
    );
    // Neither memtap's own comment nor anything else stands before the rows.
    let top = pprof(&["-top"], &saved.path())?.stdout;
    ensure!(
        top.contains("Type: alloc_space") && !top.contains("memtap.profile"),
        "{top}"
    );
    Ok(())
}

/// pprof shows inlined functions, lines, build ids and labels.
fn pprof_inlines(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "inlined")?;
    let saved = SavedRecording::of(context, &[], &[fixture.path.as_os_str()])?;
    let top = pprof(&["-top"], &saved.path())?.stdout;
    ensure!(top.contains("grow (inline)"), "{top}");
    let raw = pprof(&["-raw"], &saved.path())?.stdout;
    let mut notes = Command::new("readelf");
    notes.arg("-n").arg(&fixture.path);
    let notes = run(notes)?.succeeded()?.stdout;
    let build_id = notes
        .lines()
        .find_map(|line| line.trim().strip_prefix("Build ID: "))
        .with_context(|| format!("no build id in {notes}"))?;
    let path = fixture.path.display().to_string();
    let mapping = raw
        .lines()
        .find(|line| line.starts_with("1: "))
        .unwrap_or_default();
    ensure!(
        mapping.contains(&path) && mapping.contains(&format!("{build_id} [FN][FL][LN][IN]")),
        "the first mapping is {mapping:?}"
    );
    ensure!(
        raw.contains("function:[malloc]") && raw.contains("comm:[inlined]"),
        "{raw}"
    );
    let lines = pprof(&["-top", "-lines"], &saved.path())?.stdout;
    ensure!(lines.contains("inlined.c:6"), "{lines}");
    let malloc = pprof(&["-top", "-tagfocus=function=malloc"], &saved.path())?.stdout;
    ensure!(malloc.contains("keep_block"), "{malloc}");
    let others = pprof(&["-raw", "-tagfocus=function=calloc"], &saved.path())?.stdout;
    ensure!(!others.contains("comm:[inlined]"), "{others}");
    Ok(())
}

/// pprof's difference of two profiles is memtap's.
fn pprof_difference(context: &Context) -> Result<()> {
    let [before, after] = pair(context)?;
    let (before, after) = (before.path(), after.path());
    let base = format!("-diff_base={}", before.display());
    let theirs = pprof(&["-top", "-unit=B", "-sample_index=inuse_space", &base], &after)?.stdout;
    ensure!(theirs.contains("1280B"), "{theirs}");
    let outputs = ["-o", "live-bytes=d.pb.gz"];
    let run = diff(context, [&before, &after], &outputs)?.ended_with(0)?;
    let ours = pprof(&["-top", "-unit=B"], &run.directory().join("d.pb.gz"))?.stdout;
    ensure!(
        ours.contains("Type: inuse_space") && ours.contains("1280B"),
        "{ours}"
    );
    let run = diff(context, [&after, &before], &outputs)?.ended_with(0)?;
    let file = run.directory().join("d.pb.gz");
    let ours = pprof(&["-top", "-unit=B"], &file)?.stdout;
    ensure!(ours.contains("-1280B"), "{ours}");
    report(context, &file, &[])?.refused(1, &["difference of two profiles", "memtap diff"])?;
    let run = diff(context, [&after, &after], &outputs)?.ended_with(0)?;
    let raw = pprof(&["-raw"], &run.directory().join("d.pb.gz"))?.stdout;
    let samples = raw
        .lines()
        .skip_while(|line| *line != "Samples:")
        .take_while(|line| *line != "Locations");
    ensure!(samples.count() == 2, "there are samples: {raw}");
    Ok(())
}

/// A profile that pprof has written anew is another program's, with the same figures.
fn changed_by_pprof(context: &Context) -> Result<()> {
    let [before, after] = pair(context)?;
    let file = before.0.directory().join("merged.pb.gz");
    let output = format!("-output={}", file.display());
    let mut command = Command::new(go_tool("pprof").context("no pprof")?);
    command
        .args(["-proto", &output])
        .args([before.path(), after.path()]);
    run(command)?.succeeded()?;
    let table = report(context, &file, &["--metric", "live-bytes"])?.ended_with(0)?;
    let said = &table.finished.stderr;
    ensure!(said.contains("another program has changed it"), "{said}");
    let folded = report(context, &file, &["-q", "-o", "live-bytes=-"])?.ended_with(0)?;
    ensure!(
        folded
            .finished
            .stdout
            .contains("main;keep_block;grow;malloc 2560\n"),
        "{}",
        folded.finished.stdout
    );
    Ok(())
}

/// The messages are those of pprof's own description of them: nothing is unknown to it.
fn protoc(context: &Context) -> Result<()> {
    const PROTO: &str = "/usr/share/gocode/src/github.com/google/pprof/proto";
    let fixture = Fixture::c(context, "inlined")?;
    let saved = SavedRecording::of(context, &["--live"], &[fixture.path.as_os_str()])?;
    let script = format!(
        "gzip -dc {} | protoc --proto_path={PROTO} --decode=perftools.profiles.Profile profile.proto",
        saved.path().display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    let text = run(command)?.succeeded()?.stdout;
    for field in [
        "sample_type",
        "sample",
        "mapping",
        "location",
        "function",
        "period_type",
    ] {
        ensure!(
            text.lines().any(|line| line == format!("{field} {{")),
            "no {field}"
        );
    }
    let is_unknown = |line: &&str| line.trim_start().starts_with(|it: char| it.is_ascii_digit());
    ensure!(text.lines().find(is_unknown).is_none(), "fields are unknown");
    ensure!(text.contains("string_table: \"grow\""), "no name");
    Ok(())
}

/// A heap profile that a Go program has written of itself, compressed and not.
fn go_heap(context: &Context) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/go/heap.go");
    let program = directory.path().join("heap");
    let mut build = Command::new(go_tool("go").context("no go")?);
    build
        .args(["build", "-o"])
        .args([&program, &source])
        .env("GOCACHE", directory.path().join("cache"))
        .env("GO111MODULE", "off")
        .env("CGO_ENABLED", "0");
    run(build)?.succeeded()?;
    let file = directory.path().join("heap.pb.gz");
    let mut program = Command::new(program);
    program.arg(&file);
    run(program)?.succeeded()?;
    let plain = directory.path().join("heap.pb");
    let mut unpack = Command::new("sh");
    unpack
        .arg("-c")
        .arg(format!("gzip -dc {} > {}", file.display(), plain.display()));
    run(unpack)?.succeeded()?;

    for (sample_type, metric) in [
        ("alloc_objects", "alloc-count"),
        ("alloc_space", "alloc-bytes"),
        ("inuse_objects", "live-count"),
        ("inuse_space", "live-bytes"),
    ] {
        let total = pprof_total(sample_type, &file)?;
        for file in [&file, &plain] {
            let output = format!("{metric}=-");
            let folded = report(context, file, &["-o", &output])?
                .ended_with(0)?
                .finished
                .stdout;
            let weights = folded.lines().filter_map(|line| line.rsplit_once(' '));
            let sum: u64 = weights.map(|(_, weight)| weight.parse().unwrap_or(0)).sum();
            ensure!(sum == total, "{metric}: {sum}, pprof has {total}:\n{folded}");
            ensure!(
                folded.contains("main.main;main.keepBlocks;[allocation] "),
                "{folded}"
            );
        }
    }
    let table = report(context, &file, &[])?.ended_with(0)?.finished.stdout;
    ensure!(
        table.contains("main.keepBlocks (heap.go:") && !table.contains("lost"),
        "{table}"
    );
    let shown = report(context, &file, &["-o", "a.html", "-o", "a.speedscope.json"])?.ended_with(0)?;
    ensure!(
        written(&shown, "a.html")?.contains("its losses are not known"),
        "the page does not say that another program recorded it"
    );
    ensure!(
        written(&shown, "a.speedscope.json")?.contains("main.keepBlocks"),
        "no names"
    );
    report(context, &file, &["--metric", "peak-bytes"])?.refused(1, &["no peak-bytes", "live-bytes"])?;
    report(context, &file, &["--summary", "a.json"])?.refused(1, &["--summary", "did not record it"])?;
    Ok(())
}

/// A heap profile in tcmalloc's text, which jemalloc's tools write too, made one of pprof's.
fn tcmalloc_heap(context: &Context) -> Result<()> {
    const TEXT: &str = "heap profile:      3:     4096 [      7:    65536] @ heapprofile\n  \
        1:     1024 [      2:     2048] @ 0x401000 0x402000\n  \
        2:     3072 [      5:    63488] @ 0x403000 0x402000\n\nMAPPED_LIBRARIES:\n\
        00400000-00500000 r-xp 00000000 00:00 0 /usr/bin/nowhere\n";
    let directory = tempfile::tempdir()?;
    let text = directory.path().join("heap.txt");
    std::fs::write(&text, TEXT)?;
    report(context, &text, &[])?.refused(1, &["tcmalloc", "pprof -proto"])?;
    let file = directory.path().join("heap.pb.gz");
    let output = format!("-output={}", file.display());
    pprof(&["-proto", "-symbolize=none", &output], &text)?;
    for (metric, sum) in [("live-bytes", 4096), ("alloc-bytes", 65536), ("alloc-count", 7)] {
        let output = format!("{metric}=-");
        let run = report(context, &file, &["-o", &output])?.ended_with(0)?;
        let weights = run
            .finished
            .stdout
            .lines()
            .filter_map(|line| line.rsplit_once(' '));
        let found: u64 = weights.map(|(_, weight)| weight.parse().unwrap_or(0)).sum();
        ensure!(found == sum, "{metric}: {found} instead of {sum}");
        ensure!(
            run.finished.stdout.contains(";[nowhere+0x"),
            "{}",
            run.finished.stdout
        );
    }
    Ok(())
}
