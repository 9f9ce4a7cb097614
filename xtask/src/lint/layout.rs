//! The documents against the tree: paths, links, names of tests, and the README's length.

use std::collections::BTreeSet;

use super::source::{TextFile, Violation};

const README: &str = "README.md";
const MAX_README_LINES: usize = 150;

/// The document whose first code block after [`LAYOUT_HEADING`] lists the tree.
const CONTRIBUTING: &str = "CONTRIBUTING.md";
const LAYOUT_HEADING: &str = "## Layout";

/// Directories whose own directories the layout must list.
const LISTED_WHOLE: &[&str] = &["", "tracer/src", "tracer-ebpf/src"];

/// Checks every document.
pub(crate) fn check(files: &[TextFile]) -> Vec<Violation> {
    let tree = FileTree::of(files);
    let mut violations = Vec::new();
    let documents = files
        .iter()
        .filter(|file| file.has_extension("md") && !file.name.contains("fixtures/"));
    for document in documents {
        violations.extend(paths(document, &tree));
        violations.extend(links(document, files, &tree));
        violations.extend(tests(document, files));
        if document.name == README {
            violations.extend(length(document));
        }
        if document.name == CONTRIBUTING {
            violations.extend(layout(document, &tree));
        }
    }
    violations
}

/// The files of the repository and their directories.
struct FileTree<'a> {
    paths: BTreeSet<&'a str>,
}

impl<'a> FileTree<'a> {
    fn of(files: &'a [TextFile]) -> Self {
        let mut paths = BTreeSet::new();
        for file in files {
            paths.insert(file.name.as_str());
            paths.extend(file.name.match_indices('/').map(|(end, _)| &file.name[..end]));
        }
        Self { paths }
    }

    fn has(&self, path: &str) -> bool {
        self.paths.contains(path.trim_end_matches('/'))
    }

    /// The directories directly below one.
    fn directories(&self, above: &str) -> BTreeSet<&'a str> {
        let inside = |path: &&'a str| -> Option<&'a str> {
            let below = if above.is_empty() {
                path
            } else {
                path.strip_prefix(above)?.strip_prefix('/')?
            };
            let (first, _) = below.split_once('/')?;
            Some(&path[..path.len() - below.len() + first.len()])
        };
        self.paths.iter().filter_map(inside).collect()
    }
}

fn length(readme: &TextFile) -> Option<Violation> {
    let lines = readme.text.lines().count();
    (lines > MAX_README_LINES).then(|| {
        let message =
            format!("{lines} lines, at most {MAX_README_LINES} are permitted; the rest belongs to docs/");
        Violation::new(&readme.name, message)
    })
}

/// Paths in backticks that begin with a directory of the repository's root.
fn paths(document: &TextFile, tree: &FileTree<'_>) -> Vec<Violation> {
    let roots = tree.directories("");
    let mut violations = Vec::new();
    for (number, line) in (1..).zip(document.text.lines()) {
        for word in line.split('`').skip(1).step_by(2) {
            for path in braces(word) {
                let is_path = path
                    .split_once('/')
                    .is_some_and(|(first, _)| roots.contains(first));
                let is_plain = !path.contains([' ', '*', '<', '…', '$', ':']);
                if is_path && is_plain && !tree.has(&path) {
                    violations.push(missing(document, number, &path));
                }
            }
        }
    }
    violations
}

