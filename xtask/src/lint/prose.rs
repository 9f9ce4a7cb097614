//! Comments: their width, and the words that documentation opens with.

use std::collections::BTreeMap;

use super::source::{TextFile, Violation};

/// The last column of a comment.
const MAX_COLUMNS: usize = 100;

/// Words that turn documentation into an answer to a question nobody asked.
const QUESTION_WORDS: &[&str] = &["What", "How", "Whether", "Where", "Who"];

/// Of a thousand openings, those that may be such words: in rare sentences nothing else is as
/// plain.
const MAX_PER_MILLE: usize = 40;

/// Comment lines that are too wide. A line of one word (an address) cannot be broken.
pub(crate) fn wide_comments(files: &[TextFile]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files {
        let Some(mark) = comment_mark(&file.name) else {
            continue;
        };
        for (number, line) in (1..).zip(file.text.lines()) {
            let columns = line.chars().count();
            if let Some(comment) = line.trim_start().strip_prefix(mark)
                && columns > MAX_COLUMNS
                && comment
                    .trim_start_matches(['/', '!'])
                    .split_whitespace()
                    .nth(1)
                    .is_some()
            {
                let message = format!("comment of {columns} columns, at most {MAX_COLUMNS} are permitted");
                violations.push(Violation::at(&file.name, number, message));
            }
        }
    }
    violations
}

fn comment_mark(name: &str) -> Option<&'static str> {
    match name.rsplit_once('.')?.1 {
        "rs" | "c" | "h" | "cc" | "cpp" => Some("//"),
        "toml" | "py" | "sh" => Some("#"),
        _ => None,
    }
}

/// The first words of documentation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Openings {
    /// Documented items and modules.
    pub(crate) total: usize,
    /// Those that open with a question word.
    pub(crate) questions: Vec<Violation>,
}

impl Openings {
    /// Reads the documentation of the project's Rust files.
    pub(crate) fn read(files: &[TextFile]) -> Self {
        let mut openings = Self::default();
        for file in files.iter().filter(|file| file.is_project_rust()) {
            let mut kind_before = None;
            for (number, line) in (1..).zip(file.text.lines()) {
                let line = line.trim_start();
                let kind = ["///", "//!"].into_iter().find(|kind| line.starts_with(kind));
                if let Some(kind) = kind
                    && kind_before != Some(kind)
                {
                    openings.total += 1;
                    let word = line[kind.len()..].split_whitespace().next().unwrap_or_default();
                    let word = word.trim_end_matches([',', ':', '?', '.']);
                    if QUESTION_WORDS.contains(&word) {
                        let message = format!("documentation opens with {word}");
                        openings
                            .questions
                            .push(Violation::at(&file.name, number, message));
                    }
                }
                kind_before = kind;
            }
        }
        openings
    }

    /// The share of questions, and where they are.
    pub(crate) fn share(&self) -> String {
        let mut by_place: BTreeMap<String, usize> = BTreeMap::new();
        for violation in &self.questions {
            let parts: Vec<&str> = violation.place.split('/').collect();
            let directories = &parts[..parts.len() - 1];
            let place = directories[..directories.len().min(3)].join("/");
            *by_place.entry(place).or_default() += 1;
        }
        let places: Vec<String> = by_place
            .iter()
            .map(|(place, count)| format!("{place} {count}"))
            .collect();
        let per_mille = self.per_mille();
        format!(
            "{} of {} openings of documentation are {} ({}.{} %){}{}",
            self.questions.len(),
            self.total,
            QUESTION_WORDS.join(", "),
            per_mille / 10,
            per_mille % 10,
            if places.is_empty() { "" } else { ": " },
            places.join(", ")
        )
    }

    /// The questions, where they are too many.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        if self.per_mille() > MAX_PER_MILLE {
            self.questions.clone()
        } else {
            Vec::new()
        }
    }

    /// Rounded up, so that the limit is one.
    fn per_mille(&self) -> usize {
        (self.questions.len() * 1000).div_ceil(self.total.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_comment_is_found() {
        let wide = |mark: &str| format!("    {mark} {}\n", "word ".repeat(20));
        let places = |name: &str, text: &str| {
            let violations = wide_comments(&[TextFile::new(name, text)]);
            violations
                .into_iter()
                .map(|violation| violation.place)
                .collect::<Vec<_>>()
        };
        assert_eq!(places("a.rs", &format!("\n{}", wide("///"))), ["a.rs:2"]);
        assert_eq!(places("a.toml", &wide("#")), ["a.toml:1"]);
        assert!(places("a.md", &wide("#")).is_empty());
        assert!(places("a.rs", &format!("// {}\n", "é".repeat(97))).is_empty());
        assert!(places("a.rs", &format!("//! {}\n", "x".repeat(120))).is_empty());
        assert!(places("a.rs", &format!("// {}ab cd\n", "é ".repeat(46))).is_empty());
    }

    #[test]
    fn questions_are_found() {
        let text = "//! What this is.\n//! How it goes on.\n\n/// Whether it is.\nfn a() {}\n/// A row.\nstruct B;\n";
        let openings = Openings::read(&[TextFile::new("a/src/b.rs", text)]);
        assert_eq!(openings.total, 3);
        let places: Vec<&str> = openings
            .violations()
            .iter()
            .map(|violation| match violation.place.as_str() {
                "a/src/b.rs:1" => "module",
                "a/src/b.rs:4" => "item",
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(places, ["module", "item"]);
        assert_eq!(
            openings.share(),
            "2 of 3 openings of documentation are What, How, Whether, Where, Who (66.7 %): a/src 2"
        );
    }

    #[test]
    fn few_questions_are_permitted() {
        let text = format!(
            "/// Where it is.\nstruct A;\n{}",
            "/// A row.\nstruct B;\n".repeat(24)
        );
        let openings = Openings::read(&[TextFile::new("a/src/b.rs", &text)]);
        assert_eq!(openings.per_mille(), 40);
        assert!(openings.violations().is_empty());
    }
}
