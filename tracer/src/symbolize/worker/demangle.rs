//! Names of functions as their language writes them, from the names that compilers give symbols.

use std::borrow::Cow;
use std::fmt;

use cpp_demangle::{DemangleOptions, Symbol};

/// Bytes that a name is written out to; no name keeps as many. A name of 200 bytes can stand for
/// one of gigabytes.
const MAX_WRITTEN_BYTES: usize = 16 << 10;

/// Returns true if a name is a mangled one of C++ or Rust, which holds namespaces and types.
pub(super) fn is_mangled(name: &str) -> bool {
    name.starts_with("_Z") || name.starts_with("_R")
}

/// Returns true for a mangled name of Rust.
pub(super) fn is_rust(name: &str) -> bool {
    rustc_demangle::try_demangle(name).is_ok()
}

/// Returns the name as its language writes it; names that are not mangled stay.
pub(super) fn demangle(name: &str) -> Cow<'_, str> {
    if !is_mangled(name) {
        return literal_operators(name);
    }
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        // Without hashes.
        return Cow::Owned(format!("{rust:#}"));
    }
    match cpp(name, DemangleOptions::new()) {
        Some(cpp) => Cow::Owned(cpp),
        None => Cow::Borrowed(name),
    }
}

/// A C++ function for names of what is inside it: without its return type.
pub(super) fn demangle_scope(name: &str) -> Option<String> {
    cpp(without_suffix(name), DemangleOptions::new().no_return_type())
}

/// A mangled name without what the compiler adds for a part or a copy of a function, such as
/// `.part.0`.
pub(super) fn without_suffix(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

fn cpp(name: &str, options: DemangleOptions) -> Option<String> {
    let symbol = Symbol::new(name).ok()?;
    let mut written = Bounded::default();
    let whole = symbol.structured_demangle(&mut written, &options).is_ok();
    // What is cut is cut again.
    (whole || written.is_full).then(|| literal_operators(&written.text).into_owned())
}

/// Text of bounded length.
#[derive(Default)]
struct Bounded {
    text: String,
    is_full: bool,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if self.text.len() + more.len() > MAX_WRITTEN_BYTES {
            self.is_full = true;
            return Err(fmt::Error);
        }
        self.text.push_str(more);
        Ok(())
    }
}

/// The operator of a literal, as the demangler writes it behind the literal's suffix.
const WRITTEN_LITERAL: &str = "::operator \"\"";

/// Returns the name with operators of literals as `operator "" _kb`: the demangler writes
/// `operator_kb::operator ""`, and GCC's debug information `operator""_kb`.
fn literal_operators(name: &str) -> Cow<'_, str> {
    let mut name = Cow::Borrowed(name);
    let mut from = 0;
    while let Some(at) = name[from..].find(WRITTEN_LITERAL) {
        let (before, tail) = name.split_at(from + at);
        let tail = &tail[WRITTEN_LITERAL.len()..];
        let begin = before.rfind(|c: char| !(c.is_alphanumeric() || c == '_'));
        let begin = begin.map_or(0, |at| at + 1);
        let suffix = before
            .get(begin..)
            .and_then(|suffix| suffix.strip_prefix("operator"));
        // `ns::operator "" _kb` is as it should be.
        let Some(suffix) = suffix.filter(|suffix| !suffix.is_empty()) else {
            from += at + WRITTEN_LITERAL.len();
            continue;
        };
        let written = format!("{}operator \"\" {suffix}", &before[..begin]);
        from = written.len();
        name = Cow::Owned(written + tail);
    }
    if name.contains("operator\"\"") {
        name = Cow::Owned(
            name.replace("operator\"\" ", "operator\"\"")
                .replace("operator\"\"", "operator \"\" "),
        );
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_languages_are_written_out() {
        for (name, expected) in [
            ("main", "main"),
            ("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write"),
            ("_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar"),
            ("_ZN2ns3fooEi", "ns::foo(int)"),
            ("_ZL6helperi.part.0", "helper(int) [clone .part.0]"),
            (
                "_ZZ4mainENKUliE_clEi",
                "main::{lambda(int)#1}::operator()(int) const",
            ),
            ("_Znwm", "operator new(unsigned long)"),
            ("_Zno_such_thing", "_Zno_such_thing"),
        ] {
            assert_eq!(demangle(name), expected);
        }
        assert_eq!(
            demangle_scope("_Z3runIiEiT_.cold").as_deref(),
            Some("run<int>(int)")
        );
    }

    #[test]
    fn operators_of_literals_keep_their_names() {
        for (name, expected) in [
            ("_Zli3_kby", "operator \"\" _kb(unsigned long long)"),
            ("_ZN2nsli3_kbEy", "ns::operator \"\" _kb(unsigned long long)"),
            (
                "_ZZN2nsli3_kbEyENKUlvE_clEv",
                "ns::operator \"\" _kb(unsigned long long)::{lambda()#1}::operator()() const",
            ),
            ("operator\"\"_kb", "operator \"\" _kb"),
            ("operator\"\" _kb", "operator \"\" _kb"),
        ] {
            assert_eq!(demangle(name), expected);
        }
    }

    #[test]
    fn small_name_of_a_huge_one_is_cut() {
        // Each type has the last one twice: 2^40 of them in the end.
        let mut name = String::from("_Z1f1AIiiE");
        for level in 0..40 {
            let number = 2 * level;
            let digits =
                [number / 36, number % 36].map(|digit| std::char::from_digit(digit, 36).expect("one"));
            let digits = String::from_iter(digits).to_ascii_uppercase();
            let last = digits.strip_prefix('0').unwrap_or(&digits);
            name.extend(["1BIS", last, "_S", last, "_E"]);
        }
        let written = demangle(&name);
        assert!(
            written.starts_with("f(A<int, int>, B<A<int, int>, A<int, int> >, "),
            "{written}"
        );
        assert!((MAX_WRITTEN_BYTES / 2..=MAX_WRITTEN_BYTES).contains(&written.len()));
    }
}
