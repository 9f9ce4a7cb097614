//! Programs as the distribution ships them, under memtap and under the shim.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{ARMS, Context, HeapFigures, Memtap, Need, Recipe, shim_images};

use super::compare::command;
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("live::sqlite", &[Need::Compiler, Need::Sqlite], sqlite),
    case("live::perl", &[Need::Compiler, Need::Perl], perl),
    case("live::git_log", &[Need::Compiler, Need::Git], git_log),
    case("live::compiler", &[Need::Compiler], compiler),
    case("live::python", &[Need::Compiler, Need::Python], python),
];

/// Bytes by which two runs of a program differ of themselves, and figures that then tell nothing.
#[derive(Default)]
pub(super) struct Leeway {
    bytes: u64,
    without: &'static [&'static str],
}

/// A thousandth: two runs of a program differ in its environment, and in addresses that are hashed.
const THOUSANDTHS: u64 = 1;

/// The program does the same under both, and memtap's figures are the shim's.
pub(super) fn agrees(
    context: &Context,
    words: &[&str],
    environment: &[(&str, &str)],
    leeway: &Leeway,
) -> Result<()> {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    let mut alone = command(&words)?;
    alone.envs(environment.iter().copied());
    let (images, alone) = shim_images(context, alone)?;
    ensure!(
        alone.code() == 0,
        "it ended with {} behind the shim",
        alone.code()
    );
    ensure!(images.len() == 1, "{} images instead of one", images.len());
    let shim = &images[0].figures;
    ensure!(
        shim.get("alloc/count") > 10_000,
        "no workload: {} allocations",
        shim.get("alloc/count")
    );
    for arm in ARMS {
        let agrees = arm_agrees(context, &words, environment, leeway, (shim, &alone.stdout), arm);
        agrees.with_context(|| format!("--probes {arm}"))?;
    }
    Ok(())
}

/// The same with this `--probes`. `behind`: the figures and the output behind the shim.
fn arm_agrees(
    context: &Context,
    words: &[OsString],
    environment: &[(&str, &str)],
    leeway: &Leeway,
    behind: (&HeapFigures, &str),
    arm: &str,
) -> Result<()> {
    let (shim, stdout) = behind;
    let mut memtap = Memtap::record(context)?
        .arguments(["--live", "--probes", arm])
        .command(words);
    // Programs copy their environment: it is as large as behind the shim.
    let library = Recipe::live_c("shim").shared().build(context)?.path;
    let file = tempfile::tempdir()?.path().join("images");
    for (name, path) in [("LD_PRELOAX", library), ("LIVE_SHIM_FILE", file)] {
        memtap = memtap.environment(name, path.to_str().context("not a plain path")?);
    }
    for (name, value) in environment {
        memtap = memtap.environment(name, value);
    }
    let recording = memtap.run()?.whole()?;
    ensure!(recording.finished.stdout == stdout, "its output is another");
    let totals = HeapFigures::parse(&recording.summary()?.json["totals"])?;
    let expected = shim.clone().without(leeway.without);
    let mut totals = totals.without(leeway.without);
    for block in ["functions/calloc", "alloc", "live", "peak"] {
        let path = format!("{block}/bytes");
        if expected.get(&path).abs_diff(totals.get(&path)) <= leeway.bytes {
            totals.set(&path, expected.get(&path));
        }
    }
    if let Some(difference) = HeapFigures::difference_beyond(&expected, &totals, THOUSANDTHS) {
        anyhow::bail!("the shim (expected) and memtap (found):\n{difference}");
    }
    Ok(())
}

fn sqlite(context: &Context) -> Result<()> {
    let script = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n INT); \
                  WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 40000) \
                  INSERT INTO t SELECT x, 'name ' || (x * 7919 % 10007), x % 97 FROM c; \
                  CREATE INDEX i ON t(name); \
                  SELECT n, count(*), group_concat(name) FROM t GROUP BY n; \
                  SELECT max(length(name || hex(name))) FROM t WHERE name LIKE '%9%' ORDER BY name;";
    agrees(context, &["sqlite3", ":memory:", script], &[], &Leeway::default())
}

