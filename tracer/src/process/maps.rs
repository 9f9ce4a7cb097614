//! `/proc/PID/maps`: what is mapped where. Layout: the kernel's
//! `Documentation/filesystems/proc.rst`.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The identity of a file on this machine while it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// The device's number as the kernel shows it: major, minor.
    pub device: (u32, u32),
    /// The inode's number; 0 for memory without a file.
    pub inode: u64,
}

/// An executable mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// The address past the last one.
    pub end: u64,
    /// The offset in the file.
    pub file_offset: u64,
    /// The file's identity.
    pub file: FileId,
    /// The path as the process sees it, without the mark of deleted files; `[vdso]` and the like
    /// for memory without a file; empty for anonymous memory.
    pub path: PathBuf,
}

/// Reads the executable mappings of a process.
pub(crate) fn executable_mappings(pid: u32) -> io::Result<Vec<Mapping>> {
    Ok(parse(&std::fs::read(format!("/proc/{pid}/maps"))?))
}

/// Finds the files of a process whose code is not the file's any more: their other parts are
/// mapped, and between these is executable memory without a file. Programs move their code so to
/// have it on huge pages.
pub(crate) fn moved_code(pid: u32) -> io::Result<Vec<Mapping>> {
    Ok(moved_in(&std::fs::read(format!("/proc/{pid}/maps"))?))
}

/// A mapping of each file whose code was moved, in the text of a `maps` file.
fn moved_in(text: &[u8]) -> Vec<Mapping> {
    let mappings: Vec<(bool, Mapping)> = text.split(|byte| *byte == b'\n').filter_map(parse_line).collect();
    let is_anonymous = |mapping: &Mapping| mapping.file.inode == 0 && mapping.path.as_os_str().is_empty();
    let mut moved: Vec<Mapping> = Vec::new();
    for (at, (executable, code)) in mappings.iter().enumerate() {
        if !executable || !is_anonymous(code) {
            continue;
        }
        // The mappings are in the order of their addresses.
        let before = mappings[..at].iter().rev().find(|(_, it)| !is_anonymous(it));
        let after = mappings[at + 1..].iter().find(|(_, it)| !is_anonymous(it));
        let (Some((_, before)), Some((_, after))) = (before, after) else {
            continue;
        };
        let is_executable = |(executable, it): &(bool, Mapping)| *executable && it.file == before.file;
        if before.file.inode != 0 && before.file == after.file && !mappings.iter().any(is_executable) {
            moved.push(before.clone());
        }
    }
    moved.dedup_by_key(|mapping| mapping.file);
    moved
}

/// The file that this process has mapped at an address.
pub(crate) fn file_at(address: u64) -> io::Result<Option<FileId>> {
    let text = std::fs::read("/proc/self/maps")?;
    let mut mappings = text.split(|byte| *byte == b'\n').filter_map(parse_line);
    let found = mappings.find(|(_, mapping)| mapping.start <= address && address < mapping.end);
    Ok(found.map(|(_, mapping)| mapping.file))
}

/// The executable mappings in the text of a `maps` file. Lines that cannot be read are skipped.
#[must_use]
pub(crate) fn parse(text: &[u8]) -> Vec<Mapping> {
    let mappings = text.split(|byte| *byte == b'\n').filter_map(parse_line);
    mappings
        .filter_map(|(executable, mapping)| executable.then_some(mapping))
        .collect()
}

/// A mapping, and whether it is executable.
fn parse_line(line: &[u8]) -> Option<(bool, Mapping)> {
    // address permissions offset device inode, each followed by one space, then spaces and the
    // path.
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut field = || fields.next();
    let (start, end) = split_at_byte(field()?, b'-')?;
    let executable = field()?.get(2) == Some(&b'x');
    let file_offset = hexadecimal(field()?)?;
    let (major, minor) = split_at_byte(field()?, b':')?;
    let inode = std::str::from_utf8(field()?).ok()?.parse().ok()?;
    let path = field().unwrap_or_default().trim_ascii_start();
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let mapping = Mapping {
        start: hexadecimal(start)?,
        end: hexadecimal(end)?,
        file_offset,
        file: FileId {
            device: (
                hexadecimal(major)?.try_into().ok()?,
                hexadecimal(minor)?.try_into().ok()?,
            ),
            inode,
        },
        path: unescape(path),
    };
    Some((executable, mapping))
}

/// The kernel writes a line break in a path as `\012`.
fn unescape(path: &[u8]) -> PathBuf {
    let text = String::from_utf8_lossy(path);
    if text.contains("\\012") {
        return PathBuf::from(text.replace("\\012", "\n"));
    }
    Path::new(std::ffi::OsStr::from_bytes(path)).to_path_buf()
}

fn split_at_byte(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

fn hexadecimal(text: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_lines_are_taken_and_others_skipped() {
        let text = b"7f00-8000 r-xp 00028000 fe:01 42                       /lib/my lib.so (deleted)\n\
            8000-9000 rw-p 00000000 00:00 0 \n\
            nonsense\n\
            ffff0000-ffff1000 r-xp 00000000 00:00 0                  [vdso]\n";
        let mappings = parse(text);
        assert_eq!(mappings.len(), 2);
        assert_eq!(mappings[0].path, PathBuf::from("/lib/my lib.so"));
        assert_eq!(
            mappings[0].file,
            FileId {
                device: (0xfe, 1),
                inode: 42
            }
        );
        assert_eq!(
            (mappings[0].start, mappings[0].end, mappings[0].file_offset),
            (0x7f00, 0x8000, 0x28000)
        );
        assert_eq!(mappings[1].path, PathBuf::from("[vdso]"));
    }

    #[test]
    fn moved_code_is_found() {
        let libc = |permissions: &str, start: u32| {
            format!(
                "{start:x}000-{:x}000 {permissions} 0 08:01 77 /lib/libc.so.6\n",
                start + 1
            )
        };
        let anonymous = |permissions: &str, start: u32| {
            format!(
                "{start:x}000-{:x}000 {permissions} 00000000 00:00 0 \n",
                start + 1
            )
        };
        let moved = |lines: &[String]| moved_in(lines.concat().as_bytes());
        let whole = [libc("r--p", 1), libc("r-xp", 2), libc("r--p", 3)];
        assert!(moved(&whole).is_empty());
        let gone = [libc("r--p", 1), anonymous("r-xp", 2), libc("r--p", 3)];
        let found = moved(&gone);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, Path::new("/lib/libc.so.6"));
        // Memory of compilers, and data between a file's parts.
        let other = [libc("r-xp", 1), libc("rw-p", 2), anonymous("r-xp", 3)];
        assert!(moved(&other).is_empty());
        let data = [libc("r-xp", 1), anonymous("rw-p", 2), libc("rw-p", 3)];
        assert!(moved(&data).is_empty());
    }

    #[test]
    fn own_mappings_are_found() {
        let mappings = executable_mappings(std::process::id()).expect("readable");
        let here = own_mappings_are_found as fn() as usize as u64;
        assert!(
            mappings
                .iter()
                .any(|mapping| mapping.start <= here && here < mapping.end)
        );
    }
}
