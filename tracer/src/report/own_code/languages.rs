//! Functions of Rust's and C++'s standard libraries, by their names and source files.

use crate::report::names::function_path;

/// Starts of paths of Rust's standard library. `hashbrown` is its hash table.
const RUST: &[&str] = &[
    "alloc::",
    "core::",
    "std::",
    "hashbrown::",
    "__rustc::",
    "__rust_",
    "__rdl_",
    "__rg_",
    "rust_begin_unwind",
];

/// Starts of paths of C++'s standard library.
const CPP: &[&str] = &["std::", "__gnu_cxx::", "__cxxabiv1::", "__cxa_"];

/// Returns true if a function is a standard library's. `source` is its file as the debug
/// information names it, where that is known.
pub(super) fn is_library(name: &str, source: Option<&str>) -> bool {
    if source.is_some_and(is_library_source) {
        return true;
    }
    // Namespaces such as `core` are common in C++, and its names have parameters.
    let is_cpp = source.map_or_else(
        || name.ends_with(')') || name.ends_with(" const"),
        |file| !has_extension(file, "rs"),
    );
    if is_cpp {
        return starts_with_any(function_path(name), CPP);
    }
    is_rust_library(name) || starts_with_any(name, CPP)
}

/// Returns true for the source of a standard library, as the compiler that is shipped names it:
/// `/rustc/HASH/library/…`, or a toolchain's copy of it; `/usr/include/c++/…`, `/c++/v1/…`.
fn is_library_source(file: &str) -> bool {
    let rust = file
        .strip_prefix("/rustc/")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(_, rest)| rest.starts_with("library/"));
    rust || file.contains("/rustlib/src/rust/library/")
        || file.starts_with("library/std/src/")
        || file.starts_with("library/core/src/")
        || file.starts_with("library/alloc/src/")
        || file.contains("/rust/deps/")
        || file.contains("/include/c++/")
        || file.contains("/c++/v1/")
}

fn has_extension(file: &str, extension: &str) -> bool {
    file.rsplit_once('.').is_some_and(|(_, last)| last == extension)
}

fn starts_with_any(name: &str, starts: &[&str]) -> bool {
    starts.iter().any(|start| name.starts_with(start))
}

/// Returns true if the name is of Rust's standard library: `alloc::vec::Vec<T,A>::push`, a method
/// of one of its types, or one of its traits for a type that is no program's
/// (`<T as alloc::string::ToString>::to_string`).
fn is_rust_library(name: &str) -> bool {
    let Some(inside) = name.strip_prefix('<').and_then(up_to_closing) else {
        return starts_with_any(name, RUST);
    };
    match split_as(inside) {
        // An allocator behind Rust's interface for one.
        Some((_, of_trait)) if of_trait.ends_with("GlobalAlloc") => true,
        Some((of_type, of_trait)) => {
            starts_with_any(of_trait.trim_start_matches('<'), RUST) && is_foreign_type(of_type)
        }
        None => is_foreign_type(inside),
    }
}

/// Returns the text up to the bracket that closes one before it.
fn up_to_closing(text: &str) -> Option<&str> {
    let mut depth = 1;
    let mut before = ' ';
    for (at, letter) in text.char_indices() {
        match letter {
            '<' => depth += 1,
            // Of `->`, in the type of a function.
            '>' if before != '-' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&text[..at]);
        }
        before = letter;
    }
    None
}

/// Splits `type as trait` outside brackets.
fn split_as(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_i32;
    for (at, letter) in text.char_indices() {
        match letter {
            '<' | '(' | '[' => depth += 1,
            '>' | ')' | ']' => depth -= 1,
            ' ' if depth == 0 && text[at..].starts_with(" as ") => {
                return Some((&text[..at], &text[at + " as ".len()..]));
            }
            _ => {}
        }
    }
    None
}

/// Returns true for a type that is no program's: the standard library's, the language's, or a type
/// parameter (`T`).
fn is_foreign_type(text: &str) -> bool {
    let text = text.trim_start_matches(['&', '*', '[', '(', '<']);
    let text = ["mut ", "const ", "dyn "]
        .iter()
        .fold(text, |text, word| text.strip_prefix(word).unwrap_or(text));
    let end = text
        .find(|letter: char| !(letter.is_alphanumeric() || letter == '_' || letter == ':'))
        .unwrap_or(text.len());
    let path = &text[..end];
    starts_with_any(path, RUST) || !path.contains("::") && (is_primitive(path) || is_parameter(path))
}

