//! The guest's programs: the first process, and the job that it is given.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::cpio::Archive;
use super::image::KernelImage;
use crate::workspace;

const INIT: &str = include_str!("init.sh");

/// The results' serial port, as the guest sees it.
pub(super) const RESULTS: &str = "/dev/ttyS2";

/// Variables of the caller's that the job has too.
const PASSED_ON: &[&str] = &["PATH", "HOME", "LANG", "RUST_BACKTRACE", "MEMTAP_TEST_ALL"];

/// The first file system: busybox, modules, the first process, and `job`, lines for a shell.
pub(super) fn file_system(image: &KernelImage, job: &str) -> Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("failed to read {}", path.display()));
    let mut archive = Archive::new();
    archive.directory("bin")?;
    archive.file("bin/busybox", &read(Path::new("/bin/busybox"))?)?;
    archive.directory("modules")?;
    for module in &image.modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("modules/{name}"), &read(module)?)?;
    }
    archive.file("init", INIT.as_bytes())?;
    archive.file("job.sh", with_environment(job).as_bytes())?;
    archive.finish()
}

/// `job` at the repository's root and with the variables that it needs.
fn with_environment(job: &str) -> String {
    let variables = PASSED_ON
        .iter()
        .filter_map(|name| env::var_os(name).map(|value| format!("export {name}={}", quoted(&value))));
    let mut lines: Vec<String> = variables.collect();
    lines.push(format!(
        "cd {} || exit 125",
        quoted(workspace::root().as_os_str())
    ));
    lines.push(job.to_owned());
    lines.join("\n") + "\n"
}

/// Words as one command of a shell.
pub(super) fn line(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| quoted(word.as_ref())).collect();
    words.join(" ")
}

/// A word as a shell reads it back.
fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))
}

/// The guest's output on its port of results.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Results {
    /// The job's exit status; nothing if the guest did not get that far.
    pub(super) status: Option<u8>,
    /// The output of `memtap doctor --json`.
    pub(super) doctor: String,
    /// The messages of memtap where it would not record.
    pub(super) refusal: Vec<String>,
}

impl Results {
    /// Reads lines that begin with what they are.
    pub(super) fn parse(text: &str) -> Self {
        let mut results = Self::default();
        for line in text.lines() {
            let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
            match kind {
                "exit" => results.status = rest.trim().parse().ok(),
                "doctor" => {
                    results.doctor += rest;
                    results.doctor.push('\n');
                }
                "refusal" if !rest.trim().is_empty() => results.refusal.push(rest.trim_end().to_owned()),
                _ => {}
            }
        }
        results
    }
}

/// A job: what memtap says of the kernel and, unless it refuses to record at all, the suite's
/// tests.
pub(super) fn testing(memtap: &Path, suite: &Path, arguments: &[OsString]) -> String {
    let memtap = quoted(memtap.as_os_str());
    let suite = line(
        [suite.as_os_str()]
            .into_iter()
            .chain(arguments.iter().map(OsString::as_os_str)),
    );
    format!(
        "export MEMTAP_BIN={memtap}\n\
         {memtap} doctor --json 2>&1 | sed 's/^/doctor /' >{RESULTS}\n\
         if ! {memtap} record -- /bin/true >/dev/null 2>/run/refusal; then\n\
         sed 's/^/refusal /' /run/refusal >{RESULTS}\n\
         exit 1\n\
         fi\n\
         {suite}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(line(["a b", "it's", "$x"]), r"'a b' 'it'\''s' '$x'");
    }

    #[test]
    fn results() {
        let text = "doctor {\ndoctor   \"a\": 1\ndoctor }\nrefusal memtap: error: no\nrefusal \nexit 3\n";
        assert_eq!(
            Results::parse(text),
            Results {
                status: Some(3),
                doctor: "{\n  \"a\": 1\n}\n".to_owned(),
                refusal: vec!["memtap: error: no".to_owned()],
            }
        );
        assert_eq!(Results::parse("doctor").status, None);
    }
}
