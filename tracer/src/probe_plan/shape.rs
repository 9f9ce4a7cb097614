//! The shapes of calls: where a function is given what it is asked for, and what it returns.

use tracer_ebpf::{Operand, Operands, ProbeSpec};

/// The shape of a call at the probed instruction (System V AMD64, 3.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// The size is the first argument: `malloc`, `valloc`, `pvalloc`.
    Size,
    /// The size is the second argument, the first an alignment: `aligned_alloc`, `memalign`.
    AlignedSize,
    /// The size is the product of the first two arguments: `calloc`.
    CountSize,
    /// The size is the third argument, the first the place for the result: `posix_memalign`.
    OutPointer,
    /// A block and its new size: `realloc`.
    Resize,
    /// A block, and its new size as a product: `reallocarray`.
    ResizeArray,
    /// A block and its new size, of which the result is not the block but the size that it has then: `xallocx`.
    ResizeInPlace,
    /// The size is the second argument, the first a heap (`mi_heap_malloc`); or it was moved there.
    HeapSize,
    /// The size is the product of the second and the third argument, the first a heap (`mi_heap_calloc`); or they were moved
    /// there.
    HeapCountSize,
    /// A heap, a block and its new size (`mi_heap_realloc`); or they were moved there.
    HeapResize,
    /// A block, and its new size as a product, moved behind a heap: `mi_recalloc` on its way to `mi_heap_recalloc`.
    HeapResizeArray,
    /// The first factor of the size has been moved to `rax`, the second is the second argument: `mi_calloc` behind its
    /// first instructions.
    Factors,
    /// The same, where the second factor is the third argument: `mi_heap_calloc`.
    HeapFactors,
    /// A block, and its new size as a product that was made already: `reallocarray` behind its multiplication.
    ResizeProduct,
    /// A block to be given back: `free`.
    Free,
}

const RAX: Operand = Operand::register(0);
const RCX: Operand = Operand::register(1);
const RDX: Operand = Operand::register(2);
const RBP: Operand = Operand::register(5);
const RSI: Operand = Operand::register(6);
const RDI: Operand = Operand::register(7);

/// The return address lies so many bytes below the CFA.
pub(super) const RETURN_ADDRESS_BYTES: u32 = 8;

impl Shape {
    /// Whether calls of this shape resize a block.
    #[must_use]
    pub const fn resizes(self) -> bool {
        matches!(
            self,
            Self::Resize
                | Self::ResizeArray
                | Self::ResizeProduct
                | Self::ResizeInPlace
                | Self::HeapResize
                | Self::HeapResizeArray
        )
    }

    /// Whether calls of this shape give a block back.
    #[must_use]
    pub const fn frees(self) -> bool {
        matches!(self, Self::Free)
    }

    /// Where the values of a call are, `pushed_bytes` of pushes after the function's first instruction.
    #[must_use]
    pub const fn operands(self, pushed_bytes: u32) -> Operands {
        let none = Operands {
            cfa_bytes: pushed_bytes + RETURN_ADDRESS_BYTES,
            size: Operand::NONE,
            factor: Operand::NONE,
            high: Operand::NONE,
            block: Operand::NONE,
            out: Operand::NONE,
            alignment: Operand::NONE,
            result: Operand::NONE,
            frame_pointer: RBP,
        };
        match self {
            Self::Size => Operands { size: RDI, ..none },
            Self::HeapSize => Operands { size: RSI, ..none },
            Self::AlignedSize => Operands {
                size: RSI,
                alignment: RDI,
                ..none
            },
            Self::CountSize => product(RDI, RSI, none),
            Self::HeapCountSize => product(RSI, RDX, none),
            Self::Factors => product(RAX, RSI, none),
            Self::HeapFactors => product(RAX, RDX, none),
            Self::OutPointer => Operands {
                size: RDX,
                out: RDI,
                ..none
            },
            Self::Resize | Self::ResizeInPlace => Operands {
                size: RSI,
                block: RDI,
                ..none
            },
            Self::ResizeArray => Operands {
                block: RDI,
                ..product(RSI, RDX, none)
            },
            Self::HeapResize => Operands {
                size: RDX,
                block: RSI,
                ..none
            },
            Self::HeapResizeArray => Operands {
                block: RSI,
                ..product(RDX, RCX, none)
            },
            Self::ResizeProduct => Operands {
                size: RAX,
                high: RDX,
                block: RDI,
                ..none
            },
            Self::Free => Operands { block: RDI, ..none },
        }
    }

    /// The flags that say what a function of this shape returns.
    #[must_use]
    pub const fn return_flags(self) -> u32 {
        match self {
            Self::OutPointer => ProbeSpec::RETURNS_STATUS,
            Self::ResizeInPlace => ProbeSpec::RETURNS_SIZE,
            _ => 0,
        }
    }
}

/// A size that is the product of two factors.
const fn product(factor: Operand, size: Operand, rest: Operands) -> Operands {
    Operands { size, factor, ..rest }
}