fn is_primitive(word: &str) -> bool {
    const PRIMITIVES: [&str; 19] = [
        "", "bool", "char", "str", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64",
        "i128", "isize", "f32", "f64", "fn",
    ];
    PRIMITIVES.contains(&word)
}

/// Returns true for a name like `T`, `K2` or `F`.
fn is_parameter(word: &str) -> bool {
    let mut letters = word.chars();
    letters.next().is_some_and(|first| first.is_ascii_uppercase())
        && letters.all(|letter| letter.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust() {
        for name in [
            "alloc::alloc::alloc",
            "<alloc::alloc::Global>::alloc_impl",
            "alloc::vec::Vec<T,A>::push",
            "<alloc::vec::Vec<T> as alloc::vec::spec_from_iter::SpecFromIter<T,I>>::from_iter",
            "<alloc::vec::Vec<app::Row> as core::clone::Clone>::clone",
            "<T as alloc::string::SpecToString>::spec_to_string",
            "<&dyn core::ops::function::Fn<()> as core::ops::function::FnOnce<()>>::call_once",
            "<[T] as alloc::slice::hack::ConvertVec>::to_vec",
            "<str as alloc::string::ToString>::to_string",
            "<u64 as core::fmt::Display>::fmt",
            "<str>::to_owned",
            "<F as core::ops::function::FnOnce>::call_once",
            "<fn() -> app::Row as core::ops::function::FnOnce<()>>::call_once",
            "core::ops::function::FnOnce::call_once{{vtable.shim}}",
            "core::ops::function::FnOnce::call_once::<app::main::{closure#0}, ()>",
            "hashbrown::raw::RawTable<T,A>::reserve_rehash",
            "__rustc::__rust_alloc",
            "<tikv_jemallocator::Jemalloc as core::alloc::global::GlobalAlloc>::alloc",
        ] {
            assert!(is_library(name, None), "{name}");
        }
        for name in [
            "app::main",
            "app::main::{{closure}}",
            "<app::Row as core::clone::Clone>::clone",
            "<app::Row>::new",
            "<alloc::vec::Vec<T> as app::Rows>::rows",
            "<T as app::Named>::name",
            "core_main",
            "stdio::read",
            "main",
            "<",
        ] {
            assert!(!is_library(name, Some("/app/src/main.rs")), "{name}");
        }
    }

    #[test]
    fn rust_by_its_source() {
        for file in [
            "/rustc/59807616e1fa/library/alloc/src/raw_vec.rs",
            "/opt/rust/toolchains/stable/lib/rustlib/src/rust/library/core/src/iter/mod.rs",
            "/rust/deps/hashbrown-0.15.5/src/raw/mod.rs",
        ] {
            assert!(is_library("grow", Some(file)), "{file}");
        }
        // The compiler's own code has such a path too.
        for file in [
            "/rustc/59807616e1fa/compiler/rustc_span/src/lib.rs",
            "/app/library/a.rs",
        ] {
            assert!(!is_library("grow", Some(file)), "{file}");
        }
    }

    #[test]
    fn cpp() {
        for name in [
            "std::vector<int, std::allocator<int> >::push_back(int const&)",
            "void std::vector<int>::_M_realloc_insert<int>(int*, int&&)",
            "std::basic_ostream<char>& std::operator<< <char>(std::basic_ostream<char>&, char const*)",
            "std::_Rb_tree<int, app::Row>* std::copy<app::Row>(app::Row*)",
            "__gnu_cxx::new_allocator<char>::allocate(unsigned long, void const*)",
            "__cxa_allocate_exception",
        ] {
            assert!(is_library(name, None), "{name}");
        }
        for name in [
            "core::Engine::run(std::vector<int>&)",
            "std::vector<int> app::rows(int)",
            "app::operator<<(std::ostream&, app::Row const&)",
            "(anonymous namespace)::make(std::string)",
            "app::Row::operator std::string() const",
            "main",
        ] {
            assert!(!is_library(name, Some("/app/src/engine.cpp")), "{name}");
        }
        // Without a source file the parameters tell that it is C++.
        assert!(!is_library("core::Engine::run(std::vector<int>&)", None));
        assert!(is_library(
            "allocate",
            Some("/usr/include/c++/12/bits/new_allocator.h")
        ));
        assert!(is_library("push", Some("/usr/lib/llvm-14/include/c++/v1/vector")));
    }
}
