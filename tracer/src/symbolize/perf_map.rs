//! The text of a perf map: `START SIZE NAME`, both numbers in hexadecimal, one line for each piece
//! of compiled code. Layout: the kernel's `tools/perf/Documentation/jit-interface.txt`.
//!
//! A map can be larger than memtap's own memory should be, and grows while it is read: it is read
//! once, from its start, and only the names that are wanted are kept.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

/// Bytes of a line at most; what is longer is cut.
const MAX_LINE_BYTES: u64 = 16 << 10;

/// Bytes of a map at most.
const MAX_BYTES: u64 = 4 << 30;

/// Names given at most, one address of one line each: a map that names everything again and
/// again is left.
const MAX_NAMES: u64 = 100_000_000;

/// The names of `wanted`, which are in order, as far as a map has them. Code is compiled again,
/// elsewhere or in its old place: the last line that covers an address names it.
pub(super) fn names(map: impl Read, wanted: &[u64]) -> io::Result<HashMap<u64, Arc<str>>> {
    let mut map = BufReader::with_capacity(1 << 18, map.take(MAX_BYTES));
    let mut named: Vec<Option<Arc<str>>> = vec![None; wanted.len()];
    let mut given = 0u64;
    let mut line = Vec::new();
    loop {
        line.clear();
        map.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        let is_whole = line.last() == Some(&b'\n');
        if !is_whole && (line.len() as u64) < MAX_LINE_BYTES {
            // The end, or a line that is being written.
            break;
        }
        if !is_whole {
            skip_line(&mut map)?;
        }
        let Some((start, end, name)) = parse(&line) else {
            continue;
        };
        let first = wanted.partition_point(|address| *address < start);
        let covered = wanted[first..].partition_point(|address| *address < end);
        if covered > 0 {
            let name: Arc<str> = String::from_utf8_lossy(name).into();
            named[first..first + covered].fill(Some(name));
            given += covered as u64;
            if given > MAX_NAMES {
                break;
            }
        }
    }
    let named = wanted.iter().zip(named);
    Ok(named
        .filter_map(|(address, name)| Some((*address, name?)))
        .collect())
}

/// Goes on to behind the next line break.
fn skip_line(map: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = map.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let (len, is_end) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), false),
        };
        map.consume(len);
        if is_end {
            return Ok(());
        }
    }
}

/// First address, one past the last, and name.
fn parse(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let line = line.trim_ascii();
    let (start, rest) = word(line)?;
    let (size, name) = word(rest)?;
    let (start, size) = (hexadecimal(start)?, hexadecimal(size)?);
    (!name.is_empty()).then_some((start, start.checked_add(size)?, name))
}

fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(u8::is_ascii_whitespace)?;
    Some((&text[..at], text[at..].trim_ascii_start()))
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    let digits = digits
        .strip_prefix(b"0x")
        .or_else(|| digits.strip_prefix(b"0X"))
        .unwrap_or(digits);
    // `from_str_radix` takes a sign.
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(map: &[u8], wanted: &[u64]) -> Vec<Option<String>> {
        let names = names(map, wanted).expect("bytes in memory");
        let name = |address| names.get(address).map(|name: &Arc<str>| name.to_string());
        wanted.iter().map(name).collect()
    }

    #[test]
    fn names_may_hold_anything_but_a_line_break() {
        let map = b"1000 20 LazyCompile:~f; g /a b.js:1:2\n0x2000 0x10 plain\r\n3000 8 \xff\n";
        let names = named(map, &[0xfff, 0x1000, 0x101f, 0x1020, 0x2008, 0x3000]);
        let f = Some("LazyCompile:~f; g /a b.js:1:2".to_owned());
        assert_eq!(
            names,
            [
                None,
                f.clone(),
                f,
                None,
                Some("plain".to_owned()),
                Some("\u{fffd}".to_owned())
            ]
        );
    }

    #[test]
    fn last_line_wins() {
        let map = b"1000 100 old\n1040 10 new\n1000 10 newest\n";
        assert_eq!(
            named(map, &[0x1008, 0x1045, 0x1050]),
            [
                Some("newest".to_owned()),
                Some("new".to_owned()),
                Some("old".to_owned())
            ]
        );
    }

    #[test]
    fn damaged_lines_are_skipped() {
        let map = b"\n1000\n1000 10\n1000 10 \nx 10 a\n1000 -1 b\n+1000 10 c\n\
            ffffffffffffffff 10 d\n1000 11111111111111111 e\n1000 0 f\n  1000 10   g\n1000 10 torn";
        assert_eq!(named(map, &[0x1000, u64::MAX]), [Some("g".to_owned()), None]);
        assert_eq!(named(b"", &[1]), [None]);
        assert_eq!(named(b"1000 10 a\n", &[]), []);
    }

    #[test]
    fn long_line_is_cut_and_the_next_one_is_read() {
        let mut map = b"1000 10 ".to_vec();
        map.resize(100_000, b'x');
        map.extend(b"\n2000 10 next\n");
        let names = named(&map, &[0x1000, 0x2000]);
        assert!(names[0].as_ref().is_some_and(|name| name.len() > 1000));
        assert_eq!(names[1].as_deref(), Some("next"));
    }

    #[test]
    fn large_map_is_read_without_keeping_it() {
        struct Endless(u64);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let text = format!("{:x} 8 function_{}\n", self.0 * 16, self.0);
                if self.0 == 500_000 || text.len() > buffer.len() {
                    return Ok(0);
                }
                self.0 += 1;
                buffer[..text.len()].copy_from_slice(text.as_bytes());
                Ok(text.len())
            }
        }
        let names = names(Endless(0), &[16 * 77, 16 * 77 + 8, 16 * 499_999]).expect("bytes in memory");
        assert_eq!(names.len(), 2);
        assert_eq!(&*names[&(16 * 499_999)], "function_499999");
    }
}
