//! `dist DIRECTORY`: man pages (`man/man1/`) and completions for bash, zsh and fish
//! (`completions/`), from the definition of the command line.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap_complete::Shell;

/// The program, and the section of its pages.
const NAME: &str = "memtap";

fn main() -> Result<()> {
    let directory = std::env::args_os().nth(1).context("no directory")?;
    write(Path::new(&directory))
}

fn write(directory: &Path) -> Result<()> {
    let pages = directory.join("man").join("man1");
    let completions = directory.join("completions");
    for directory in [&pages, &completions] {
        fs::create_dir_all(directory).with_context(|| format!("failed to create {}", directory.display()))?;
    }
    clap_mangen::generate_to(memtap::cli::definition(), &pages).context("failed to write man pages")?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut memtap::cli::definition(), NAME, &completions)
            .with_context(|| format!("failed to write completions for {shell}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use super::*;

    /// Runs a program; nothing where this machine does not have it, which is said.
    fn output(command: &mut Command) -> Option<Output> {
        match command.output() {
            Ok(output) => Some(output),
            Err(error) => {
                eprintln!("SKIPPED: {}: {error}", command.get_program().display());
                None
            }
        }
    }

    #[test]
    fn pages_open_without_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path()).unwrap();
        let mut pages: Vec<String> = Vec::new();
        for page in fs::read_dir(directory.path().join("man/man1")).unwrap() {
            let page = page.unwrap().path();
            let mut man = Command::new("man");
            man.args(["--warnings", "-l"]).arg(&page);
            // Warnings of lines that are too long for a narrow terminal are not the page's.
            man.env("LC_ALL", "C.UTF-8").env("MANWIDTH", "100");
            let Some(shown) = output(&mut man) else { return };
            let stderr = String::from_utf8_lossy(&shown.stderr);
            assert!(shown.status.success() && stderr.is_empty(), "{page:?}: {stderr}");
            let stdout = String::from_utf8_lossy(&shown.stdout);
            assert!(
                stdout.contains("SYNOPSIS") && stdout.contains("--help"),
                "{stdout}"
            );
            pages.push(page.file_name().unwrap().to_string_lossy().into_owned());
        }
        pages.sort();
        let commands = memtap::cli::definition();
        let mut expected: Vec<String> = commands
            .get_subcommands()
            .map(|command| format!("memtap-{}.1", command.get_name()))
            .collect();
        expected.push("memtap.1".to_owned());
        expected.sort();
        assert_eq!(pages, expected);
        assert!(!pages.iter().any(|page| page.contains("worker")));
    }

    #[test]
    fn bash_completes_commands_and_options() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path()).unwrap();
        let script = directory.path().join("completions/memtap.bash");
        // As bash itself calls the function: the program, the word, and the word before.
        let complete = r#"source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            _memtap memtap "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            echo "${COMPREPLY[@]}""#;
        for (words, expected) in [
            (&["memtap", "rec"][..], "record\n"),
            (&["memtap", "record", "--dura"], "--duration\n"),
            (&["memtap", "record", "--scope", "t"], "tree\n"),
            (&["memtap", "symb"], "\n"),
        ] {
            let mut bash = Command::new("bash");
            bash.args(["--norc", "-c", complete, "bash"])
                .arg(&script)
                .args(words);
            let Some(shown) = output(&mut bash) else { return };
            let stderr = String::from_utf8_lossy(&shown.stderr);
            assert!(shown.status.success() && stderr.is_empty(), "{stderr}");
            assert_eq!(String::from_utf8_lossy(&shown.stdout), expected, "{words:?}");
        }
    }

    #[test]
    fn other_shells_read_their_completions() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path()).unwrap();
        let completions = directory.path().join("completions");
        for (shell, file) in [("zsh", "_memtap"), ("fish", "memtap.fish")] {
            let file = completions.join(file);
            assert!(fs::read_to_string(&file).unwrap().contains("record"));
            if let Some(read) = output(Command::new(shell).arg("-n").arg(&file)) {
                let stderr = String::from_utf8_lossy(&read.stderr);
                assert!(read.status.success() && stderr.is_empty(), "{shell}: {stderr}");
            }
        }
    }
}
