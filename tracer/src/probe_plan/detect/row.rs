//! A row of the table of functions: a symbol, the function that its calls count as, and the roles
//! of its arguments.

use tracer_ebpf::Function;

use crate::probe_plan::roles::Roles;

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRow {
    /// The symbol.
    pub symbol: String,
    /// The functions that it belongs together with.
    pub set: Set,
    /// The function that its calls count as.
    pub function: Function,
    /// The roles of its arguments.
    pub roles: Roles,
    /// Its tail calls that its code does not tell.
    pub tail: Tail,
    /// The exceptions that may pass through it.
    pub throws: Throws,
    /// It gives the block back where it cannot resize it.
    pub frees_on_failure: bool,
}

/// Functions that are one allocator's: a name by itself may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Set {
    /// With this prefix.
    Prefix(String),
    /// The operators of C++: those of whatever allocator the same file has.
    Operators,
    /// Named by the user.
    Named,
}

/// The tail calls of a function to another traced one that its code does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// None.
    Never,
    /// Some, where there is no block to resize: `realloc(NULL, n)` is `malloc(n)`, and so is
    /// `aligned_alloc(a, n)` for an alignment that `malloc` gives anyway.
    WithoutBlock,
    /// Always: `reallocarray` is `realloc` with a checked product.
    Always,
}

/// The exceptions that may pass through a function. A return probe there would end the program: the
/// unwinder finds the kernel's address in the place of the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throws {
    /// It is declared not to throw (C functions by their headers), so that no caller could catch
    /// anything.
    Never,
    /// A form with `std::nothrow`. The C++ of jemalloc and tcmalloc catches what a new-handler
    /// throws; `mimalloc` in C does not.
    Nothrow,
    /// It throws `std::bad_alloc`.
    May,
}

/// Makes the row of a function that does not throw.
pub(super) fn row(symbol: String, set: Set, function: Function, roles: Roles) -> FunctionRow {
    FunctionRow {
        symbol,
        set,
        function,
        roles,
        tail: match (function, roles) {
            (Function::Realloc, Roles::RESIZE)
            | (Function::AlignedAlloc | Function::Memalign, Roles::ALIGNED_SIZE) => Tail::WithoutBlock,
            (Function::Reallocarray, _) => Tail::Always,
            _ => Tail::Never,
        },
        throws: Throws::Never,
        frees_on_failure: false,
    }
}
