//! The order of the tracer's modules, and cycles between the files of one directory.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::modules::{Mention, ModuleTree};
use super::source::{TextFile, Violation};

/// The crate whose layers are checked.
const ROOT: &str = "tracer/src/lib.rs";

/// Modules from the top down. One may use those of later rows; those of one row do not know each
/// other.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["top", "trace", "agent"],
    &["recorder"],
    &["probe_plan", "bpf", "symbolize"],
    &["process", "unwind"],
    &["elf"],
];

/// Results and their rendering, from the top down, for the modules of [`LAYERS`] down to
/// [`REPORTER`].
const REPORT: &[&str] = &["report", "profile"];

/// The lowest module that may use those of [`REPORT`].
const REPORTER: &str = "recorder";

/// Modules that every other may use, and that use none.
const LEAVES: &[&str] = &[
    "settings",
    "clock",
    "privileges",
    "signals",
    "output",
    "message",
    "numeric",
];

/// Checks the layers, then the directories, of the tracer.
pub(crate) fn check(files: &[TextFile]) -> Result<Vec<Violation>> {
    let modules = ModuleTree::read(ROOT, files)?;
    let mut violations = upward_uses(&modules);
    violations.extend(cycles(&modules));
    Ok(violations)
}

/// Uses that the order of layers does not permit, and modules that it does not know.
fn upward_uses(modules: &ModuleTree) -> Vec<Violation> {
    let mut violations: Vec<Violation> = modules
        .paths
        .iter()
        .filter(|path| path.len() == 1 && !is_known(&path[0]))
        .map(|path| Violation::new("xtask/src/lint/layers.rs", format!("{} is in no layer", path[0])))
        .collect();
    let mut seen = BTreeSet::new();
    for mention in &modules.mentions {
        let to = modules.module_of(&mention.to);
        if let (Some(from), Some(to)) = (mention.from.first(), to.first())
            && from != to
            && is_known(from)
            && is_known(to)
            && !may_use(from, to)
            && seen.insert((&mention.file, mention.line, to))
        {
            violations.push(Violation::at(
                &mention.file,
                mention.line,
                format!("{from} may not use {to}"),
            ));
        }
    }
    violations
}

