//! Rules on the text of every file: length, paths of one machine, registries, unfinished code.

use std::ffi::OsStr;
use std::path::Path;

use super::source::{TextFile, Violation};
use crate::workspace;

/// Files longer than this are a reason to split; said, never an error.
const MAX_LINES: usize = 400;

/// Beginnings of paths that exist on one person's machine only, beside this clone's own. In two
/// parts, so that this file passes.
const PRIVATE_ROOTS: &[&str] = &[concat!("/", "home/"), concat!("/", "root/")];

/// Hosts that packages come from: the clients' own settings say where, never a file in the
/// repository.
const REGISTRIES: &[&str] = &[
    concat!("crates", ".io"),
    concat!("static.rust-lang", ".org"),
    concat!("deb.debian", ".org"),
    concat!("snapshot.debian", ".org"),
    concat!("archive.ubuntu", ".com"),
    concat!("pypi", ".org"),
    concat!("registry.npmjs", ".org"),
    concat!("proxy.golang", ".org"),
    concat!("pkg", ".dev"),
];

/// Macros that belong to unfinished work, in code that no build here compiles too.
const UNFINISHED: &[&str] = &[concat!("todo", "!("), concat!("dbg", "!(")];

/// Checks each file; prints warnings, and returns errors.
pub(crate) fn check(files: &[TextFile]) -> Vec<Violation> {
    let this_clone = format!("{}/", workspace::root().display());
    let mut errors = Vec::new();
    for file in files {
        for finding in findings(&file.name, &file.text, &this_clone) {
            let place = finding
                .line
                .map_or_else(|| file.name.clone(), |line| format!("{}:{line}", file.name));
            if finding.is_error {
                errors.push(Violation::new(place, finding.message));
            } else {
                eprintln!("warning: {place}: {}", finding.message);
            }
        }
    }
    errors
}

#[derive(Debug, PartialEq, Eq)]
struct TextFinding {
    is_error: bool,
    line: Option<usize>,
    message: String,
}

fn findings(name: &str, text: &str, this_clone: &str) -> Vec<TextFinding> {
    let mut findings = Vec::new();
    let extension = Path::new(name)
        .extension()
        .and_then(OsStr::to_str)
        .unwrap_or_default();
    let is_code = ["rs", "c", "h", "cc", "cpp", "sh", "py", "toml", "md"].contains(&extension);
    let lines = text.lines().count();
    if is_code && lines > MAX_LINES {
        let message = format!("{lines} lines; more than {MAX_LINES} are a reason to split");
        findings.push(TextFinding {
            is_error: false,
            line: None,
            message,
        });
    }
    // The lock file names the registry in each entry.
    if name.ends_with("Cargo.lock") {
        return findings;
    }
    for (number, line) in (1..).zip(text.lines()) {
        let mut error = |what: &str, found: &str| {
            findings.push(TextFinding {
                is_error: true,
                line: Some(number),
                message: format!("{what}: {found}"),
            });
        };
        for root in PRIVATE_ROOTS.iter().copied().chain([this_clone]) {
            if has_path(line, root) {
                error("path of one machine", root);
            }
        }
        for host in REGISTRIES {
            if line.contains(host) {
                error("host of a package registry", host);
            }
        }
        for unfinished in UNFINISHED {
            if extension == "rs" && line.contains(unfinished) {
                error("unfinished", unfinished);
            }
        }
    }
    findings
}

/// True where a path that begins with `root` stands in `line`: `/proc/1/root/x` begins with
/// `/proc`.
fn has_path(line: &str, root: &str) -> bool {
    line.match_indices(root).any(|(position, _)| {
        let before = line[..position].chars().next_back();
        !before.is_some_and(|character| character.is_alphanumeric() || "_.-}])>*~$".contains(character))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(name: &str, text: &str) -> usize {
        findings(name, text, "/clone/")
            .iter()
            .filter(|finding| finding.is_error)
            .count()
    }

    #[test]
    fn paths_of_one_machine() {
        let home = PRIVATE_ROOTS[0];
        assert_eq!(errors("a.md", &format!("see {home}me/x\nand \"{home}you\"")), 2);
        assert_eq!(errors("a.md", "see /clone/src"), 1);
        assert_eq!(
            errors("a.rs", "/proc/1/root/lib {pid}/root/lib $HOME/clone/x ../clone/x"),
            0
        );
    }

    #[test]
    fn registries_except_in_the_lock_file() {
        let text = format!("source = \"https://{}/\"", REGISTRIES[0]);
        assert_eq!(errors("Cargo.toml", &text), 1);
        assert_eq!(errors("Cargo.lock", &text), 0);
    }

    #[test]
    fn unfinished_code() {
        let text = format!("fn f() {{ {}) }}", UNFINISHED[0]);
        assert_eq!(errors("a.rs", &text), 1);
        assert_eq!(errors("a.md", &text), 0);
    }

    #[test]
    fn long_files_are_a_warning() {
        let findings = findings("a.rs", &"\n".repeat(401), "/clone/");
        assert_eq!(findings.len(), 1);
        assert!(!findings[0].is_error);
    }
}
