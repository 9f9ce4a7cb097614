//! Names of real programs, and others.

use super::super::golden;
use super::*;

/// Each real name, its short one, and its path, where they are others.
const GOLDEN: &str = include_str!("../../../tests/golden/names.txt");

/// The names in the golden file: the lines that are not indented.
fn real_names() -> impl Iterator<Item = &'static str> {
    GOLDEN
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with(' '))
}

/// Characters.
fn width(name: &str) -> usize {
    name.chars().count()
}

fn check_bounds(name: &str) {
    let short = short(name);
    assert!(width(&short) <= width(name), "{name:?} grows to {short:?}");
    assert_eq!(short.is_empty(), name.is_empty(), "{name:?}");
    let path = function_path(name);
    assert_eq!(path.is_empty(), name.is_empty(), "{name:?}");
    assert!(name.contains(path), "{name:?}: {path:?}");
}

#[test]
fn names_of_real_programs() {
    assert!(real_names().count() > 200);
    golden::check("names.txt", || {
        let mut text = String::new();
        for name in real_names() {
            let (short, path) = (short(name), function_path(name));
            text.push_str(name);
            text.push('\n');
            if short != name {
                text.extend(["    ", &short, "\n"]);
            }
            if path != name && path != short {
                text.extend(["    path ", path, "\n"]);
            }
        }
        text
    });
}

#[test]
fn short_names_of_real_programs_stay_as_they_are() {
    for name in real_names() {
        check_bounds(name);
        let once = short(name);
        assert_eq!(short(&once), once, "{name}");
    }
}

#[test]
fn what_makes_a_name_long_is_left_out() {
    for (name, expected) in [
        (
            "void std::vector<int>::_M_realloc_insert<int>(int*, int&&)",
            "std::vector<…>::_M_realloc_insert<…>",
        ),
        ("ns::get[abi:cxx11]() const &", "ns::get"),
        ("char const* const& ns::name<int>(int) const &&", "ns::name<…>"),
        ("f(int) [clone .isra.0] [clone .cold]", "f"),
        ("quicksort.constprop.0.isra.0", "quicksort"),
        ("core::fmt::write::h0123456789abcdef", "core::fmt::write"),
        (
            "(anonymous namespace)::Parser::parse(int)",
            "(anonymous namespace)::Parser::parse",
        ),
        (
            "run(int)::{lambda(int)#1}::operator()(int) const",
            "run::{lambda(int)#1}::operator()",
        ),
        (
            "A::b(int) const::{lambda(std::vector<int>)#2}::operator()(std::vector<int>) const",
            "A::b::{lambda(std::vector<…>)#2}::operator()",
        ),
        (
            "void each<main::{lambda()#1}>(main::{lambda()#1})::{lambda()#1}::operator()",
            "each<…>::{lambda()#1}::operator()",
        ),
        (
            "void (*ns::handler<int>(int, void (*)(int)))(char)",
            "ns::handler<…>",
        ),
        ("decltype ((f)(g)) ns::call<int>(int)", "ns::call<…>"),
        (
            "non-virtual thunk to A<int>::b(int)",
            "non-virtual thunk to A<…>::b",
        ),
        (
            "core::iter::fold::<A, B>::{closure#0}::<C>",
            "core::iter::fold::{closure#0}",
        ),
        (
            "<alloc::vec::Vec<T, A> as core::clone::Clone>::clone",
            "<alloc::vec::Vec<…> as core::clone::Clone>::clone",
        ),
        (
            "<&mut F<'_> as core::ops::FnOnce<(A,)>>::call_once",
            "<&mut F<…> as core::ops::FnOnce<…>>::call_once",
        ),
        (
            "<<dyn V as D<u8>>::f::<A>::N as C>::m",
            "<<dyn V as D<…>>::f::N as C>::m",
        ),
        (
            "fmt::num::<impl fmt::Debug for V<T>>::fmt",
            "fmt::num::<impl fmt::Debug for V<…>>::fmt",
        ),
        ("A<((1)<(2)), 3>::b()", "A<…>::b"),
        ("A<&B::operator->, &B::operator< >::b()", "A<…>::b"),
        ("größe<int>(größe const&)", "größe<…>"),
    ] {
        assert_eq!(short(name), expected);
        check_bounds(name);
    }
}

#[test]
fn operators_keep_their_symbols() {
    for (name, expected) in [
        (
            "std::ostream& std::operator<< <std::char_traits<char> >(std::ostream&, char const*)",
            "std::operator<< <…>",
        ),
        (
            "bool operator< <int>(A<int> const&, A<int> const&)",
            "operator< <…>",
        ),
        ("bool operator<<int>(A<int> const&)", "operator<<…>"),
        ("bool ns::operator<(A const&, A const&)", "ns::operator<"),
        ("bool ns::operator><int>(A const&, A const&)", "ns::operator><…>"),
        ("auto ns::operator<=><int>(A const&)", "ns::operator<=><…>"),
        ("A::operator->() const", "A::operator->"),
        ("A::operator->*(int)", "A::operator->*"),
        ("A::operator()(int) const", "A::operator()"),
        ("void A::operator()<int>(int) const", "A::operator()<…>"),
        ("A::operator[](unsigned long)", "A::operator[]"),
        ("A::operator,(int)", "A::operator,"),
        ("operator new(unsigned long)", "operator new"),
        (
            "A::operator new[](unsigned long, std::nothrow_t const&)",
            "A::operator new[]",
        ),
        ("A::operator delete[](void*)", "A::operator delete[]"),
        ("A::operator bool() const", "A::operator bool"),
        ("A::operator new_type()", "A::operator new_type"),
        (
            "A::operator std::vector<int, B>&() &",
            "A::operator std::vector<…>&",
        ),
        ("A::operator void (*)(int)() const", "A::operator void (*)(int)"),
        ("operator \"\" _kb(unsigned long long)", "operator \"\" _kb"),
        ("ns::operator\"\"_kb(unsigned long long)", "ns::operator\"\"_kb"),
        ("operator()", "operator()"),
        ("my_operator<int>(int)", "my_operator<…>"),
        ("operators::f(int)", "operators::f"),
    ] {
        assert_eq!(short(name), expected);
        check_bounds(name);
    }
}

