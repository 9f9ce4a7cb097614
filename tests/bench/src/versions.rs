//! The versions of the programs that took part.

use std::path::Path;
use std::process::{Command, Stdio};

use super::programs::program;
use super::results::Version;

/// A program and the words by which it tells its version.
const PROGRAMS: &[(&str, &str, &[&str])] = &[
    ("bpftrace", "bpftrace", &["--version"]),
    ("bcc", "dpkg-query", &["-W", "-f", "${Version}", "bpfcc-tools"]),
    ("heaptrack", "heaptrack", &["--version"]),
    ("bytehound", "bytehound", &["--version"]),
    ("valgrind", "valgrind", &["--version"]),
    ("perf", "perf", &["--version"]),
    ("ltrace", "ltrace", &["--version"]),
    ("strace", "strace", &["--version"]),
    ("cc", "cc", &["-dumpfullversion"]),
    ("python3", "python3", &["--version"]),
    ("git", "git", &["--version"]),
    ("sqlite3", "sqlite3", &["--version"]),
    ("redis-server", "redis-server", &["--version"]),
];

/// Asks memtap and every other program.
pub(crate) fn ask(memtap: &Path) -> Vec<Version> {
    let own = Version {
        tool: "memtap".to_owned(),
        version: answer(Command::new(memtap).arg("--version")),
    };
    let others = PROGRAMS.iter().map(|(tool, name, arguments)| Version {
        tool: (*tool).to_owned(),
        version: program(name)
            .ok()
            .and_then(|file| answer(Command::new(file).args(*arguments))),
    });
    std::iter::once(own).chain(others).collect()
}

fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    version(&text).or_else(|| version(&String::from_utf8_lossy(&output.stderr)))
}

/// The first word that is a version: digits with a point, perhaps after a `v`, a name and a hyphen,
/// or `v=`.
fn version(text: &str) -> Option<String> {
    let words = text.split(|symbol: char| symbol.is_whitespace() || symbol == '=');
    words
        .map(|word| {
            let digits = word
                .find(|symbol: char| symbol.is_ascii_digit())
                .unwrap_or(word.len());
            let (before, rest) = word.split_at(digits);
            if before.is_empty() || before.ends_with(['v', '-']) {
                rest
            } else {
                word
            }
        })
        .map(|word| word.trim_end_matches(['.', ',', ')']))
        .find(|word| word.contains('.') && word.starts_with(|symbol: char| symbol.is_ascii_digit()))
        .map(str::to_owned)
}

/// One line of all that answered.
pub(crate) fn line(versions: &[Version]) -> String {
    let words = versions
        .iter()
        .filter_map(|each| Some(format!("{} {}", each.tool, each.version.as_ref()?)));
    format!("Versions: {}.", words.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_as_programs_tell_them() {
        let cases = [
            ("bpftrace v0.17.0\n", "0.17.0"),
            ("valgrind-3.19.0\n", "3.19.0"),
            ("perf version 6.1.192\n", "6.1.192"),
            ("strace -- version 6.1\nCopyright (c) 1991-2022", "6.1"),
            ("ltrace version 0.7.3.\n", "0.7.3"),
            (
                "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0",
                "7.0.15",
            ),
            ("3.40.1 2022-12-28 14:03:47\n", "3.40.1"),
            ("0.26.0+ds-1", "0.26.0+ds-1"),
        ];
        for (text, expected) in cases {
            assert_eq!(version(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(version("usage: none"), None);
    }
}
