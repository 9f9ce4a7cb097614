//! The width of text in characters, and its style on a terminal.

/// Faint text.
pub(super) const DIM: &str = "2";

/// Bold text.
pub(super) const BOLD: &str = "1";

/// The mark of omitted text.
pub(super) const MORE: &str = "…";

/// The text in a style of a terminal, if colours are wanted.
pub(super) fn paint(text: &str, style: &str, colours: bool) -> String {
    if colours {
        format!("\u{1b}[{style}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// The text's width.
pub(super) fn width(text: &str) -> usize {
    text.chars().count()
}

/// The text in at most `room` characters: a longer one loses its middle, since names differ at both
/// ends.
pub(super) fn shorten(text: &str, room: usize) -> String {
    let long = width(text);
    if long <= room {
        return text.to_owned();
    }
    let kept = room.saturating_sub(1);
    let tail = kept / 2;
    let head = kept - tail;
    let start = text.chars().take(head);
    let end = text.chars().skip(long - tail);
    start.chain(MORE.chars()).chain(end).collect()
}
