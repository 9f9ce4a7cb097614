//! Operators of C++ in the names of functions.

const KEYWORD: &str = "operator";

/// The symbols, each before those that it begins with.
const SYMBOLS: &[&str] = &[
    "<<=", ">>=", "<=>", "->*", "()", "[]", "->", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "++", "--",
    "+=", "-=", "*=", "/=", "%=", "^=", "&=", "|=", "<", ">", "=", "!", "~", "+", "-", "*", "/", "%", "^",
    "&", "|", ",",
];

/// Operators that are words.
const WORDS: &[&str] = &["new[]", "delete[]", "new", "delete", "co_await"];

/// The name of an operator.
pub(super) enum Operator {
    /// Its name, which ends there.
    Named(usize),
    /// A conversion to a type, which begins there.
    Conversion(usize),
}

/// Returns true for the bytes of identifiers: letters of any script too.
pub(super) const fn is_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || !byte.is_ascii()
}

/// The place behind `operator` and its symbol, such as `operator<<`, if they are at `at`.
pub(super) fn symbol_at(text: &str, at: usize) -> Option<usize> {
    let rest = after_keyword(text, at)?;
    let symbol = SYMBOLS.iter().find(|symbol| {
        let Some(next) = text[rest..].strip_prefix(**symbol) else {
            return false;
        };
        // `operator<` with the argument `int` may be written `operator<<int>`.
        **symbol != "<<" || !next.bytes().next().is_some_and(is_identifier)
    });
    Some(rest + symbol?.len())
}

/// The operator at `at`, where a name of a function may begin.
pub(super) fn operator_at(text: &str, at: usize) -> Option<Operator> {
    if let Some(end) = symbol_at(text, at) {
        return Some(Operator::Named(end));
    }
    let rest = after_keyword(text, at)?;
    let tail = text[rest..].trim_start_matches(' ');
    let begin = text.len() - tail.len();
    if let Some(suffix) = tail.strip_prefix("\"\"") {
        let suffix = suffix.trim_start_matches(' ');
        let begin = text.len() - suffix.len();
        let len = suffix.bytes().take_while(|byte| is_identifier(*byte)).count();
        return (len > 0).then_some(Operator::Named(begin + len));
    }
    if begin == rest || tail.is_empty() {
        return None;
    }
    let word = WORDS.iter().find(|word| {
        let next = tail.strip_prefix(**word);
        next.is_some_and(|next| !next.bytes().next().is_some_and(is_identifier))
    });
    Some(match word {
        Some(word) => Operator::Named(begin + word.len()),
        None => Operator::Conversion(begin),
    })
}

/// The place behind the word `operator`, if it is at `at`.
fn after_keyword(text: &str, at: usize) -> Option<usize> {
    let before = at.checked_sub(1).map(|before| text.as_bytes()[before]);
    if before.is_some_and(is_identifier) || !text.as_bytes()[at..].starts_with(KEYWORD.as_bytes()) {
        return None;
    }
    let rest = at + KEYWORD.len();
    let next = text.as_bytes().get(rest);
    (!next.is_some_and(|byte| is_identifier(*byte))).then_some(rest)
}