fn is_known(module: &str) -> bool {
    layer(module).is_some() || REPORT.contains(&module) || LEAVES.contains(&module)
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// The order of layers: true where it permits a use.
fn may_use(from: &str, to: &str) -> bool {
    if LEAVES.contains(&from) {
        return false;
    }
    if LEAVES.contains(&to) {
        return true;
    }
    let report = |module: &str| REPORT.iter().position(|name| *name == module);
    match (layer(from), layer(to), report(from), report(to)) {
        (Some(from), Some(to), _, _) | (None, None, Some(from), Some(to)) => from < to,
        (Some(from), None, _, Some(_)) => layer(REPORTER).is_some_and(|lowest| from <= lowest),
        _ => false,
    }
}

/// Uses between siblings that close a circle, in each directory of modules. A child may use its
/// parent's items, and a parent its children's.
fn cycles(modules: &ModuleTree) -> Vec<Violation> {
    let mut directories: BTreeMap<&[String], Siblings> = BTreeMap::new();
    for mention in &modules.mentions {
        let to = modules.module_of(&mention.to);
        let common = mention
            .from
            .iter()
            .zip(to)
            .take_while(|(from, to)| from == to)
            .count();
        // The order of the crate's own modules is the layers'.
        if common > 0
            && let (Some(from), Some(to)) = (mention.from.get(common), to.get(common))
        {
            let siblings = directories.entry(&mention.from[..common]).or_default();
            siblings.entry(from).or_default().entry(to).or_insert(mention);
        }
    }
    let mut violations = Vec::new();
    for (directory, siblings) in &directories {
        for (from, uses) in siblings {
            for (to, mention) in uses {
                if let Some(way) = way(siblings, to, from) {
                    let directory = directory.join("::");
                    violations.push(Violation::at(
                        &mention.file,
                        mention.line,
                        format!(
                            "{from} may not use {to}: a cycle in {directory}: {from} → {}",
                            way.join(" → ")
                        ),
                    ));
                }
            }
        }
    }
    violations
}

/// By module, the siblings that it uses, each with the first mention.
type Siblings<'a> = BTreeMap<&'a str, BTreeMap<&'a str, &'a Mention>>;

/// The shortest way of uses from one sibling to another, both included.
fn way<'a>(siblings: &Siblings<'a>, from: &'a str, to: &'a str) -> Option<Vec<&'a str>> {
    let mut reached_from = BTreeMap::from([(from, from)]);
    let mut open = std::collections::VecDeque::from([from]);
    while let Some(module) = open.pop_front() {
        if module == to {
            let mut way = vec![to];
            let mut module = to;
            while module != from {
                module = reached_from[module];
                way.push(module);
            }
            way.reverse();
            return Some(way);
        }
        for next in siblings.get(module).into_iter().flat_map(BTreeMap::keys) {
            reached_from.entry(next).or_insert_with(|| {
                open.push_back(next);
                module
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::modules::tests::files;
    use super::*;

    fn violations(texts: &[(&str, &str)]) -> Vec<String> {
        let found = check(&files(texts)).expect("a crate");
        found
            .into_iter()
            .map(|violation| format!("{}: {}", violation.place, violation.message))
            .collect()
    }

    #[test]
    fn order_of_layers() {
        for (from, to) in [
            ("cli", "recorder"),
            ("cli", "profile"),
            ("top", "report"),
            ("recorder", "elf"),
            ("recorder", "report"),
            ("bpf", "unwind"),
            ("report", "profile"),
            ("elf", "clock"),
            ("profile", "clock"),
        ] {
            assert!(may_use(from, to), "{from} may use {to}");
            assert!(!may_use(to, from), "{to} may not use {from}");
        }
        for (from, to) in [
            ("bpf", "probe_plan"),
            ("symbolize", "profile"),
            ("report", "process"),
            ("clock", "settings"),
        ] {
            assert!(!may_use(from, to), "{from} may not use {to}");
        }
    }

    #[test]
    fn upward_use_is_found() {
        let found = violations(&[
            (
                "tracer/src/lib.rs",
                "mod bpf;\nmod cli;\nmod output;\nmod strange;\n",
            ),
            ("tracer/src/bpf.rs", "\nuse crate::cli::A;\n"),
            ("tracer/src/cli.rs", "use crate::{bpf::B, output};\n"),
            ("tracer/src/output.rs", "fn f() { crate::bpf::g() }\n"),
            ("tracer/src/strange.rs", ""),
        ]);
        assert_eq!(
            found,
            [
                "xtask/src/lint/layers.rs: strange is in no layer",
                "tracer/src/output.rs:1: output may not use bpf",
                "tracer/src/bpf.rs:2: bpf may not use cli",
            ]
        );
    }

    #[test]
    fn cycle_of_siblings_is_found() {
        let texts = [
            ("tracer/src/lib.rs", "mod bpf;\n"),
            ("tracer/src/bpf/mod.rs", "mod a;\nmod b;\nmod c;\npub struct P;\n"),
            ("tracer/src/bpf/a.rs", "use super::P;\nuse super::b::B;\n"),
            ("tracer/src/bpf/b.rs", "use crate::bpf::c;\n"),
            ("tracer/src/bpf/c.rs", ""),
        ];
        assert!(violations(&texts).is_empty());
        let mut circular = texts;
        circular[4].1 = "\nuse super::a::A;\n";
        assert_eq!(
            violations(&circular),
            [
                "tracer/src/bpf/a.rs:2: a may not use b: a cycle in bpf: a → b → c → a",
                "tracer/src/bpf/b.rs:1: b may not use c: a cycle in bpf: b → c → a → b",
                "tracer/src/bpf/c.rs:2: c may not use a: a cycle in bpf: c → a → b → c",
            ]
        );
    }
}
