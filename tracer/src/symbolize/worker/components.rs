//! Comparison of names that a demangler wrote with names from debug information.

/// The part of a path that is a closure; its number and its parameters are written in several ways.
const CLOSURE: &str = "{lambda}";
const NO_NAMESPACE: &str = "(anonymous namespace)";
const OPERATOR: &str = "operator";

/// Words that may stand behind parameters, and the arguments of `operator<`.
const QUALIFIERS: &[&str] = &[" const", " volatile", " &", " [", " <"];

/// The parts of a function's qualified name: without arguments, parameters, tags and qualifiers.
/// Nothing where it has none, or its brackets do not match.
pub(super) fn components(name: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut part = String::new();
    // Behind a bracket nothing belongs to the part any more.
    let mut is_closed = false;
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(next) = name[at..].chars().next() {
        let rest = &name[at..];
        if depth == 0 && part.is_empty() && !is_closed {
            if rest.starts_with(NO_NAMESPACE) {
                part.push_str(NO_NAMESPACE);
                at += NO_NAMESPACE.len();
                is_closed = true;
                continue;
            }
            if rest.starts_with("{lambda") || rest.starts_with("<lambda") {
                part.push_str(CLOSURE);
            } else if let Some(len) = operator_len(rest) {
                part.extend(rest[..len].chars().filter(|c| *c != ' '));
                at += len;
                is_closed = true;
                continue;
            }
        }
        match next {
            '<' | '(' | '{' | '[' => {
                depth += 1;
                is_closed = true;
            }
            '>' if name[..at].ends_with('-') => {}
            '>' | ')' | '}' | ']' => depth = depth.checked_sub(1)?,
            ':' if depth == 0 && rest.starts_with("::") => {
                found.push(std::mem::take(&mut part));
                is_closed = false;
                at += 1;
            }
            ' ' if depth == 0 && is_closed && QUALIFIERS.iter().any(|one| rest.starts_with(one)) => {}
            // What was before it is the return type.
            ' ' if depth == 0 => {
                found.clear();
                part.clear();
                is_closed = false;
            }
            _ if depth == 0 && !is_closed => part.push(next),
            _ => {}
        }
        at += next.len_utf8();
    }
    found.push(part);
    (depth == 0 && found.iter().all(|part| !part.is_empty())).then_some(found)
}

/// The length of an operator's name at the start of a text.
fn operator_len(text: &str) -> Option<usize> {
    let rest = text.strip_prefix(OPERATOR)?;
    let first = rest.chars().next()?;
    let len = match first {
        _ if rest.starts_with("()") || rest.starts_with("[]") => 2,
        c if c.is_alphanumeric() || c == '_' || c == ':' => return None,
        // A word or a type: up to the parameters.
        ' ' | '"' => rest.find('(').unwrap_or(rest.len()),
        _ => rest
            .bytes()
            .take_while(|byte| b"<>=!+-*/%^&|~,".contains(byte))
            .count(),
    };
    (len > 0).then_some(OPERATOR.len() + len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_names_alone() {
        for (name, expected) in [
            ("main", &["main"][..]),
            ("ns::f(int) const", &["ns", "f"]),
            ("ns::A<int, ns::B>::f<ns::C>(ns::D)", &["ns", "A", "f"]),
            (
                "main::{lambda(int)#2}::operator()(int) const",
                &["main", "{lambda}", "operator()"],
            ),
            (
                "f(int) const::{lambda#1}::operator()<int>",
                &["f", "{lambda}", "operator()"],
            ),
            ("(anonymous namespace)::f(int)", &["(anonymous namespace)", "f"]),
            ("ns::get[abi:cxx11]()", &["ns", "get"]),
            ("A::operator<< <int>(int)", &["A", "operator<<"]),
            ("A::operator->() const", &["A", "operator->"]),
            ("A::operator new[](unsigned long)", &["A", "operatornew[]"]),
            ("operator \"\" _kb(unsigned long long)", &["operator\"\"_kb"]),
            ("A::~A()", &["A", "~A"]),
            ("int f<int>(int)", &["f"]),
            ("std::vector<int> const& ns::f<int>(int) const &", &["ns", "f"]),
        ] {
            assert_eq!(components(name).expect("balanced"), expected, "{name}");
        }
        for name in ["f>", "f(", "::f", "f::", ""] {
            assert_eq!(components(name), None, "{name}");
        }
    }
}
