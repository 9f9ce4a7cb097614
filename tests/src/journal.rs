//! The commands that a test has run so far, for the report of its failure.

use std::cell::RefCell;

use crate::Finished;

/// The number of bytes of each stream that are kept: the end of it, where errors are.
const KEPT_BYTES: usize = 4000;

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Forgets everything: a test begins.
pub fn clear() {
    LINES.with_borrow_mut(Vec::clear);
}

/// Adds a command that has ended.
pub fn add(finished: &Finished) {
    note(&format!("$ {}\n{}", finished.command, finished.status));
    for (name, text) in [("stderr", &finished.stderr), ("stdout", &finished.stdout)] {
        if !text.trim().is_empty() {
            note(&format!("--- {name}\n{}", tail(text)));
        }
    }
}

/// Adds lines of the test's own.
pub fn note(text: &str) {
    LINES.with_borrow_mut(|lines| lines.extend(text.trim_end().lines().map(str::to_owned)));
}

/// Everything since the test began, indented.
#[must_use]
pub fn read() -> String {
    LINES.with_borrow(|lines| {
        lines
            .iter()
            .map(|line| format!("    {line}"))
            .collect::<Vec<_>>()
            .join("\n")
    })
}

fn tail(text: &str) -> String {
    let mut start = text.len().saturating_sub(KEPT_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    if start == 0 {
        text.to_owned()
    } else {
        format!("… {}", &text[start..])
    }
}
