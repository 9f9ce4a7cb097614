//! Messages on standard error. All of them go through [`line()`], so that no text from outside
//! reaches a terminal as it is, and none ends memtap: standard error may be closed, full, or a
//! terminal that has gone.

pub(crate) mod escape;

use std::fmt::{Arguments, Display};
use std::io::Write as _;

/// Prints a message on a line of its own, escaped. It is lost where standard error takes nothing.
pub(crate) fn line(text: &dyn Display) {
    let mut text = escape::one_line(&text.to_string()).into_owned();
    text.push('\n');
    put(text.as_bytes());
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
