//! The parts of a function's name, as demanglers of C++ and of Rust write it.
//!
//! ```text
//! char const* ns::Class<int>::get[abi:cxx11]<long>(int) const [clone .cold]
//!             ^ path                                   ^ parameters, qualifiers, suffix
//! <alloc::vec::Vec<u8> as core::clone::Clone>::clone
//! ```
//!
//! What fits no such form is no function of these languages, and has no parts.

use super::brackets::{copy_without_arguments, end_of_group, is_kept, push_arguments};
use super::operators::{self, Operator, is_identifier};

/// A name's parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function<'a> {
    /// The qualified name: without the return type, the function's parameters, and suffixes.
    pub(super) path: &'a str,
    /// The same without arguments of templates, and without the parameters of functions that it is
    /// in.
    pub(super) short: String,
}

/// Functions that compilers make for another one.
const MADE_FOR: &[&str] = &[
    "non-virtual thunk to ",
    "virtual thunk to ",
    "covariant return thunk to ",
    "transaction clone for ",
    "non-transaction clone for ",
    "TLS init function for ",
    "TLS wrapper function for ",
];

/// Suffixes of functions that a compiler made of a part of a function, or of a copy of it.
const SUFFIXES: &[&str] = &[
    "part",
    "cold",
    "constprop",
    "isra",
    "lto_priv",
    "localalias",
    "llvm",
    "__uniq",
];

/// Qualifiers of a member function, behind its parameters.
const QUALIFIERS: &[&str] = &[" const", " volatile", " &&", " &"];

/// Declarators inside one another: a function that returns a pointer to a function is one.
const MAX_DECLARATORS: usize = 4;

/// The end of the hash of rustc's older mangling, and its hexadecimal digits.
const HASH: &str = "::h";
const HASH_DIGITS: usize = 16;

/// Takes a name apart; nothing where it is none of a function of C++ or Rust.
pub(super) fn parse(name: &str) -> Option<Function<'_>> {
    let made_for = MADE_FOR.iter().find(|start| name.starts_with(**start));
    let Some(made_for) = made_for else {
        return NameScan::of(without_hash(name)).function(MAX_DECLARATORS);
    };
    let mut function = NameScan::of(&name[made_for.len()..]).function(MAX_DECLARATORS)?;
    function.short.insert_str(0, made_for);
    Some(function)
}

fn without_hash(name: &str) -> &str {
    let Some((path, hash)) = name.rsplit_once(HASH) else {
        return name;
    };
    let is_hash = hash.len() == HASH_DIGITS && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash && !path.is_empty() { path } else { name }
}

/// What was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Nothing, since the last space.
    Nothing,
    /// `::`
    Separator,
    /// An identifier or an operator.
    Name,
    /// A group of brackets that is a part of the path.
    Group,
    /// Parameters, which begin there, and the qualifiers behind them.
    Parameters(usize),
}

/// A name that is read from its start to its end. What was read since the last space is the path,
/// unless there is another space: then it was a part of the return type.
struct NameScan<'a> {
    text: &'a str,
    at: usize,
    /// The start of the path, and its short form.
    start: usize,
    short: String,
    last: Last,
    /// It is a type, and no path.
    is_type: bool,
    /// Something in it has parameters.
    has_parameters: bool,
    /// It is not the first.
    has_spaces: bool,
}

