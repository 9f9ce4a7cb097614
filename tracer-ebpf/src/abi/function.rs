//! The functions that are traced.

macro_rules! functions {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// A function whose calls are recorded. The order is that of the summary: where one address
        /// has several names, the first of them in this order names it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Function { $($(#[$doc])* $variant = $number,)* }

        impl Function {
            /// Every function, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name as a C programmer writes it, without an allocator's prefix.
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
    /// `void free(void *p)`, and every other function that gives a block back: they allocate
    /// nothing, and have no sums of their own
    Free = 10, "free";
    /// `void *operator new(std::size_t size)`, `operator new[]` and their other forms, where the
    /// allocator itself has them
    OperatorNew = 11, "operator new";
    /// jemalloc's `void *mallocx(size_t size, int flags)`
    Mallocx = 12, "mallocx";
    /// jemalloc's `void *rallocx(void *p, size_t size, int flags)`
    Rallocx = 13, "rallocx";
    /// jemalloc's `size_t xallocx(void *p, size_t size, size_t extra, int flags)`, which resizes a
    /// block where it is
    Xallocx = 14, "xallocx";
    /// mimalloc's `void *mi_zalloc(size_t size)`: zeroed memory
    Zalloc = 15, "zalloc";
    /// mimalloc's `void *mi_mallocn(size_t n, size_t size)`
    Mallocn = 16, "mallocn";
    /// mimalloc's `void *mi_expand(void *p, size_t size)`, which resizes a block where it is
    Expand = 17, "expand";
    /// An allocation by a function that is not known: of a profile that another program wrote. No
    /// probe has it
    Unknown = 31, "[allocation]";
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
    /// Whether this is a call to an allocator, as opposed to a system call that changes the address
    /// space.
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
