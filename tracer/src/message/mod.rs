//! Messages on standard error. All of them go through [`line()`], so that no text from outside
//! reaches a terminal as it is, and none ends memtap: standard error may be closed, full, or a
//! terminal that has gone.

pub(crate) mod escape;

use std::borrow::Cow;
use std::fmt::{Arguments, Display};
use std::io::Write as _;

/// Prints a message on a line of its own, escaped. It is lost where standard error takes nothing.
pub(crate) fn line(text: &dyn Display) {
    let mut text = in_words(&text.to_string());
    text.push('\n');
    put(text.as_bytes());
}

/// The text of a message as it is printed: on one line, escaped, with errors in words alone.
pub(crate) fn in_words(text: &str) -> String {
    escape::one_line(&without_error_numbers(text)).into_owned()
}

/// Takes out the numbers that [`std::io::Error`] adds to the words of an error.
pub(crate) fn without_error_numbers(text: &str) -> Cow<'_, str> {
    const BEFORE: &str = " (os error ";
    if !text.contains(BEFORE) {
        return Cow::Borrowed(text);
    }
    let mut parts = text.split(BEFORE);
    let mut words = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.parse::<i32>().is_ok() => words.push_str(rest),
            _ => {
                words.push_str(BEFORE);
                words.push_str(part);
            }
        }
    }
    Cow::Owned(words)
}

/// Prints a message of memtap's, which is named before it.
pub(crate) fn say(text: Arguments<'_>) {
    line(&format_args!("memtap: {text}"));
}

/// Prints the message of something that failed.
pub(crate) fn fail(text: Arguments<'_>) {
    line(&format_args!("memtap: error: {text}"));
}

/// Prints several lines of memtap's own, such as a help text: its line breaks stay.
pub(crate) fn block(text: &str) {
    put(escape::lines(text).as_bytes());
}

fn put(bytes: &[u8]) {
    // In one write, so that lines of several threads and programs do not mix. There is nobody left
    // to tell that this has failed.
    let _is_lost = std::io::stderr().lock().write_all(bytes).is_err();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_in_words_alone() {
        let error = std::io::Error::from_raw_os_error(2);
        assert_eq!(
            in_words(&format!("failed to open a: {error}; also b: {error}")),
            "failed to open a: No such file or directory; also b: No such file or directory"
        );
        for text in ["a (os error )", "a (os error x)", "a (os error 2", "a (os error"] {
            assert_eq!(in_words(text), text);
        }
        assert_eq!(in_words("\u{1b}[2J (os error 5)"), "\\u{1b}[2J");
    }
}
