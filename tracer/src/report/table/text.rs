//! The width of text in columns of a terminal, its style, and the characters that a terminal has.

use std::borrow::Cow;
use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Faint text.
pub(super) const DIM: &str = "2";

/// Bold text.
pub(super) const BOLD: &str = "1";

/// The mark of omitted text.
pub(super) const MORE: &str = "…";

/// The characters that reports are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Charset {
    /// Any.
    #[default]
    Unicode,
    /// ASCII for the report's own signs, where the locale has no UTF-8. Names stay as they are.
    Ascii,
}

/// The report's own signs, and how ASCII has them.
const SIGNS: [(char, &str); 17] = [
    ('…', "..."),
    ('←', "<-"),
    ('→', "->"),
    ('·', "-"),
    ('≈', "~"),
    ('±', "+-"),
    ('–', "-"),
    ('─', "-"),
    ('×', "x"),
    ('▁', "_"),
    ('▂', "."),
    ('▃', ":"),
    ('▄', "-"),
    ('▅', "="),
    ('▆', "+"),
    ('▇', "*"),
    ('█', "#"),
];

impl Charset {
    /// Returns the text with the report's signs in these characters.
    pub(super) fn show(self, text: &str) -> Cow<'_, str> {
        if self == Self::Unicode || text.is_ascii() {
            return text.into();
        }
        let mut shown = String::with_capacity(text.len());
        for letter in text.chars() {
            match SIGNS.iter().find(|(sign, _)| *sign == letter) {
                Some((_, ascii)) => shown.push_str(ascii),
                None => shown.push(letter),
            }
        }
        shown.into()
    }

    /// The width of a text as it is shown.
    pub(super) fn width(self, text: &str) -> usize {
        width(&self.show(text))
    }

    /// The text in at most `room` columns: a longer one loses its middle, since names differ at
    /// both ends.
    pub(super) fn shorten(self, text: &str, room: usize) -> String {
        if self.width(text) <= room {
            return text.to_owned();
        }
        let kept = room.saturating_sub(self.width(MORE));
        let tail_room = kept / 2;
        let head_room = kept - tail_room;
        let head = fitting(text.chars(), head_room);
        let tail: Vec<char> = fitting(text.chars().rev(), tail_room).chars().collect();
        let tail = tail.into_iter().rev();
        head.chars().chain(MORE.chars()).chain(tail).collect()
    }
}

/// The first characters that fit.
fn fitting(letters: impl Iterator<Item = char>, room: usize) -> String {
    let mut used = 0;
    letters
        .take_while(|letter| {
            used += letter.width().unwrap_or(0);
            used <= room
        })
        .collect()
}

/// The columns that a text takes in a terminal; wide characters take two.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The text in a style of a terminal, if colours are wanted.
pub(super) fn paint(text: &str, style: &str, colours: bool) -> String {
    if colours {
        format!("\u{1b}[{style}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// Output in a set of characters.
pub(super) struct CharsetWriter<'a> {
    pub(super) charset: Charset,
    pub(super) out: &'a mut dyn Write,
}

impl Write for CharsetWriter<'_> {
    /// Takes text as formatting gives it, which is never cut inside a character.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.out.write_all(self.charset.show(text).as_bytes())?,
            Err(_) => self.out.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_both_ends() {
        let shorten = |text, room| Charset::Unicode.shorten(text, room);
        assert_eq!(shorten("std::vector<int>::push_back", 15), "std::ve…sh_back");
        assert_eq!(shorten("größe", 5), "größe");
        assert_eq!(shorten("größer", 5), "gr…er");
        assert_eq!(shorten("abc", 0), "…");
        assert_eq!(Charset::Ascii.shorten("abcdefgh", 7), "ab…gh");
        assert_eq!(Charset::Ascii.width("ab…gh"), 7);
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(width("日本語"), 6);
        for room in 1..7 {
            let short = Charset::Unicode.shorten("日本語の名前", room);
            assert!(width(&short) <= room, "{room}: {short}");
        }
    }

    #[test]
    fn signs_have_ascii_forms() {
        assert_eq!(Charset::Ascii.show("a ← b · ±5 % … é"), "a <- b - +-5 % ... é");
        assert_eq!(Charset::Unicode.show("a ← b"), "a ← b");
        let mut bytes = Vec::new();
        let mut out = CharsetWriter {
            charset: Charset::Ascii,
            out: &mut bytes,
        };
        write!(out, "{} ← {}", 1, MORE).unwrap();
        assert_eq!(bytes, b"1 <- ...");
    }
}
