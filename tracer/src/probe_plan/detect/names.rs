//! The names of allocators' functions, with the roles of their arguments.
//!
//! Sources: C23 7.24.3 and `malloc(3)`; jemalloc(3); the headers `gperftools/tcmalloc.h` and
//! `mimalloc.h`; the names of C++ are those of the Itanium C++ ABI (5.1.5) for [new.delete] of the
//! standard.

use tracer_ebpf::Function;

use super::row::Throws;
use crate::probe_plan::roles::Roles;

/// The prefixes that allocators are built with.
pub(super) const PREFIXES: [&str; 5] = ["", "je_", "_rjem_", "tc_", "mi_"];

/// Those of jemalloc, which has more functions.
pub(super) const JEMALLOC_PREFIXES: [&str; 3] = ["", "je_", "_rjem_"];

/// A function: its name, the function that it counts as, the roles of its arguments.
pub(super) type FunctionLine = (&'static str, Function, Roles);

/// The C family, in the order of the summary: where one address has several names, the first names
/// it.
pub(super) static C_FAMILY: [FunctionLine; 13] = [
    ("malloc", Function::Malloc, Roles::SIZE),
    ("calloc", Function::Calloc, Roles::COUNT_SIZE),
    ("realloc", Function::Realloc, Roles::RESIZE),
    ("reallocarray", Function::Reallocarray, Roles::RESIZE_ARRAY),
    ("posix_memalign", Function::PosixMemalign, Roles::OUT_POINTER),
    ("aligned_alloc", Function::AlignedAlloc, Roles::ALIGNED_SIZE),
    ("memalign", Function::Memalign, Roles::ALIGNED_SIZE),
    ("valloc", Function::Valloc, Roles::SIZE),
    ("pvalloc", Function::Pvalloc, Roles::SIZE),
    ("free", Function::Free, Roles::FREE),
    ("cfree", Function::Free, Roles::FREE),
    ("free_sized", Function::Free, Roles::FREE),
    ("free_aligned_sized", Function::Free, Roles::FREE),
];

pub(super) const JEMALLOC: [FunctionLine; 5] = [
    ("mallocx", Function::Mallocx, Roles::SIZE),
    ("rallocx", Function::Rallocx, Roles::RESIZE),
    ("xallocx", Function::Xallocx, Roles::RESIZE_IN_PLACE),
    ("dallocx", Function::Free, Roles::FREE),
    ("sdallocx", Function::Free, Roles::FREE),
];

/// After `mi_`. Not here: `mi_strdup`, `mi_strndup` and `mi_realpath`, which are not told a size;
/// and `mi_heap_recalloc` and its like, which jump to `mi_heap_rezalloc` and count as that.
pub(super) const MIMALLOC: [FunctionLine; 40] = [
    ("malloc_small", Function::Malloc, Roles::SIZE),
    ("zalloc", Function::Zalloc, Roles::SIZE),
    ("zalloc_small", Function::Zalloc, Roles::SIZE),
    ("mallocn", Function::Mallocn, Roles::COUNT_SIZE),
    ("reallocn", Function::Reallocarray, Roles::RESIZE_ARRAY),
    ("reallocf", Function::Realloc, Roles::RESIZE),
    ("rezalloc", Function::Realloc, Roles::RESIZE),
    ("recalloc", Function::Reallocarray, Roles::RESIZE_ARRAY),
    ("expand", Function::Expand, Roles::RESIZE),
    ("malloc_aligned", Function::AlignedAlloc, Roles::SIZE),
    ("malloc_aligned_at", Function::AlignedAlloc, Roles::SIZE),
    ("zalloc_aligned", Function::AlignedAlloc, Roles::SIZE),
    ("zalloc_aligned_at", Function::AlignedAlloc, Roles::SIZE),
    ("calloc_aligned", Function::Calloc, Roles::COUNT_SIZE),
    ("calloc_aligned_at", Function::Calloc, Roles::COUNT_SIZE),
    ("realloc_aligned", Function::Realloc, Roles::RESIZE),
    ("realloc_aligned_at", Function::Realloc, Roles::RESIZE),
    ("rezalloc_aligned", Function::Realloc, Roles::RESIZE),
    ("rezalloc_aligned_at", Function::Realloc, Roles::RESIZE),
    ("recalloc_aligned", Function::Reallocarray, Roles::RESIZE_ARRAY),
    ("recalloc_aligned_at", Function::Reallocarray, Roles::RESIZE_ARRAY),
    ("free_size", Function::Free, Roles::FREE),
    ("free_size_aligned", Function::Free, Roles::FREE),
    ("free_aligned", Function::Free, Roles::FREE),
    ("heap_malloc", Function::Malloc, Roles::HEAP_SIZE),
    ("heap_malloc_small", Function::Malloc, Roles::HEAP_SIZE),
    ("heap_zalloc", Function::Zalloc, Roles::HEAP_SIZE),
    ("heap_calloc", Function::Calloc, Roles::HEAP_COUNT_SIZE),
    ("heap_mallocn", Function::Mallocn, Roles::HEAP_COUNT_SIZE),
    ("heap_realloc", Function::Realloc, Roles::HEAP_RESIZE),
    ("heap_reallocf", Function::Realloc, Roles::HEAP_RESIZE),
    ("heap_rezalloc", Function::Realloc, Roles::HEAP_RESIZE),
    ("heap_malloc_aligned", Function::AlignedAlloc, Roles::HEAP_SIZE),
    ("heap_malloc_aligned_at", Function::AlignedAlloc, Roles::HEAP_SIZE),
    ("heap_zalloc_aligned", Function::AlignedAlloc, Roles::HEAP_SIZE),
    ("heap_zalloc_aligned_at", Function::AlignedAlloc, Roles::HEAP_SIZE),
    ("heap_calloc_aligned", Function::Calloc, Roles::HEAP_COUNT_SIZE),
    ("heap_calloc_aligned_at", Function::Calloc, Roles::HEAP_COUNT_SIZE),
    ("heap_realloc_aligned", Function::Realloc, Roles::HEAP_RESIZE),
    ("heap_rezalloc_aligned", Function::Realloc, Roles::HEAP_RESIZE),
];

/// The functions behind `operator new` and `operator delete`: name, roles, whether it throws.
pub(super) const NEW: [(&str, &str, Roles, Throws); 7] = [
    ("mi_", "new", Roles::SIZE, Throws::May),
    ("mi_", "new_n", Roles::COUNT_SIZE, Throws::May),
    ("mi_", "new_aligned", Roles::SIZE, Throws::May),
    ("mi_", "new_nothrow", Roles::SIZE, Throws::Nothrow),
    ("mi_", "new_aligned_nothrow", Roles::SIZE, Throws::Nothrow),
    ("mi_", "heap_alloc_new", Roles::HEAP_SIZE, Throws::May),
    ("mi_", "heap_alloc_new_n", Roles::HEAP_COUNT_SIZE, Throws::May),
];

pub(super) const TC_NEW: [(&str, Throws); 8] = [
    ("new", Throws::May),
    ("newarray", Throws::May),
    ("new_aligned", Throws::May),
    ("newarray_aligned", Throws::May),
    ("new_nothrow", Throws::Nothrow),
    ("newarray_nothrow", Throws::Nothrow),
    ("new_aligned_nothrow", Throws::Nothrow),
    ("newarray_aligned_nothrow", Throws::Nothrow),
];

pub(super) const TC_DELETE: [&str; 12] = [
    "delete",
    "deletearray",
    "delete_nothrow",
    "deletearray_nothrow",
    "delete_sized",
    "deletearray_sized",
    "delete_aligned",
    "deletearray_aligned",
    "delete_aligned_nothrow",
    "deletearray_aligned_nothrow",
    "delete_sized_aligned",
    "deletearray_sized_aligned",
];

/// `operator new` and `operator new[]`: plain, for an alignment; the same without exceptions.
pub(super) const OPERATOR_NEW: [(&str, Throws); 8] = [
    ("_Znwm", Throws::May),
    ("_Znam", Throws::May),
    ("_ZnwmSt11align_val_t", Throws::May),
    ("_ZnamSt11align_val_t", Throws::May),
    ("_ZnwmRKSt9nothrow_t", Throws::Nothrow),
    ("_ZnamRKSt9nothrow_t", Throws::Nothrow),
    ("_ZnwmSt11align_val_tRKSt9nothrow_t", Throws::Nothrow),
    ("_ZnamSt11align_val_tRKSt9nothrow_t", Throws::Nothrow),
];

/// `operator delete` and `operator delete[]`: plain, told the size, told the alignment, told both;
/// those of `std::nothrow`.
pub(super) const OPERATOR_DELETE: [&str; 12] = [
    "_ZdlPv",
    "_ZdaPv",
    "_ZdlPvm",
    "_ZdaPvm",
    "_ZdlPvSt11align_val_t",
    "_ZdaPvSt11align_val_t",
    "_ZdlPvmSt11align_val_t",
    "_ZdaPvmSt11align_val_t",
    "_ZdlPvRKSt9nothrow_t",
    "_ZdaPvRKSt9nothrow_t",
    "_ZdlPvSt11align_val_tRKSt9nothrow_t",
    "_ZdaPvSt11align_val_tRKSt9nothrow_t",
];
