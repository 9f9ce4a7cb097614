//! The obstacles to following a call inside its function.

/// An obstacle to following a call inside its function. Addresses are those of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The call has no result in a register, or takes a block that must be known at its entry.
    #[error("calls of this kind are decided at their return")]
    Signature,
    /// The file is too large to be looked through.
    #[error("the file is too large to be looked through")]
    FileTooLarge,
    /// The code is not in the file.
    #[error("there is no code at {0:#x}")]
    NoCode(u64),
    /// An instruction that is not followed.
    #[error("the instruction at {0:#x} is not understood")]
    UnknownInstruction(u64),
    /// A jump whose target is not known.
    #[error("the jump at {0:#x} is indirect")]
    IndirectJump(u64),
    /// A jump to another function that is traced: the call becomes that one's.
    #[error("the jump at {0:#x} goes on to another traced function, at {1:#x}")]
    GoesOn(u64, u64),
    /// Other code comes to the function's code than by calling it.
    #[error("the code at {0:#x} is reached from {1:#x} too, which is not this function's")]
    Shared(u64, u64),
    /// There is a pointer into the function's code, so that anybody may jump there.
    #[error("there is a pointer to the code at {0:#x}")]
    Pointed(u64),
    /// Too much code to be followed.
    #[error("there is too much code to be followed")]
    TooLong,
    /// The return address may be another one.
    #[error("the instruction at {0:#x} overwrites the return address")]
    ReturnAddress(u64),
    /// The stack pointer is not what it was at the entry, or it is not known.
    #[error("the stack's depth at the return at {0:#x} is not known")]
    Depth(u64),
    /// It never returns.
    #[error("no return is reached")]
    NoReturn,
    /// There is a way to a return with no place for a probe at which the result is known.
    #[error("on a way to the return at {0:#x} there is no place that has the result")]
    NoResult(u64),
    /// There is a way on which the size is not known before the result is.
    #[error("on a way to the return at {0:#x} there is no place that has the size before the result")]
    NoSize(u64),
    /// Every call that succeeds would need two probes.
    #[error("no place has both the size and the block")]
    NothingGained,
    /// A way meets the sites of a plan otherwise than once: the planner is wrong.
    #[error("the sites that were found are not met once on a way through {0:#x}")]
    NotOnce(u64),
}
