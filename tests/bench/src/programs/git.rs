//! git, printing the history of a repository that is made for it.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::{ProgramWorkload, program};

const COMMITS: usize = 3000;
const FILES: usize = 60;

/// `git log -p --stat` over a repository of some thousand commits.
pub(crate) fn prepare(directory: &Path) -> Result<ProgramWorkload> {
    let git = program("git")?;
    let repository = directory.join("repository");
    let environment = vec![
        ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
        ("GIT_CONFIG_GLOBAL", "/dev/null".to_owned()),
        ("GIT_DIR", repository.join(".git").display().to_string()),
    ];
    if repository.exists() {
        fs::remove_dir_all(&repository)
            .with_context(|| format!("failed to remove {}", repository.display()))?;
    }
    fs::create_dir_all(&repository).with_context(|| format!("failed to create {}", repository.display()))?;
    let command = |arguments: &[&str]| {
        let mut command = Command::new(&git);
        command
            .args(arguments)
            .envs(environment.clone())
            .current_dir(&repository);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let made = command(&["init", "-q"]).status().context("failed to start git")?;
    ensure!(
        made.success(),
        "failed to make a repository: git ended with {made}"
    );
    let mut import = command(&["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .context("failed to start git")?;
    let mut input = import.stdin.take().context("failed to open a pipe to git")?;
    input
        .write_all(history(COMMITS, FILES).as_bytes())
        .context("failed to write a history to git")?;
    drop(input);
    let imported = import.wait().context("failed to wait for git")?;
    ensure!(
        imported.success(),
        "failed to import a history: git ended with {imported}"
    );
    let words = [&*git, "--no-pager", "log", "-p", "--stat", "main"];
    Ok(ProgramWorkload {
        command: words.into_iter().map(str::to_owned).collect(),
        environment,
    })
}

/// A stream for `git fast-import`: each commit changes two files of some dozen lines.
fn history(commits: usize, files: usize) -> String {
    let mut text = String::new();
    for commit in 0..commits {
        let message = format!("change {commit}\n");
        // A write into a String cannot fail.
        write!(
            text,
            "commit refs/heads/main\ncommitter Bench <bench@localhost> {} +0000\ndata {}\n{message}",
            1_600_000_000 + commit * 60,
            message.len()
        )
        .unwrap_or_default();
        for each in 0..2 {
            let file = (commit * 7 + each * 13) % files;
            let lines = (0..80).map(|line| {
                let value = if line % 9 == commit % 9 {
                    commit
                } else {
                    line * file
                };
                format!("line {line} of file {file} has the value {value}\n")
            });
            let contents: String = lines.collect();
            let directory = file % 6;
            write!(
                text,
                "M 100644 inline directory-{directory}/file-{file}.txt\ndata {}\n{contents}",
                contents.len()
            )
            .unwrap_or_default();
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::history;

    #[test]
    fn a_stream_of_commits() {
        let text = history(3, 5);
        assert_eq!(text.matches("commit refs/heads/main\n").count(), 3);
        assert_eq!(text.matches("\nM 100644 inline directory-").count(), 6);
        assert!(text.contains("data 9\nchange 0\nM 100644"));
    }
}
