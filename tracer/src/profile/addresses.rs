//! Stacks as addresses, before symbolization.

use tracer_ebpf::{Function, StackEnd};

/// The stacks of one process image as addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AddressStacks {
    /// The process ID and `comm`, where they are known.
    pub process: Option<(u32, String)>,
    /// The stacks.
    pub stacks: Vec<AddressStack>,
}

/// A stack as addresses, and its calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddressStack {
    /// The calls made with this stack.
    pub calls: u64,
    /// The function that was called, where its number is known.
    pub function: Option<Function>,
    /// The end of the walk; nothing where the stack was lost.
    pub end: Option<StackEnd>,
    /// The return addresses, the innermost caller's first.
    pub addresses: Vec<u64>,
}
