//! The figures of docs/costs.md, made from those of a run.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::report;
use super::results::{Document, LoopLine, ProgramRow};
use super::versions;
use test_support::workspace;

const BEGIN: &str = "<!-- figures: made by `cargo xtask bench --readme FILE` -->";
const END: &str = "<!-- end of figures -->";

/// The depth that stands for all in the document.
const DEPTH: u32 = 20;

/// Writes the figures of a file between the two comments of docs/costs.md.
pub(crate) fn rewrite(file: &Path) -> Result<()> {
    let document = Document::read(file)?;
    let costs = workspace::root().join("docs/costs.md");
    let text = fs::read_to_string(&costs).with_context(|| format!("failed to read {}", costs.display()))?;
    let text = replace(&text, &section(&document))?;
    fs::write(&costs, text).with_context(|| format!("failed to write {}", costs.display()))?;
    eprintln!("xtask: wrote {}", costs.display());
    Ok(())
}

/// Puts `section` between the comments.
fn replace(text: &str, section: &str) -> Result<String> {
    let parts = text
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        parts.with_context(|| format!("failed to find {BEGIN} and {END} in docs/costs.md"))?;
    ensure!(
        !after.contains(BEGIN),
        "there is more than one {BEGIN} in docs/costs.md"
    );
    Ok(format!("{before}{BEGIN}\n{section}{END}{after}"))
}

/// Returns the part of a run that the document shows: one depth, rows with figures.
fn section(document: &Document) -> String {
    let machine = &document.machine;
    let mut parts = vec![format!(
        "Made by `{}` on Linux {}, {}, {} CPUs. {}\n",
        document.command,
        kernel_version(&machine.kernel),
        machine.processor,
        machine.cpus,
        versions::line(&document.versions)
    )];
    let mut add = |title: &str, table: String| parts.push(format!("{title}\n\n{table}"));
    let loops = shown(&document.loops);
    if !loops.is_empty() {
        add(
            &format!("Allocations traced, {DEPTH} frames deep: nanoseconds per malloc and free."),
            report::whole_tools(&loops),
        );
    }
    let live = shown(&document.live);
    if !live.is_empty() {
        add(
            &format!("Every block followed to its free, {DEPTH} frames deep."),
            report::whole_tools(&live),
        );
    }
    if !document.budget.is_empty() {
        let rows: Vec<_> = document
            .budget
            .iter()
            .filter(|row| row.kept.is_some())
            .cloned()
            .collect();
        add(
            "A running process that allocates a million times a second, and redis-server under redis-benchmark: what each keeps of \
             its throughput, per second of its CPU time. Over 100 % of the calls are those seen while a tool came and went, and \
             what estimates are off by.",
            report::throughput(&rows),
        );
    }
    if !document.programs.is_empty() {
        let measured = |row: &&ProgramRow| row.cpu_s.is_some();
        let rows: Vec<_> = document.programs.iter().filter(measured).cloned().collect();
        add(
            "Real programs: their own user and system time, and the time that passed.",
            report::programs_table(&rows),
        );
    }
    parts.join("\n")
}

/// The kernel's version without patch level and vendor: `6.18` of `6.18.44-vendor`.
fn kernel_version(release: &str) -> String {
    release.split(['.', '-']).take(2).collect::<Vec<_>>().join(".")
}

fn shown(lines: &[LoopLine]) -> Vec<LoopLine> {
    let shown = |line: &&LoopLine| line.depth == DEPTH && line.median_ns.is_some();
    lines.iter().filter(shown).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_the_comments() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = replace(&text, "new\n").expect("both comments");
        assert_eq!(new, format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert_eq!(replace(&new, "new\n").ok(), Some(new));
        assert!(replace("nothing", "new").is_err());
        assert!(replace(&format!("{END}{BEGIN}"), "new").is_err());
    }

    #[test]
    fn versions_of_kernels() {
        assert_eq!(kernel_version("6.18.44-vendor-1"), "6.18");
        assert_eq!(kernel_version("7.2-rc1"), "7.2");
    }

    #[test]
    fn the_document_has_its_comments() {
        let costs = include_str!("../../../docs/costs.md");
        assert!(replace(costs, "figures\n").is_ok());
    }
}
