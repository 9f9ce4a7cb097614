//! Signatures: the known functions that one named by the user can be like.

use tracer_ebpf::Function;

use super::names::{C_FAMILY, FunctionLine};
use super::row::{FunctionRow, Set, Throws, row};
use crate::probe_plan::roles::Roles;

/// A function of the C family, or an operator of C++, as the signature that another function has
/// too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature(&'static FunctionLine);

/// The operators, as signatures.
static OPERATORS: [FunctionLine; 2] = [
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
        static ALL: [&[FunctionLine]; 2] = [&C_FAMILY, &OPERATORS];
        ALL.iter().copied().flatten().map(Self)
    }

    /// Returns true if it resizes a block.
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
    pub(super) fn row(self, symbol: &str) -> FunctionRow {
        let &(_, function, roles) = self.0;
        let is_cpp = symbol.starts_with("_Z") || function == Function::OperatorNew;
        FunctionRow {
            throws: if is_cpp && !roles.frees() {
                Throws::May
            } else {
                Throws::Never
            },
            ..row(symbol.to_owned(), Set::Named, function, roles)
        }
    }
}