fn perl(context: &Context) -> Result<()> {
    let script = "my %h; for my $i (1 .. 20000) { push @{$h{$i % 777}}, \"item $i\" x ($i % 9) } \
                  my $n = 0; for my $k (sort keys %h) { $n += length join ',', sort @{$h{$k}} } print \"$n\\n\"";
    agrees(
        context,
        &["perl", "-e", script],
        &[("PERL_HASH_SEED", "0")],
        &Leeway::default(),
    )
}

fn git_log(context: &Context) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().to_str().context("not a plain path")?;
    let environment = [
        ("HOME", path),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_PAGER", ""),
        ("GIT_OPTIONAL_LOCKS", "0"),
    ];
    for (arguments, input) in [
        (&["init", "-q"][..], String::new()),
        (&["fast-import", "--quiet"][..], history()),
    ] {
        let mut git = Command::new("git")
            .arg("-C")
            .arg(path)
            .args(arguments)
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        git.stdin
            .take()
            .context("no standard input")?
            .write_all(input.as_bytes())?;
        ensure!(git.wait()?.success(), "git {} failed", arguments.join(" "));
    }
    let words = ["git", "-C", path, "log", "--stat", "-p", "refs/heads/main"];
    agrees(context, &words, &environment, &Leeway::default())
}

/// 300 commits that each change some lines of one of ten files, for `git fast-import`.
fn history() -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for commit in 0..300 {
        let mut content = String::new();
        for line in 0..200 {
            let changed = if line % 40 == commit % 40 { commit } else { 0 };
            let written = writeln!(content, "line {line} {changed}");
            debug_assert!(written.is_ok(), "a String takes whatever is written to it");
        }
        let written = write!(
            text,
            "commit refs/heads/main\ncommitter A U Thor <author@example.org> {} +0000\ndata 7\nchange\n\n\
             M 644 inline file-{}.txt\ndata {}\n{content}\n",
            1_700_000_000 + commit,
            commit % 10,
            content.len()
        );
        debug_assert!(written.is_ok(), "a String takes whatever is written to it");
    }
    text
}

/// The compiler proper, without the driver that starts it.
fn compiler(context: &Context) -> Result<()> {
    let asked = Command::new("cc").arg("-print-prog-name=cc1").output()?;
    let cc1 = String::from_utf8(asked.stdout)?.trim().to_owned();
    ensure!(cc1.starts_with('/'), "cc has no cc1 of its own");
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("preprocessed.i");
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/live/family.c");
    let preprocessed = Command::new("cc")
        .args(["-E", fixture, "-o"])
        .arg(&source)
        .status()?;
    ensure!(preprocessed.success(), "{fixture} is not preprocessed");
    let source = source.to_str().context("not a plain path")?;
    let arguments = ["-fpreprocessed", "-quiet", "-O2", source, "-o", "-"];
    // Its garbage collector asks for pages by callocs of 32 KiB, one more or less by where they
    // come to lie; its peak is at one of two moments that are almost as high.
    let leeway = Leeway {
        bytes: 2 * 32768,
        without: &["peak/count"],
    };
    agrees(context, &[&[cc1.as_str()], &arguments[..]].concat(), &[], &leeway)
}

/// With malloc for all objects.
fn python(context: &Context) -> Result<()> {
    let script = "import json, collections; d = collections.OrderedDict((str(i), [i] * (i % 7)) for i in range(4000)); \
                  t = json.dumps(d); print(len(t), sum(len(v) for v in json.loads(t).values()))";
    let environment = [
        ("PYTHONMALLOC", "malloc"),
        ("PYTHONHASHSEED", "0"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ];
    agrees(
        context,
        &["/usr/bin/python3", "-S", "-c", script],
        &environment,
        &Leeway::default(),
    )
}
