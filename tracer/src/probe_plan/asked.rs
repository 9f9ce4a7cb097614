//! Functions that the user names, beside those that are known.

use std::path::Path;

use tracer_ebpf::{Function, Shape};

use super::functions::{Row, Set, Throws, row};
use super::names::{C_FAMILY, Line};
use crate::settings::UserSymbol;

/// Returns true if the function is to be looked for in this file.
pub(super) fn may_be_in(function: &UserSymbol, file: &Path) -> bool {
    function.file.as_ref().is_none_or(|wanted| {
        let is_name = wanted.parent() == Some(Path::new(""));
        if is_name {
            file.file_name() == Some(wanted.as_os_str())
        } else {
            file == wanted
        }
    })
}

/// Returns the row of the function; nothing where there is no such signature.
pub(super) fn row_of(function: &UserSymbol) -> Option<Row> {
    let signature = Signature::named(function.signature)?;
    Some(signature.row(&function.name()))
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
    fn row(self, symbol: &str) -> Row {
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
