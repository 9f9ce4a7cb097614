//! Rust source as lint reads it: parsed files, module paths, and what belongs to tests.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use syn::visit::{self, Visit};

/// A file of the repository.
#[derive(Debug, Clone)]
pub(crate) struct TextFile {
    /// Its path from the repository's root.
    pub(crate) name: String,
    /// Its contents.
    pub(crate) text: String,
}

impl TextFile {
    #[cfg(test)]
    pub(crate) fn new(name: &str, text: &str) -> Self {
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
        }
    }

    /// True where the name ends in a dot and `extension`.
    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.name)
            .extension()
            .is_some_and(|found| found == extension)
    }

    /// True for Rust of the project itself: fixtures and the demo are programs to be
    /// traced, and fuzz targets are a workspace of their own.
    pub(crate) fn is_project_rust(&self) -> bool {
        let foreign = ["tests/fixtures/", "tests/fuzz/", "xtask/demo/"];
        self.has_extension("rs") && !foreign.iter().any(|prefix| self.name.starts_with(prefix))
    }
}

/// A breach of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// `FILE:LINE`, or a file alone.
    pub(crate) place: String,
    /// The breach in one line.
    pub(crate) message: String,
}

impl Violation {
    pub(crate) fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            message: message.into(),
        }
    }

    pub(crate) fn at(file: &str, line: usize, message: impl Into<String>) -> Self {
        Self::new(format!("{file}:{line}"), message)
    }
}

/// The syntax tree of a file.
pub(crate) fn parse(file: &TextFile) -> Result<syn::File> {
    syn::parse_file(&file.text).with_context(|| format!("failed to parse {}", file.name))
}

/// The line that a piece of syntax begins at.
pub(crate) fn line(syntax: &impl syn::spanned::Spanned) -> usize {
    syntax.span().start().line
}

/// True where attributes restrict an item to test builds.
pub(crate) fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Ok(list) = attribute.meta.require_list() else {
            return attribute.path().is_ident("test");
        };
        let words: Vec<String> = list
            .tokens
            .to_string()
            .split(|character: char| !(character.is_alphanumeric() || character == '_'))
            .map(str::to_owned)
            .collect();
        let has = |word: &str| words.iter().any(|found| found == word);
        list.path.is_ident("cfg") && has("test") && !has("not")
    })
}

/// The attributes of an item, where its kind matters to lint.
pub(crate) fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Union(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The directory of a file's child modules: `a/mod.rs` has them in `a`, `a/b.rs` in `a/b`.
pub(crate) fn children_directory(name: &str) -> String {
    let (directory, file) = name.rsplit_once('/').unwrap_or(("", name));
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    if ["mod", "lib", "main"].contains(&stem) {
        directory.to_owned()
    } else if directory.is_empty() {
        stem.to_owned()
    } else {
        format!("{directory}/{stem}")
    }
}

/// Files that are compiled for tests alone, by the `#[cfg(test)] mod …;` of their parents.
pub(crate) struct TestFiles {
    files: BTreeSet<String>,
    directories: BTreeSet<String>,
}

impl TestFiles {
    /// Looks for declarations of test modules in parsed files.
    pub(crate) fn find<'a>(parsed: impl IntoIterator<Item = (&'a TextFile, &'a syn::File)>) -> Self {
        let mut files = BTreeSet::new();
        let mut directories = BTreeSet::new();
        for (file, syntax) in parsed {
            for item in &syntax.items {
                if let syn::Item::Mod(module) = item
                    && module.content.is_none()
                    && is_test_only(&module.attrs)
                {
                    let child = format!("{}/{}", children_directory(&file.name), module.ident);
                    files.insert(format!("{child}.rs"));
                    directories.insert(format!("{child}/"));
                }
            }
        }
        Self { files, directories }
    }

    /// True where a file is compiled for tests alone.
    pub(crate) fn contain(&self, name: &str) -> bool {
        let below = |directory: &String| name.starts_with(directory.as_str());
        self.files.contains(name) || self.directories.iter().any(below)
    }
}

/// Calls `found` for every item outside of tests, those inside of functions and modules included.
pub(crate) fn for_each_item<'a>(syntax: &'a syn::File, found: impl FnMut(&'a syn::Item)) {
    struct Items<F>(F);
    impl<'a, F: FnMut(&'a syn::Item)> Visit<'a> for Items<F> {
        fn visit_item(&mut self, item: &'a syn::Item) {
            if !is_test_only(attributes(item)) {
                (self.0)(item);
                visit::visit_item(self, item);
            }
        }
    }
    Items(found).visit_file(syntax);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_children() {
        assert_eq!(children_directory("tracer/src/lib.rs"), "tracer/src");
        assert_eq!(children_directory("tracer/src/bpf/mod.rs"), "tracer/src/bpf");
        assert_eq!(children_directory("tracer/src/profile.rs"), "tracer/src/profile");
    }

    #[test]
    fn files_of_tests() {
        let file = TextFile::new("a/src/b.rs", "#[cfg(test)]\nmod golden;\nmod real;\n");
        let syntax = parse(&file).expect("valid Rust");
        let tests = TestFiles::find([(&file, &syntax)]);
        assert!(tests.contain("a/src/b/golden.rs"));
        assert!(tests.contain("a/src/b/golden/deep.rs"));
        assert!(!tests.contain("a/src/b/real.rs"));
    }

    #[test]
    fn attributes_of_tests() {
        let only = |text: &str| {
            let file = syn::parse_file(text).expect("valid Rust");
            is_test_only(attributes(&file.items[0]))
        };
        assert!(only("#[cfg(test)] mod a {}"));
        assert!(only("#[cfg(any(test, feature = \"x\"))] use a::b;"));
        assert!(!only("#[cfg(not(test))] mod a {}"));
        assert!(!only("#[cfg(feature = \"bench\")] mod a {}"));
    }
}
