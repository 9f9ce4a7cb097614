//! The page around the data: elements, style, script, and the policy that permits these alone.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

use super::escape::element_text;

/// The elements. A place is `{{NAME}}`.
const PAGE: &str = include_str!("page/page.html");

const STYLE: &str = include_str!("page/page.css");

/// The parts of the script, in one function, so that nothing of it is global.
const SCRIPT: &str = concat!(
    "'use strict';\n(() => {\n",
    include_str!("page/data.js"),
    include_str!("page/tree.js"),
    include_str!("page/tables.js"),
    include_str!("page/graph.js"),
    include_str!("page/panels.js"),
    include_str!("page/page.js"),
    "})();\n",
);

/// Writes the page, with the data where it belongs.
pub(super) fn write<W: Write>(
    out: &mut W,
    title: &str,
    data: impl Fn(&mut W) -> io::Result<()>,
) -> io::Result<()> {
    let mut parts = PAGE.split("{{");
    write!(out, "{}", parts.next().unwrap_or_default())?;
    for part in parts {
        let (place, after) = part.split_once("}}").unwrap_or(("", part));
        match place {
            "title" => write!(out, "{}", element_text(title))?,
            "policy" => write!(out, "{}", policy())?,
            "style" => write!(out, "{STYLE}")?,
            "script" => write!(out, "{SCRIPT}")?,
            "data" => data(out)?,
            _ => {}
        }
        write!(out, "{after}")?;
    }
    Ok(())
}

/// Returns the Content Security Policy: this style and this script, by their hashes, and nothing
/// else from anywhere.
fn policy() -> String {
    let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> String {
        let mut out = Vec::new();
        write(&mut out, "a<b", |out| write!(out, "DATA")).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_place_is_filled_once() {
        let page = page();
        assert!(!page.contains("{{") && !page.contains("}}"));
        assert_eq!(page.matches("<title>a&lt;b</title>").count(), 1);
        assert_eq!(page.matches(">DATA</script>").count(), 1);
        for place in ["title", "policy", "style", "script", "data"] {
            assert_eq!(PAGE.matches(&format!("{{{{{place}}}}}")).count(), 1, "{place}");
        }
    }

    #[test]
    fn style_and_script_are_what_was_hashed() {
        let page = page();
        let between = |start: &str, end: &str| {
            let (_, rest) = page.split_once(start).unwrap();
            rest.split_once(end).unwrap().0.to_owned()
        };
        assert_eq!(between("<style>", "</style>"), STYLE);
        assert_eq!(between("<script>", "</script>"), SCRIPT);
        let (_, policy) = policy()
            .split_once("sha256-")
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        // 32 bytes in base64.
        assert_eq!(policy.find('\''), Some(44));
    }

    #[test]
    fn nothing_comes_from_outside() {
        let page = page();
        for word in [
            "http:",
            "https:",
            "src=",
            "@import",
            "url(",
            "fetch(",
            "XMLHttpRequest",
            "innerHTML",
            "eval(",
        ] {
            assert!(!page.contains(word), "{word}");
        }
        for handler in ["onclick=", "onload=", "style="] {
            assert!(!page.contains(handler), "{handler}");
        }
    }

    #[test]
    fn page_is_small() {
        assert!(page().len() < 100_000, "{} bytes", page().len());
    }
}