impl<'a> NameScan<'a> {
    fn of(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            start: 0,
            short: String::new(),
            last: Last::Nothing,
            is_type: false,
            has_parameters: false,
            has_spaces: false,
        }
    }

    fn function(mut self, declarators: usize) -> Option<Function<'a>> {
        while let Some(&byte) = self.text.as_bytes().get(self.at) {
            match byte {
                b' ' | b'.' if is_suffix(&self.text[self.at..]) => break,
                b' ' => self.space()?,
                b':' => self.separator()?,
                b'<' => self.arguments()?,
                b'(' if self.last == Last::Nothing => {
                    if let Some(function) = self.inner_declarator(declarators) {
                        return Some(function);
                    }
                    self.parentheses()?;
                }
                b'(' => self.parentheses()?,
                b'{' => self.braces()?,
                b'[' => self.tag()?,
                b'*' | b'&' => {
                    self.is_type = true;
                    self.last = Last::Group;
                    self.at += 1;
                }
                _ => self.identifier()?,
            }
        }
        let path = match self.last {
            Last::Nothing | Last::Separator => return None,
            Last::Parameters(begin) => self.start..begin,
            // A return type is written where there are parameters.
            Last::Name | Last::Group if self.has_spaces && !self.has_parameters => return None,
            Last::Name | Last::Group => self.start..self.at,
        };
        let is_path = !self.is_type && !path.is_empty() && !self.short.is_empty();
        is_path.then(|| Function {
            path: &self.text[path],
            short: self.short,
        })
    }

    /// A space: what was before it is the return type.
    fn space(&mut self) -> Option<()> {
        if self.last == Last::Nothing {
            return None;
        }
        self.at += 1;
        self.start = self.at;
        self.short.clear();
        self.last = Last::Nothing;
        self.is_type = false;
        self.has_parameters = false;
        self.has_spaces = true;
        Some(())
    }

    fn separator(&mut self) -> Option<()> {
        let is_one = self.text[self.at..].starts_with("::");
        if !is_one || matches!(self.last, Last::Nothing | Last::Separator) {
            return None;
        }
        self.short.push_str("::");
        self.at += "::".len();
        self.last = Last::Separator;
        Some(())
    }

    /// Arguments of a template, or the type that a function of Rust belongs to.
    fn arguments(&mut self) -> Option<()> {
        let group = self.take_group()?;
        match self.last {
            Last::Name | Last::Group => push_arguments(group, &mut self.short),
            Last::Separator if !is_kept(group) => self.short.truncate(self.short.len() - "::".len()),
            Last::Nothing | Last::Separator => copy_without_arguments(group, &mut self.short),
            Last::Parameters(_) => return None,
        }
        self.last = Last::Group;
        Some(())
    }

    fn parentheses(&mut self) -> Option<()> {
        let begin = self.at;
        let group = self.take_group()?;
        match self.last {
            Last::Name | Last::Group => {
                self.at += qualifiers(&self.text[self.at..]);
                self.last = Last::Parameters(begin);
                self.has_parameters = true;
            }
            Last::Nothing | Last::Separator => {
                self.is_type |= !group.starts_with("(anonymous");
                self.short.push_str(group);
                self.last = Last::Group;
            }
            Last::Parameters(_) => return None,
        }
        Some(())
    }

    /// A closure, or another thing without a name.
    fn braces(&mut self) -> Option<()> {
        let group = self.take_group()?;
        if matches!(self.last, Last::Parameters(_)) {
            return None;
        }
        copy_without_arguments(group, &mut self.short);
        self.last = Last::Group;
        Some(())
    }

    /// A tag of the binary interface.
    fn tag(&mut self) -> Option<()> {
        let group = self.take_group()?;
        let is_tag = group.starts_with("[abi:") && matches!(self.last, Last::Name | Last::Group);
        self.last = Last::Group;
        is_tag.then_some(())
    }

    fn identifier(&mut self) -> Option<()> {
        if !matches!(self.last, Last::Nothing | Last::Separator) {
            return None;
        }
        let begin = self.at;
        if let Some(operator) = operators::operator_at(self.text, begin) {
            self.at = match operator {
                Operator::Named(end) => end,
                Operator::Conversion(begin) => end_of_type(self.text, begin)?,
            };
            // The space keeps `operator<` apart from its arguments.
            if self.text[self.at..].starts_with(" <") {
                self.at += 1;
            }
            copy_without_arguments(&self.text[begin..self.at], &mut self.short);
        } else {
            let bytes = &self.text.as_bytes()[begin..];
            let tilde = usize::from(bytes.starts_with(b"~"));
            let len = bytes[tilde..]
                .iter()
                .take_while(|byte| is_identifier(**byte))
                .count();
            if len == 0 {
                return None;
            }
            self.at = begin + tilde + len;
            self.short.push_str(&self.text[begin..self.at]);
        }
        self.last = Last::Name;
        Some(())
    }

    /// The function in `void (*function(int))(char)`, which returns a pointer to a function.
    fn inner_declarator(&self, declarators: usize) -> Option<Function<'a>> {
        let end = end_of_group(self.text, self.at)?;
        let inner = &self.text[self.at + 1..end - 1];
        let inner = inner.strip_prefix(['*', '&'])?.trim_start_matches(['*', '&']);
        let tail = &self.text[end..];
        let parameters = end_of_group(tail, 0).filter(|_| tail.starts_with('('))?;
        let tail = &tail[parameters..];
        let is_end = qualifiers(tail) == tail.len() || is_suffix(tail);
        let function = NameScan::of(inner).function(declarators.checked_sub(1)?)?;
        (is_end && function.path.len() < inner.len()).then_some(function)
    }

    fn take_group(&mut self) -> Option<&'a str> {
        let begin = self.at;
        self.at = end_of_group(self.text, begin)?;
        Some(&self.text[begin..self.at])
    }
}

/// The length of the qualifiers at the start of what is behind parameters; 0 where they belong to a
/// type.
fn qualifiers(tail: &str) -> usize {
    let mut rest = tail;
    while let Some(shorter) = QUALIFIERS.iter().find_map(|one| rest.strip_prefix(one)) {
        rest = shorter;
    }
    let is_end = rest.is_empty() || rest.starts_with("::") || is_suffix(rest);
    if is_end { tail.len() - rest.len() } else { 0 }
}

/// The end of the type that an operator converts to: its parameters, of which it has none, or the
/// end of the name.
fn end_of_type(text: &str, begin: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = begin;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'(' if text[at..].starts_with("()") => break,
            // A pointer to a function: the group with the asterisk, and the parameters.
            b'(' => {
                at = end_of_group(text, at)?;
                if bytes.get(at) == Some(&b'(') {
                    at = end_of_group(text, at)?;
                }
            }
            b'<' | b'[' | b'{' => at = end_of_group(text, at)?,
            b'.' => break,
            _ => at += 1,
        }
    }
    (at > begin).then_some(at)
}

/// Returns true for suffixes of a compiler's copies of functions alone: `.part.0`, or
/// `[clone .part.0]` as demanglers write it.
fn is_suffix(tail: &str) -> bool {
    if let Some(clone) = tail.strip_prefix(" [clone ") {
        let Some((suffix, rest)) = clone.split_once(']') else {
            return false;
        };
        return is_dotted_suffix(suffix) && (rest.is_empty() || is_suffix(rest));
    }
    is_dotted_suffix(tail)
}

fn is_dotted_suffix(tail: &str) -> bool {
    let Some(words) = tail.strip_prefix('.') else {
        return false;
    };
    let mut words = words.split('.').peekable();
    let is_first_known = words.peek().is_some_and(|word| SUFFIXES.contains(word));
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    is_first_known && words.all(|word| SUFFIXES.contains(&word) || is_number(word))
}
