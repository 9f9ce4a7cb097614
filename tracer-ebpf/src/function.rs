//! The functions that are traced, and the shapes of their calls.

macro_rules! functions {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// A function whose calls are tallied. The order is that of the summary: where one address has several
        /// names, the first of them in this order names it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Function { $($(#[$doc])* $variant = $number,)* }

        impl Function {
            /// Every function, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name as a C programmer writes it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The function with this number, as keys carry it.
            #[must_use]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

functions! {
    /// `void *malloc(size_t size)`
    Malloc = 1, "malloc";
    /// `void *calloc(size_t n, size_t size)`
    Calloc = 2, "calloc";
    /// `void *realloc(void *p, size_t size)`
    Realloc = 3, "realloc";
    /// `void *reallocarray(void *p, size_t n, size_t size)`
    Reallocarray = 4, "reallocarray";
    /// `int posix_memalign(void **p, size_t alignment, size_t size)`
    PosixMemalign = 5, "posix_memalign";
    /// `void *aligned_alloc(size_t alignment, size_t size)`
    AlignedAlloc = 6, "aligned_alloc";
    /// `void *memalign(size_t alignment, size_t size)`
    Memalign = 7, "memalign";
    /// `void *valloc(size_t size)`
    Valloc = 8, "valloc";
    /// `void *pvalloc(size_t size)`
    Pvalloc = 9, "pvalloc";
    /// `void free(void *p)`: it allocates nothing, and has no sums of its own
    Free = 10, "free";
    /// `mmap(2)`: bytes mapped
    Mmap = 32, "mmap";
    /// `munmap(2)`: bytes unmapped
    Munmap = 33, "munmap";
    /// `mremap(2)`: the new size in, the old size out
    Mremap = 34, "mremap";
    /// `brk(2)`: bytes that the break grew by in, bytes that it shrank by out
    Brk = 35, "brk";
}

impl Function {
    /// Whether this is a call to an allocator, as opposed to a system call that changes the address space.
    #[must_use]
    pub const fn is_heap(self) -> bool {
        (self as u32) < Self::Mmap as u32
    }

    /// The number of this function: the index of its row in per-function arrays.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }
}

/// Where a call has what it was asked for. One eBPF program serves each shape.
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
    /// A block, and its new size as a product that was made already: `reallocarray` behind its multiplication.
    ResizeProduct,
    /// A block to be given back: `free`.
    Free,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 8] = [
        Self::Size,
        Self::AlignedSize,
        Self::CountSize,
        Self::OutPointer,
        Self::Resize,
        Self::ResizeArray,
        Self::ResizeProduct,
        Self::Free,
    ];

    /// The name of the eBPF program that serves this shape.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Size => "alloc_size",
            Self::AlignedSize => "alloc_aligned",
            Self::CountSize => "alloc_count",
            Self::OutPointer => "alloc_out",
            Self::Resize => "realloc_size",
            Self::ResizeArray => "realloc_array",
            Self::ResizeProduct => "realloc_product",
            Self::Free => "free_block",
        }
    }

    /// The name of the eBPF program that serves its return, where blocks are followed.
    #[must_use]
    pub const fn return_program(self) -> Option<&'static str> {
        match self {
            Self::OutPointer => Some("return_out"),
            Self::Free => None,
            _ => Some("return_block"),
        }
    }
}
