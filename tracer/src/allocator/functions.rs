//! The table of functions: symbol → what it is called in reports, and the shape of its call. Adding a function
//! is adding a row.

use tracer_ebpf::{Function, Shape};

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The symbol.
    pub symbol: &'static str,
    /// What its calls count as.
    pub function: Function,
    /// Where the call has its size.
    pub shape: Shape,
    /// What it may go on to by a jump.
    pub tail: Tail,
}

/// Whether a function may pass its call on to another traced one by a jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// It does not.
    Never,
    /// Where there is no block to resize: `realloc(NULL, n)` is `malloc(n)`, and so is `aligned_alloc(a, n)` for
    /// an alignment that `malloc` gives anyway.
    WithoutBlock,
    /// Always: `reallocarray` is `realloc` with a checked product.
    Always,
}

/// The C family, in the order of the summary: where one address has several names, the first names it.
pub const C_FAMILY: &[Row] = &[
    row("malloc", Function::Malloc, Shape::Size, Tail::Never),
    row("calloc", Function::Calloc, Shape::CountSize, Tail::Never),
    row("realloc", Function::Realloc, Shape::Resize, Tail::WithoutBlock),
    row(
        "reallocarray",
        Function::Reallocarray,
        Shape::ResizeArray,
        Tail::Always,
    ),
    row(
        "posix_memalign",
        Function::PosixMemalign,
        Shape::OutPointer,
        Tail::Never,
    ),
    row(
        "aligned_alloc",
        Function::AlignedAlloc,
        Shape::AlignedSize,
        Tail::WithoutBlock,
    ),
    row(
        "memalign",
        Function::Memalign,
        Shape::AlignedSize,
        Tail::WithoutBlock,
    ),
    row("valloc", Function::Valloc, Shape::Size, Tail::Never),
    row("pvalloc", Function::Pvalloc, Shape::Size, Tail::Never),
    row("free", Function::Free, Shape::Free, Tail::Never),
];

/// A symbol that every libc defines and no other library does: what tells a libc from a library that merely
/// has allocator functions.
pub const LIBC_MARK: &str = "__libc_start_main";

/// A symbol that glibc defines and musl does not: what tells its allocator, of which the layout of blocks is known.
pub const GLIBC_MARK: &str = "malloc_info";

const fn row(symbol: &'static str, function: Function, shape: Shape, tail: Tail) -> Row {
    Row {
        symbol,
        function,
        shape,
        tail,
    }
}
