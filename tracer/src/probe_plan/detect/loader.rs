//! The files that a command is going to map: its program, or the interpreter of its script, and
//! what the dynamic linker loads with that; and the programs that its arguments name.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::dynamic_linker::DynamicLinker;
use crate::process::foreign_files::open_here;

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
pub fn files_of(program: &Path, linker: &DynamicLinker) -> Vec<PathBuf> {
    let mut program = program.to_path_buf();
    for _ in 0..MAX_INTERPRETERS {
        match script_interpreter(&program) {
            Some(interpreter) => program = interpreter,
            None => break,
        }
    }
    let libraries = linker.libraries_of(&program);
    std::iter::once(program).chain(libraries).collect()
}

fn script_interpreter(program: &Path) -> Option<PathBuf> {
    let mut start = BufReader::new(open_here(program).ok()?.take(4096));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_is_loaded_with_a_libc() {
        let files = files_of(Path::new("/bin/sh"), &DynamicLinker::of_system(None));
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
