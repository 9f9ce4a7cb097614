//! Tables on a terminal: each row begins with a function of the program's own code, and no line is
//! wider than the terminal.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Need, run};
use test_support::workspace;

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case(
        "terminal_tables::own_code",
        &[Need::Rustc, Need::Namespaces],
        own_code,
    ),
    case(
        "terminal_tables::groups",
        &[Need::Rustc, Need::Namespaces],
        groups,
    ),
    case("terminal_tables::ascii", &[Need::Rustc, Need::Namespaces], ascii),
];

/// The frames of this crate are the workload's own.
const OWN: &str = "word_index::";

/// The demo's workload, compiled as the demo does.
fn workload(context: &Context) -> Result<PathBuf> {
    let binary = context.work.join("word-index");
    let mut rustc = workspace::rustc();
    rustc
        .args([
            "--edition",
            "2024",
            "-O",
            "-g",
            "-C",
            "force-frame-pointers=yes",
            "-o",
        ])
        .arg(&binary)
        .arg("xtask/demo/word_index.rs");
    run(rustc)?.succeeded()?;
    Ok(binary)
}

/// Records the workload on a terminal of so many columns. Returns what is printed, without styles.
fn print(context: &Context, columns: usize, options: &str, locale: &str) -> Result<String> {
    let record = format!(
        "stty rows 60 cols {columns}; LC_ALL={locale} {} record -q {options} -- {}",
        context.memtap.display(),
        workload(context)?.display()
    );
    let mut command: Command = context.privileged("script");
    command.args(["-qec", &record, "/dev/null"]);
    let finished = run(command)?.succeeded()?;
    let mut text = finished.stdout.replace('\r', "");
    for style in ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m"] {
        text = text.replace(style, "");
    }
    Ok(text)
}

/// The lines of the first table: from its header to the empty line.
fn rows<'a>(text: &'a str, header: &str) -> Result<Vec<&'a str>> {
    let mut lines = text
        .lines()
        .skip_while(|line| !(line.contains("SHARE") && line.ends_with(header)));
    lines.next().with_context(|| format!("no table: {text}"))?;
    Ok(lines.take_while(|line| !line.is_empty()).collect())
}

/// Widths of terminals that people have.
const WIDTHS: [usize; 2] = [80, 120];

fn own_code(context: &Context) -> Result<()> {
    for columns in WIDTHS {
        let text = print(context, columns, "--top 10", "C.UTF-8")?;
        let lines = rows(&text, "SITE")?;
        let firsts: Vec<&&str> = lines
            .iter()
            .filter(|line| !line.starts_with("      ←") && !line.starts_with('…'))
            .collect();
        ensure!(firsts.len() == 10, "{} rows:\n{text}", firsts.len());
        for line in firsts {
            ensure!(
                line.contains(OWN),
                "{line:?} names no function of the program:\n{text}"
            );
        }
        let has_callers = lines.iter().any(|line| line.starts_with("      ← "));
        ensure!(has_callers, "no callers:\n{text}");
        for line in text.lines() {
            let width = line.chars().count();
            ensure!(width <= columns, "{width} columns of {columns}: {line}");
        }
    }
    Ok(())
}

fn groups(context: &Context) -> Result<()> {
    let text = print(context, 120, "--by function --top 5 --sort cum", "C.UTF-8")?;
    let lines = rows(&text, "FUNCTION")?;
    ensure!(text.contains("CUM SHARE"), "{text}");
    ensure!(
        lines.iter().any(|line| line.ends_with("word_index::main")),
        "main is not among what calls the most:\n{text}"
    );
    let text = print(context, 120, "--tree callers --min-percent 5", "C.UTF-8")?;
    let lines = rows(&text, "CALLERS")?;
    ensure!(lines[0].contains(OWN), "the first branch is no site:\n{text}");
    ensure!(
        lines.iter().any(|line| line.ends_with("← word_index::main")),
        "no caller is main:\n{text}"
    );
    let text = print(
        context,
        120,
        "--hide score_documents --top 3 --stacks site",
        "C.UTF-8",
    )?;
    ensure!(
        !text.contains("score_documents"),
        "a hidden function is a site:\n{text}"
    );
    Ok(())
}

fn ascii(context: &Context) -> Result<()> {
    let text = print(context, 100, "--top 3", "C")?;
    ensure!(text.is_ascii(), "{text}");
    ensure!(text.contains(" -> "), "{text}");
    Ok(())
}
