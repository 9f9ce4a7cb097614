//! The files that a command is going to map: its own dynamic loader is asked, since it alone knows
//! the rules.
//!
//! `ld.so --list PROGRAM` prints the objects that the program would be loaded with, by the
//! program's own run paths, the environment and the cache, and runs none of their code. glibc's and
//! musl's loaders have it.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::symbols;
use crate::privileges::User;

/// The most `#!` lines that are followed: as many as by the kernel.
const MAX_INTERPRETERS: usize = 5;

/// The program that a command names, found as `execvp` does.
pub fn program(name: &OsStr) -> std::io::Result<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        std::fs::metadata(&path)?;
        return Ok(path);
    }
    let search = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&search)
        .map(|folder| folder.join(name))
        .find(|path| is_executable(path))
        .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))
}

/// The most programs that are taken from arguments: a command has one or two, a list of files may
/// have thousands.
const MAX_PROGRAMS: usize = 8;

/// The executable files that arguments name, as words of their own or inside a shell's command.
#[must_use]
pub fn programs_in(arguments: &[OsString]) -> Vec<PathBuf> {
    let ends_word = |byte: &u8| byte.is_ascii_whitespace() || b";|&()<>\"'`".contains(byte);
    let words = arguments
        .iter()
        .flat_map(|argument| argument.as_bytes().split(ends_word));
    let mut programs = Vec::new();
    for word in words.filter(|word| !word.is_empty() && !word.starts_with(b"-")) {
        if programs.len() == MAX_PROGRAMS {
            break;
        }
        if let Ok(program) = program(OsStr::from_bytes(word))
            && is_executable(&program)
            && !programs.contains(&program)
        {
            programs.push(program);
        }
    }
    programs
}

/// Returns true if a file can be executed by somebody.
#[must_use]
pub fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// The files with code that a program will be loaded with: the program (or its `#!` interpreter),
/// its loader, its libraries. What cannot be told is left out; the files are heard of again when
/// they are mapped.
#[must_use]
pub fn files_of(program: &Path, user: Option<&User>) -> Vec<PathBuf> {
    let mut program = program.to_path_buf();
    for _ in 0..MAX_INTERPRETERS {
        match script_interpreter(&program) {
            Some(interpreter) => program = interpreter,
            None => break,
        }
    }
    let mut files = vec![program.clone()];
    let Some(interpreter) = symbols::interpreter(&program).map(PathBuf::from) else {
        return files;
    };
    files.push(interpreter.clone());
    files.extend(listed(&interpreter, &program, user));
    files
}

fn script_interpreter(program: &Path) -> Option<PathBuf> {
    let mut start = BufReader::new(std::fs::File::open(program).ok()?.take(4096));
    let mut line = Vec::new();
    start.read_until(b'\n', &mut line).ok()?;
    let words = line.strip_prefix(b"#!")?.trim_ascii();
    let mut words = words
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let interpreter = words.next()?;
    let path = PathBuf::from(OsStr::from_bytes(interpreter));
    if path.file_name() == Some(OsStr::new("env")) {
        // `#!/usr/bin/env python3`: what it runs is what counts.
        let argument = words.find(|word| !word.starts_with(b"-"))?;
        return self::program(OsStr::from_bytes(argument)).ok();
    }
    Some(path)
}

fn listed(loader: &Path, program: &Path, user: Option<&User>) -> Vec<PathBuf> {
    // `$ORIGIN` in its run path is where the file is, not a link to it: the kernel tells a
    // program's loader just that.
    let program = program.canonicalize().unwrap_or_else(|_| program.to_path_buf());
    let mut command = Command::new(loader);
    command
        .arg("--list")
        .arg(program)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    if let Some(user) = user.cloned() {
        // SAFETY: between fork and exec `become_user` makes system calls alone, on values made
        // before the fork: it neither allocates nor takes a lock.
        unsafe { command.pre_exec(move || user.become_user()) };
    }
    let Ok(answer) = command.output() else {
        return Vec::new();
    };
    answer
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(listed_path)
        .collect()
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f…)`, or without `name =>`.
fn listed_path(line: &[u8]) -> Option<PathBuf> {
    let line = line.trim_ascii();
    let line = line
        .windows(4)
        .position(|part| part == b" => ")
        .map_or(line, |at| &line[at + 4..]);
    let end = line.windows(4).rposition(|part| part == b" (0x")?;
    line.starts_with(b"/")
        .then(|| PathBuf::from(OsStr::from_bytes(&line[..end])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_loader_are_read() {
        let path = |line: &str| listed_path(line.as_bytes());
        assert_eq!(
            path("\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f00)"),
            Some("/lib/x86_64-linux-gnu/libc.so.6".into())
        );
        assert_eq!(
            path("\t/lib64/ld-linux-x86-64.so.2 (0x00007f00)"),
            Some("/lib64/ld-linux-x86-64.so.2".into())
        );
        assert_eq!(path("\tlinux-vdso.so.1 (0x00007ffe)"), None);
        assert_eq!(path("\tlibgone.so => not found"), None);
        assert_eq!(path(""), None);
    }

    #[test]
    fn shell_is_loaded_with_a_libc() {
        let files = files_of(Path::new("/bin/sh"), None);
        assert!(
            files.iter().any(|file| file.to_string_lossy().contains("libc")),
            "{files:?}"
        );
    }

    #[test]
    fn programs_of_wrappers_are_found() {
        let programs = programs_in(&["-c".into(), "ls -l; (cat x)".into(), "/no/such".into()]);
        let names: Vec<_> = programs.iter().filter_map(|path| path.file_name()).collect();
        assert_eq!(names, ["ls", "cat"]);
    }

    #[test]
    fn programs_are_searched_for_as_the_shell_does() {
        assert!(program(OsStr::new("sh")).is_ok());
        assert!(program(OsStr::new("no-such-program-anywhere")).is_err());
        assert!(program(OsStr::new("./no-such-file")).is_err());
    }
}
