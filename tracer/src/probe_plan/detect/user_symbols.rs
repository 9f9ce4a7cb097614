//! The allocators and functions that the user names, beside those that are known.

use std::path::{Path, PathBuf};

use tracer_ebpf::Function;

use super::functions::{Row, Set, Throws, row};
use super::names::{C_FAMILY, Line};
use crate::probe_plan::roles::Roles;

/// The allocators and functions that the user names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserSymbols {
    /// Prefixes of allocators whose functions are otherwise named as those of C.
    pub prefixes: Vec<String>,
    /// Functions.
    pub functions: Vec<UserSymbol>,
}

/// A function that the user names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSymbol {
    /// The file, by a path or by its name; `None` for any.
    pub file: Option<PathBuf>,
    /// The function.
    pub place: SymbolOrOffset,
    /// The known function that it is like.
    pub signature: Signature,
}

/// A function's place, by a symbol or an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SymbolOrOffset {
    /// At a symbol.
    Symbol(String),
    /// At an offset in the file.
    Offset(u64),
}

impl UserSymbol {
    /// The name of the function in reports.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.place {
            SymbolOrOffset::Symbol(symbol) => symbol.clone(),
            SymbolOrOffset::Offset(offset) => format!("{offset:#x}"),
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
    ("new", Function::OperatorNew, Roles::SIZE),
    ("delete", Function::Free, Roles::FREE),
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
        let &(_, function, roles) = self.0;
        let is_cpp = symbol.starts_with("_Z") || function == Function::OperatorNew;
        Row {
            throws: if is_cpp && !roles.frees() {
                Throws::May
            } else {
                Throws::Never
            },
            ..row(symbol.to_owned(), Set::Named, function, roles)
        }
    }
}
