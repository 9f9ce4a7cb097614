//! Text inside a page: names from outside end no element and begin none.

use std::borrow::Cow;
use std::io::{self, Write};

use serde_json::ser::Formatter;

/// Writes JSON that can stand in a `script` element: the characters that could end the element or
/// begin a comment, and the two that end a line of a script, are escaped. They occur in strings
/// alone, where JSON permits to write any character as `\u003c`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ScriptFormatter;

impl Formatter for ScriptFormatter {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (before, from) = rest.split_at(at);
            out.write_all(before.as_bytes())?;
            let mut characters = from.chars();
            if let Some(character) = characters.next() {
                write!(out, "\\u{:04x}", u32::from(character))?;
            }
            rest = characters.as_str();
        }
        out.write_all(rest.as_bytes())
    }
}

/// Text as it stands between the tags of an element.
pub(super) fn element_text(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>']) {
        return Cow::Borrowed(text);
    }
    let escaped = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::{Serializer, Value};

    use super::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        text.serialize(&mut Serializer::with_formatter(&mut out, ScriptFormatter))
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn markup_is_escaped_and_reads_back() {
        for text in [
            "</script><script>alert(1)</script>",
            "<!--<script>",
            "]]>&lt;\u{2028}\u{2029}\"\\\u{0}",
            "std::vector<int>& é 😀",
            "<<>>&&",
            "",
        ] {
            let json = written(text);
            assert!(!json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{json}");
            assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), text);
        }
        assert_eq!(written("a<b"), r#""a\u003cb""#);
        assert_eq!(written("\u{2029}"), r#""\u2029""#);
    }

    #[test]
    fn titles_have_no_markup() {
        assert_eq!(element_text("a</title>&b"), "a&lt;/title&gt;&amp;b");
        assert!(matches!(element_text("plain"), Cow::Borrowed("plain")));
    }
}
