//! The roles of a function's arguments and of its result.

use tracer_ebpf::ProbeSpec;

use super::dataflow::argument;

/// The arguments of a function that say what a call asks for, by their positions from 0, and the
/// meaning of its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Roles {
    /// The number of bytes, or one factor of it.
    size: Option<u8>,
    /// The other factor.
    factor: Option<u8>,
    /// The alignment.
    alignment: Option<u8>,
    /// The block to be resized or given back.
    block: Option<u8>,
    /// The address at which the new block's address is put.
    out: Option<u8>,
    /// The result.
    result: CallResult,
}

/// The meaning of a function's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallResult {
    /// The block's address, or 0.
    Block,
    /// 0, or an error.
    Status,
    /// The size that the block has then.
    Size,
    /// None.
    None,
}

const NOTHING: Roles = Roles {
    size: None,
    factor: None,
    alignment: None,
    block: None,
    out: None,
    result: CallResult::Block,
};

impl Roles {
    /// `malloc(size)`
    pub const SIZE: Self = Self {
        size: Some(0),
        ..NOTHING
    };
    /// `aligned_alloc(alignment, size)`
    pub const ALIGNED_SIZE: Self = Self {
        alignment: Some(0),
        size: Some(1),
        ..NOTHING
    };
    /// `calloc(n, size)`
    pub const COUNT_SIZE: Self = Self {
        factor: Some(0),
        size: Some(1),
        ..NOTHING
    };
    /// `posix_memalign(out, alignment, size)`: a call with an out-pointer never goes on as another
    /// function's, so that its alignment does not matter.
    pub const OUT_POINTER: Self = Self {
        out: Some(0),
        size: Some(2),
        result: CallResult::Status,
        ..NOTHING
    };
    /// `realloc(block, size)`
    pub const RESIZE: Self = Self {
        block: Some(0),
        size: Some(1),
        ..NOTHING
    };
    /// `reallocarray(block, n, size)`
    pub const RESIZE_ARRAY: Self = Self {
        block: Some(0),
        factor: Some(1),
        size: Some(2),
        ..NOTHING
    };
    /// `xallocx(block, size)`
    pub const RESIZE_IN_PLACE: Self = Self {
        result: CallResult::Size,
        ..Self::RESIZE
    };
    /// `mi_heap_malloc(heap, size)`
    pub const HEAP_SIZE: Self = Self {
        size: Some(1),
        ..NOTHING
    };
    /// `mi_heap_calloc(heap, n, size)`
    pub const HEAP_COUNT_SIZE: Self = Self {
        factor: Some(1),
        size: Some(2),
        ..NOTHING
    };
    /// `mi_heap_realloc(heap, block, size)`
    pub const HEAP_RESIZE: Self = Self {
        block: Some(1),
        size: Some(2),
        ..NOTHING
    };
    /// `free(block)`
    pub const FREE: Self = Self {
        block: Some(0),
        result: CallResult::None,
        ..NOTHING
    };

    /// Returns true if a call gives a block back and asks for nothing.
    #[must_use]
    pub const fn frees(&self) -> bool {
        self.size.is_none()
    }

    /// Returns true if a call resizes a block.
    #[must_use]
    pub const fn resizes(&self) -> bool {
        self.block.is_some() && self.size.is_some()
    }

    /// Returns true if a call makes a new block and returns its address.
    pub(super) const fn returns_new_block(&self) -> bool {
        self.block.is_none() && matches!(self.result, CallResult::Block)
    }

    /// The meaning of the result.
    #[must_use]
    pub const fn result(&self) -> CallResult {
        self.result
    }

    /// The flags of [`ProbeSpec`] that say what the result means.
    pub(super) const fn result_flags(&self) -> u32 {
        match self.result {
            CallResult::Status => ProbeSpec::RETURNS_STATUS,
            CallResult::Size => ProbeSpec::RETURNS_SIZE,
            CallResult::Block | CallResult::None => 0,
        }
    }

    /// The register of the size at the function's first instruction (System V AMD64, 3.2.3).
    pub(super) fn size_register(&self) -> Option<u8> {
        self.size.map(argument)
    }

    /// The register of the alignment there.
    pub(super) fn alignment_register(&self) -> Option<u8> {
        self.alignment.map(argument)
    }

    /// The register of the block there.
    pub(super) fn block_register(&self) -> Option<u8> {
        self.block.map(argument)
    }

    /// The register of the out-pointer there.
    pub(super) fn out_register(&self) -> Option<u8> {
        self.out.map(argument)
    }

    /// The registers of both factors there, where the size is a product.
    pub(super) fn factor_registers(&self) -> Option<(u8, u8)> {
        Some((argument(self.factor?), argument(self.size?)))
    }
}