fn missing(document: &TextFile, line: usize, path: &str) -> Violation {
    Violation::at(&document.name, line, format!("{path} does not exist"))
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn braces(word: &str) -> Vec<String> {
    let parts = word
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    match parts {
        Some((before, (names, after))) => names
            .split(',')
            .map(|name| format!("{before}{}{after}", name.trim()))
            .collect(),
        None => vec![word.to_owned()],
    }
}

/// Links between the repository's own documents, and the headings that they name.
fn links(document: &TextFile, files: &[TextFile], tree: &FileTree<'_>) -> Vec<Violation> {
    let directory = document
        .name
        .rsplit_once('/')
        .map_or("", |(directory, _)| directory);
    let mut violations = Vec::new();
    for (number, line) in (1..).zip(document.text.lines()) {
        for rest in line.split("](").skip(1) {
            let Some((link, _)) = rest.split_once(')') else {
                continue;
            };
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = if path.is_empty() {
                document.name.clone()
            } else {
                joined(directory, path)
            };
            let target = files.iter().find(|file| file.name == path);
            if !tree.has(&path) {
                violations.push(missing(document, number, &path));
            } else if !anchor.is_empty() && !target.is_some_and(|target| has_heading(target, anchor)) {
                let message = format!("{path} has no heading #{anchor}");
                violations.push(Violation::at(&document.name, number, message));
            }
        }
    }
    violations
}

/// Looks for a heading by the name that web front ends of git give it: in lower case, without
/// punctuation, with hyphens between words.
fn has_heading(document: &TextFile, anchor: &str) -> bool {
    let headings = document.text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .any(|title| {
            let kept = title
                .chars()
                .filter(|character| character.is_alphanumeric() || "- _".contains(*character));
            kept.map(|character| if character == ' ' { '-' } else { character })
                .eq(anchor.chars())
        })
}

/// A relative path from a directory, without `..`.
fn joined(directory: &str, path: &str) -> String {
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// Names of tests, such as `sums::every_function`, that the suite does not have.
fn tests(document: &TextFile, files: &[TextFile]) -> Vec<Violation> {
    let suite: Vec<&str> = files
        .iter()
        .filter(|file| file.name.starts_with("tests/suite/"))
        .map(|file| file.text.as_str())
        .collect();
    let modules: BTreeSet<&str> = files
        .iter()
        .filter_map(|file| file.name.strip_prefix("tests/suite/"))
        .map(|name| name.split(['/', '.']).next().unwrap_or_default())
        .collect();
    let mut violations = Vec::new();
    for (number, line) in (1..).zip(document.text.lines()) {
        for word in line.split('`').skip(1).step_by(2) {
            let is_test = word
                .split_once("::")
                .is_some_and(|(module, name)| modules.contains(module) && !name.is_empty());
            let quoted = format!("\"{word}\"");
            if is_test && !suite.iter().any(|text| text.contains(&quoted)) {
                let message = format!("the suite has no test {word}");
                violations.push(Violation::at(&document.name, number, message));
            }
        }
    }
    violations
}

/// The picture of the tree: every path in it exists, and it has every directory of
/// [`LISTED_WHOLE`].
fn layout(document: &TextFile, tree: &FileTree<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut listed = BTreeSet::new();
    let mut directory = String::new();
    let lines = (1..)
        .zip(document.text.lines())
        .skip_while(|(_, line)| *line != LAYOUT_HEADING)
        .skip_while(|(_, line)| !line.starts_with("```"))
        .skip(1)
        .take_while(|(_, line)| !line.starts_with("```"));
    for (number, line) in lines {
        let Some(name) = line.split_whitespace().next() else {
            continue;
        };
        let path = match line.chars().take_while(|character| *character == ' ').count() {
            0 => {
                name.trim_end_matches('/').clone_into(&mut directory);
                directory.clone()
            }
            2 => format!("{directory}/{}", name.trim_end_matches('/')),
            // The rest of an explanation.
            _ => continue,
        };
        if !tree.has(&path) {
            violations.push(missing(document, number, &path));
        }
        listed.insert(path);
    }
    if listed.is_empty() {
        let message = format!("no picture of the tree below `{LAYOUT_HEADING}`");
        violations.push(Violation::new(&document.name, message));
    }
    for above in LISTED_WHOLE {
        for directory in tree.directories(above) {
            if !directory.starts_with('.') && !listed.contains(directory) {
                let message = format!("the layout lacks {directory}/");
                violations.push(Violation::new(&document.name, message));
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::modules::tests::files;
    use super::*;

    fn found(texts: &[(&str, &str)]) -> Vec<String> {
        check(&files(texts))
            .into_iter()
            .map(|violation| format!("{}: {}", violation.place, violation.message))
            .collect()
    }

    #[test]
    fn a_missing_path_is_found() {
        let text = "see `tracer/src/a.rs`, `tracer/src/{a,b}.rs`\nand `tracer/src/`, `/proc/x`, `cargo xtask`, `tracer/src/*.rs`\n";
        assert_eq!(
            found(&[("docs/x.md", text), ("tracer/src/a.rs", "")]),
            ["docs/x.md:1: tracer/src/b.rs does not exist"]
        );
    }

    #[test]
    fn a_broken_link_is_found() {
        let text = "# It's here\n[a](guide.md#names), [b](../README.md), [c](https://example.org/x), [d](#its-here)\n\
                    [e](gone.md), [f](guide.md#gone)\n";
        let texts = [
            ("docs/x.md", text),
            ("docs/guide.md", "## Names\n"),
            ("README.md", ""),
        ];
        assert_eq!(
            found(&texts),
            [
                "docs/x.md:3: docs/gone.md does not exist",
                "docs/x.md:3: docs/guide.md has no heading #gone",
            ]
        );
    }

    #[test]
    fn a_test_that_is_not_there_is_found() {
        assert_eq!(
            found(&[
                ("docs/x.md", "| `sums::one`, `sums::two`, `std::fs` |\n"),
                ("tests/suite/sums.rs", "case(\"sums::one\", one)"),
            ]),
            ["docs/x.md:1: the suite has no test sums::two"]
        );
    }

    #[test]
    fn a_long_readme_is_found() {
        assert!(found(&[("README.md", &"\n".repeat(150))]).is_empty());
        assert_eq!(
            found(&[("README.md", &"\n".repeat(151))]),
            ["README.md: 151 lines, at most 150 are permitted; the rest belongs to docs/"]
        );
    }

    #[test]
    fn the_layout_is_that_of_the_tree() {
        let layout = "## Layout\n\nText.\n```\ntracer/    the user side\n  src/cli/   clap\n             and more\n```\n";
        let tree = [("CONTRIBUTING.md", layout), ("tracer/src/cli/a.rs", "")];
        assert!(found(&tree).is_empty());
        let other = [("CONTRIBUTING.md", layout), ("tracer/src/bpf/a.rs", "")];
        assert_eq!(
            found(&other),
            [
                "CONTRIBUTING.md:6: tracer/src/cli does not exist",
                "CONTRIBUTING.md: the layout lacks tracer/src/bpf/",
            ]
        );
        assert_eq!(
            found(&[("CONTRIBUTING.md", "")]),
            ["CONTRIBUTING.md: no picture of the tree below `## Layout`"]
        );
    }
}
