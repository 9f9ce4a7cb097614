//! Types of the whole project: each name once, methods in few files, and short names of maps.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::source::{self, TestFiles, TextFile, Violation};

/// Files that a type's inherent `impl` blocks may be spread over.
const MAX_IMPL_FILES: usize = 2;

/// The kernel keeps 15 characters of a map's name (`BPF_OBJ_NAME_LEN` with the closing zero).
const MAX_MAP_NAME: usize = 15;

/// Parsed files of the project, without those that are for tests alone.
pub(crate) struct Parsed<'a>(Vec<(&'a TextFile, syn::File)>);

impl<'a> Parsed<'a> {
    /// Parses the project's Rust files.
    pub(crate) fn of(files: &'a [TextFile]) -> Result<Self> {
        let mut parsed = files
            .iter()
            .filter(|file| file.is_project_rust())
            .map(|file| Ok((file, source::parse(file)?)))
            .collect::<Result<Vec<_>>>()?;
        let tests = TestFiles::find(parsed.iter().map(|(file, syntax)| (*file, syntax)));
        parsed.retain(|(file, _)| !tests.contain(&file.name));
        Ok(Self(parsed))
    }
}

/// Names of structs, enums, unions and traits that are given twice, in whichever crates.
pub(crate) fn names_given_twice(parsed: &Parsed<'_>) -> Vec<Violation> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, syntax) in &parsed.0 {
        source::for_each_item(syntax, |item| {
            let name = match item {
                syn::Item::Struct(item) => &item.ident,
                syn::Item::Enum(item) => &item.ident,
                syn::Item::Union(item) => &item.ident,
                syn::Item::Trait(item) => &item.ident,
                _ => return,
            };
            let place = format!("{}:{}", file.name, source::line(name));
            places.entry(name.to_string()).or_default().push(place);
        });
    }
    places
        .into_iter()
        .filter(|(_, places)| places.len() > 1)
        .map(|(name, places)| {
            Violation::new(
                &places[0],
                format!("{name} is also a type at {}", places[1..].join(", ")),
            )
        })
        .collect()
}

/// Types whose inherent `impl` blocks are in more than [`MAX_IMPL_FILES`] files of a crate.
pub(crate) fn scattered_methods(parsed: &Parsed<'_>) -> Vec<Violation> {
    let mut files: BTreeMap<(&str, String), BTreeSet<&str>> = BTreeMap::new();
    for (file, syntax) in &parsed.0 {
        let crate_name = file.name.split_once("/src/").map_or("", |(name, _)| name);
        source::for_each_item(syntax, |item| {
            if let syn::Item::Impl(item) = item
                && item.trait_.is_none()
                && let syn::Type::Path(path) = &*item.self_ty
                && let Some(name) = path.path.segments.last()
            {
                let key = (crate_name, name.ident.to_string());
                files.entry(key).or_default().insert(&file.name);
            }
        });
    }
    files
        .into_iter()
        .filter(|(_, files)| files.len() > MAX_IMPL_FILES)
        .map(|((_, name), files)| {
            let all: Vec<&str> = files.iter().copied().collect();
            Violation::new(
                all[0],
                format!(
                    "{name} has methods in {} files, at most {MAX_IMPL_FILES} are permitted: {}",
                    all.len(),
                    all.join(", ")
                ),
            )
        })
        .collect()
}

/// Maps of the eBPF side whose names the kernel would cut.
pub(crate) fn long_map_names(parsed: &Parsed<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (file, syntax) in &parsed.0 {
        source::for_each_item(syntax, |item| {
            if let syn::Item::Static(item) = item
                && item
                    .attrs
                    .iter()
                    .any(|attribute| attribute.path().is_ident("map"))
            {
                let name = item.ident.to_string();
                if name.len() > MAX_MAP_NAME {
                    let message = format!(
                        "map {name} has {} characters, at most {MAX_MAP_NAME} are permitted",
                        name.len()
                    );
                    violations.push(Violation::at(&file.name, source::line(&item.ident), message));
                }
            }
        });
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::modules::tests::files;
    use super::*;

    fn found(rule: fn(&Parsed<'_>) -> Vec<Violation>, texts: &[(&str, &str)]) -> Vec<String> {
        let files = files(texts);
        let violations = rule(&Parsed::of(&files).expect("valid Rust"));
        violations
            .into_iter()
            .map(|violation| format!("{}: {}", violation.place, violation.message))
            .collect()
    }

    #[test]
    fn a_name_given_twice_is_found() {
        let texts = [
            ("a/src/lib.rs", "struct Row;\nfn f() { enum Inner {} }\n"),
            (
                "b/src/lib.rs",
                "\ntrait Row {}\n#[cfg(test)]\nmod tests { struct Inner; }\n",
            ),
            ("b/src/x.rs", "#[cfg(test)]\nmod made;\nstruct Other;\n"),
            ("b/src/x/made.rs", "struct Other;\n"),
            ("tests/fixtures/row.rs", "struct Row;\n"),
        ];
        assert_eq!(
            found(names_given_twice, &texts),
            ["a/src/lib.rs:1: Row is also a type at b/src/lib.rs:2"]
        );
    }

    #[test]
    fn methods_in_three_files_are_found() {
        let mut texts = vec![
            ("a/src/one.rs", "impl<T> Table<T> {}\nimpl Drop for Table {}\n"),
            (
                "a/src/three.rs",
                "impl Drop for Table {}\nmod m { impl super::Table {} }\n",
            ),
            ("b/src/two.rs", "impl Table {}\n"),
        ];
        assert!(found(scattered_methods, &texts).is_empty());
        texts.push(("a/src/two.rs", "impl Table {}\n"));
        assert_eq!(
            found(scattered_methods, &texts),
            [
                "a/src/one.rs: Table has methods in 3 files, at most 2 are permitted: \
              a/src/one.rs, a/src/three.rs, a/src/two.rs"
            ]
        );
    }

    #[test]
    fn a_long_name_of_a_map_is_found() {
        let text = "#[map]\nstatic FIFTEEN_LETTERS: A = 1;\n#[map]\nstatic SIXTEEN__LETTERS: A = 1;\nstatic AND_SOMETHING_ELSE: A = 1;\n";
        assert_eq!(
            found(long_map_names, &[("a/src/maps.rs", text)]),
            ["a/src/maps.rs:4: map SIXTEEN__LETTERS has 16 characters, at most 15 are permitted"]
        );
    }
}
