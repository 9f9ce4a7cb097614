//! Names of functions as people know them: a C++ or Rust function without what makes its name long.
//!
//! Names come from demanglers ([`crate::profile::FrameName::Symbol`]), and from run-time compilers,
//! which write what they like. What is no name of a C++ or Rust function stays as it is.

mod brackets;
mod function;
mod operators;

use std::borrow::Cow;

/// Returns a function's short name, for tables.
///
/// C++: no return type, no parameters, no qualifiers, no ABI tags; arguments of templates are
/// `<…>`. Rust: arguments of generic functions and hashes are left out, those of types are `<…>`.
/// Suffixes of a compiler's copies (`.part.0`, `.cold`) are left out. Closures and namespaces
/// without a name stay.
///
/// ```text
/// void std::vector<int>::push_back(int&&)                 std::vector<…>::push_back
/// <Vec<u8> as core::clone::Clone>::clone                  <Vec<…> as core::clone::Clone>::clone
/// core::slice::sort::quicksort::<u32, core::cmp::Less>    core::slice::sort::quicksort
/// main::{lambda(int)#1}::operator()(int) const            main::{lambda(int)#1}::operator()
/// ```
///
/// It is never longer than the name, in characters.
pub(in crate::report) fn short(name: &str) -> Cow<'_, str> {
    match function::parse(name) {
        Some(function) if function.short != name => Cow::Owned(function.short),
        _ => Cow::Borrowed(name),
    }
}

/// Returns the qualified path of a C++ or Rust function: its name without the return type, its
/// parameters and suffixes; arguments of templates stay. Other names are returned whole.
pub(in crate::report) fn function_path(name: &str) -> &str {
    function::parse(name).map_or(name, |function| function.path)
}

#[cfg(test)]
mod tests;