#[test]
fn path_is_qualified_and_has_its_arguments() {
    for (name, expected) in [
        (
            "void std::vector<int>::_M_realloc_insert<int>(int*, int&&)",
            "std::vector<int>::_M_realloc_insert<int>",
        ),
        (
            "A::b(int) const::{lambda()#1}::operator()() const",
            "A::b(int) const::{lambda()#1}::operator()",
        ),
        ("void (*ns::handler<int>(int))(char)", "ns::handler<int>"),
        ("non-virtual thunk to A<int>::b(int)", "A<int>::b"),
        ("f(int) [clone .cold]", "f"),
        ("<A<T> as B>::c::h0123456789abcdef", "<A<T> as B>::c"),
        ("core::iter::fold::<A, B>", "core::iter::fold::<A, B>"),
        ("LazyCompile:~foo file.js:3", "LazyCompile:~foo file.js:3"),
    ] {
        assert_eq!(function_path(name), expected);
    }
}

#[test]
fn other_names_are_left_alone() {
    for name in [
        "",
        " ",
        "main",
        "__libc_start_main@@GLIBC_2.34",
        "[libc.so.6+0x1f2c]",
        "[0x7f001234]",
        "[jit]",
        "[unnamed]",
        "LazyCompile:~foo file.js:3",
        "LazyCompile:*processTicksAndRejections node:internal/process/task_queues:67:35",
        "JS:^(anonymous) /srv/app<x>/index.js:1:1",
        "RegExp:^(a|b)<(c)>",
        "Builtin:ArrayForEach",
        "py::Parser.parse:/usr/lib/python3.11/json/decoder.py",
        "py::<genexpr>:/usr/lib/python3.11/x.py",
        "<module>",
        "Lorg/example/Foo;::bar",
        "void [System.Private.CoreLib] System.String::Concat(string)[Optimized]",
        "main.(*T).Method",
        "main.Map[go.shape.int].func1",
        "type:.eq.main.T",
        "$lists:map/2",
        "Main::__ANON__(eval 3)x",
        "unbalanced<int",
        "unbalanced(int",
        "unbalanced>int",
        "f(int))",
        "f(int]",
        "a b c",
        "f() requires C<int>",
        "vtable for A<int>",
        "typeinfo name for std::vector<int>",
        "::",
        "::<T>",
        "<>",
        "()",
        "(*)",
        "operator",
        "foo.bar",
        "foo.1234",
        "foo.part",
        "_ZN3foo3barE",
    ] {
        let expected = if name == "foo.part" { "foo" } else { name };
        assert_eq!(short(name), expected);
        assert_eq!(function_path(name), expected);
    }
}

/// Pieces that names are made of, and some that they are not.
const PIECES: &[&str] = &[
    "<",
    ">",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "::",
    ":",
    " ",
    ".",
    "*",
    "&",
    "-",
    "~",
    "'",
    "\"",
    "#",
    "$",
    ",",
    "operator",
    "operator<<",
    "operator()",
    " new",
    "\"\" _x",
    "(anonymous namespace)",
    "[abi:x]",
    " const",
    " [clone .",
    ".part.0",
    "::h0123456789abcdef",
    "<impl ",
    "thunk to ",
    "a",
    "B1",
    "é",
    "…",
    "\u{0}",
];

#[test]
fn random_names_are_no_trouble() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for _ in 0..100_000 {
        let name: String = (0..random(14)).map(|_| PIECES[random(PIECES.len())]).collect();
        check_bounds(&name);
    }
    // Real names, with one of their characters replaced, or their end cut off.
    for name in real_names() {
        for _ in 0..20 {
            let mut characters: Vec<char> = name.chars().collect();
            let at = random(characters.len());
            characters[at] = PIECES[random(PIECES.len())].chars().next().unwrap();
            check_bounds(&characters.iter().collect::<String>());
            check_bounds(&characters[..at].iter().collect::<String>());
        }
    }
}

#[test]
fn deep_and_long_names_take_no_time() {
    for piece in [
        "<",
        "(",
        "a<",
        "::<",
        "(*",
        "operator<",
        "<<a as b>::",
        "{",
        "a(",
        " (",
    ] {
        check_bounds(&piece.repeat(2000));
    }
    let deep = format!("a{}{}(int)", "<b".repeat(2000), ">".repeat(2000));
    assert_eq!(short(&deep), "a<…>");
    let deep = format!("{}{}::c", "<".repeat(2000), ">".repeat(2000));
    assert_eq!(short(&deep), deep);
}
