//! Text from outside, made harmless for a terminal, for a table and for a line.
//!
//! Names of processes, paths, symbols, cgroups and arguments are chosen by whoever runs a program
//! or writes a file. On a terminal they could move the cursor, set the title or hide what stands
//! beside them.

use std::borrow::Cow;

/// The text on one line: whatever ends a line or moves to a column is a space, whatever else steers
/// a terminal or the direction of text is written as `\u{1b}`.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, false)
}

/// The text with its own line breaks; everything else is as in [`one_line`].
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, true)
}

fn escaped(text: &str, keeps_lines: bool) -> Cow<'_, str> {
    let is_kept = |it: char| !steers(it) || keeps_lines && it == '\n';
    if text.chars().all(is_kept) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for it in text.chars() {
        if is_kept(it) {
            line.push(it);
        } else if is_space(it) {
            line.push(' ');
        } else {
            line.extend(it.escape_unicode());
        }
    }
    Cow::Owned(line)
}

/// Returns true for control characters, for the two separators that some readers break lines at,
/// and for what changes the direction of text (`Bidi_Control` of Unicode's PropList.txt).
fn steers(it: char) -> bool {
    it.is_control()
        || is_space(it)
        || matches!(
            it,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Returns true for control characters and separators that are some kind of space.
fn is_space(it: char) -> bool {
    matches!(it, '\t'..='\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays() {
        for text in ["", "memtap: a b", "é ← … “x”", "שלום", "a\\u{1b}"] {
            assert!(
                matches!(one_line(text), Cow::Borrowed(same) if same == text),
                "{text}"
            );
        }
    }

    #[test]
    fn what_steers_is_spelled_out() {
        assert_eq!(
            one_line("\u{1b}]0;x\u{7}\u{1b}[31m"),
            r"\u{1b}]0;x\u{7}\u{1b}[31m"
        );
        assert_eq!(one_line("a\u{9b}2J\u{7f}\0"), r"a\u{9b}2J\u{7f}\u{0}");
        assert_eq!(
            one_line("a\r\nb\tc\u{b}\u{c}\u{85}\u{2028}\u{2029}d"),
            "a  b c     d"
        );
    }

    #[test]
    fn no_control_of_direction_is_left() {
        for it in ('\u{202a}'..='\u{202e}')
            .chain('\u{2066}'..='\u{2069}')
            .chain(['\u{61c}', '\u{200e}', '\u{200f}'])
        {
            assert_eq!(one_line(&it.to_string()), format!("\\u{{{:x}}}", u32::from(it)));
        }
    }

    #[test]
    fn own_line_breaks_can_stay() {
        assert_eq!(lines("a\nb\u{1b}\rc\n"), "a\nb\\u{1b} c\n");
        assert_eq!(lines("a\nb"), "a\nb");
    }
}
