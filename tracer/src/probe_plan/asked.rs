//! What the user asks for, beside what is known.

use std::path::{Path, PathBuf};

use tracer_ebpf::Function;

use super::functions::{Row, Set, Throws, row};
use super::names::{C_FAMILY, Line};
use super::shape::Shape;

/// What the user has asked for, beside what is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Prefixes of allocators whose functions are otherwise named as those of C.
    pub prefixes: Vec<String>,
    /// Functions.
    pub functions: Vec<AskedFunction>,
}

/// A function that the user names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedFunction {
    /// In which file: a path, or a file's name; nothing for any.
    pub file: Option<PathBuf>,
    /// Which one.
    pub place: AskedPlace,
    /// What it is like.
    pub signature: Signature,
}

/// Where a function is that the user names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedPlace {
    /// At a symbol.
    Symbol(String),
    /// At an offset in the file.
    Offset(u64),
}

impl AskedFunction {
    /// What the function is called in reports.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.place {
            AskedPlace::Symbol(symbol) => symbol.clone(),
            AskedPlace::Offset(offset) => format!("{offset:#x}"),
        }
    }

    /// Whether it is to be looked for in this file.
    pub(super) fn may_be_in(&self, file: &Path) -> bool {
        self.file.as_ref().is_none_or(|wanted| {
            let is_name = wanted.parent() == Some(Path::new(""));
            if is_name {
                file.file_name() == Some(wanted.as_os_str())
            } else {
                file == wanted
            }
        })
    }
}

/// A function of the C family, or an operator of C++, as the signature that another function has too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature(&'static Line);

/// The operators, as signatures.
static OPERATORS: [Line; 2] = [
    ("new", Function::OperatorNew, Shape::Size),
    ("delete", Function::Free, Shape::Free),
];

impl Signature {
    /// By the function's name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|signature| signature.0.0 == name)
    }

    /// All that there are.
    pub fn all() -> impl Iterator<Item = Self> {
        static ALL: [&[Line]; 2] = [&C_FAMILY, &OPERATORS];
        ALL.iter().copied().flatten().map(Self)
    }

    /// Whether it resizes a block.
    #[must_use]
    pub const fn resizes(self) -> bool {
        self.0.2.resizes()
    }

    /// The function's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0.0
    }

    /// The row of a function that has this signature. One of C++ may throw, whatever it is like.
    #[must_use]
    pub(super) fn row(self, symbol: &str) -> Row {
        let &(_, function, shape) = self.0;
        let is_cpp = symbol.starts_with("_Z") || function == Function::OperatorNew;
        Row {
            throws: if is_cpp && shape != Shape::Free {
                Throws::May
            } else {
                Throws::Never
            },
            ..row(symbol.to_owned(), Set::Named, function, shape)
        }
    }
}
