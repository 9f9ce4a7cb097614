//! The names of allocators' functions.
//!
//! Sources: C23 7.24.3 and `malloc(3)`; jemalloc(3); the headers `gperftools/tcmalloc.h` and `mimalloc.h`; the names of
//! C++ are those of the Itanium C++ ABI (5.1.5) for [new.delete] of the standard.

use tracer_ebpf::Function;

use super::functions::Throws;
use super::shape::Shape;

/// The prefixes that allocators are built with.
pub(super) const PREFIXES: [&str; 5] = ["", "je_", "_rjem_", "tc_", "mi_"];

/// Those of jemalloc, which has more functions.
pub(super) const JEMALLOC_PREFIXES: [&str; 3] = ["", "je_", "_rjem_"];

/// A function: name, what it counts as, shape.
pub(super) type Line = (&'static str, Function, Shape);

/// The C family, in the order of the summary: where one address has several names, the first names it.
pub(super) static C_FAMILY: [Line; 13] = [
    ("malloc", Function::Malloc, Shape::Size),
    ("calloc", Function::Calloc, Shape::CountSize),
    ("realloc", Function::Realloc, Shape::Resize),
    ("reallocarray", Function::Reallocarray, Shape::ResizeArray),
    ("posix_memalign", Function::PosixMemalign, Shape::OutPointer),
    ("aligned_alloc", Function::AlignedAlloc, Shape::AlignedSize),
    ("memalign", Function::Memalign, Shape::AlignedSize),
    ("valloc", Function::Valloc, Shape::Size),
    ("pvalloc", Function::Pvalloc, Shape::Size),
    ("free", Function::Free, Shape::Free),
    ("cfree", Function::Free, Shape::Free),
    ("free_sized", Function::Free, Shape::Free),
    ("free_aligned_sized", Function::Free, Shape::Free),
];

pub(super) const JEMALLOC: [Line; 5] = [
    ("mallocx", Function::Mallocx, Shape::Size),
    ("rallocx", Function::Rallocx, Shape::Resize),
    ("xallocx", Function::Xallocx, Shape::ResizeInPlace),
    ("dallocx", Function::Free, Shape::Free),
    ("sdallocx", Function::Free, Shape::Free),
];

/// After `mi_`. Not here: `mi_strdup`, `mi_strndup` and `mi_realpath`, which are not told a size; and `mi_heap_recalloc` and
/// its like, which jump to `mi_heap_rezalloc` and count as that.
pub(super) const MIMALLOC: [Line; 40] = [
    ("malloc_small", Function::Malloc, Shape::Size),
    ("zalloc", Function::Zalloc, Shape::Size),
    ("zalloc_small", Function::Zalloc, Shape::Size),
    ("mallocn", Function::Mallocn, Shape::CountSize),
    ("reallocn", Function::Reallocarray, Shape::ResizeArray),
    ("reallocf", Function::Realloc, Shape::Resize),
    ("rezalloc", Function::Realloc, Shape::Resize),
    ("recalloc", Function::Reallocarray, Shape::ResizeArray),
    ("expand", Function::Expand, Shape::Resize),
    ("malloc_aligned", Function::AlignedAlloc, Shape::Size),
    ("malloc_aligned_at", Function::AlignedAlloc, Shape::Size),
    ("zalloc_aligned", Function::AlignedAlloc, Shape::Size),
    ("zalloc_aligned_at", Function::AlignedAlloc, Shape::Size),
    ("calloc_aligned", Function::Calloc, Shape::CountSize),
    ("calloc_aligned_at", Function::Calloc, Shape::CountSize),
    ("realloc_aligned", Function::Realloc, Shape::Resize),
    ("realloc_aligned_at", Function::Realloc, Shape::Resize),
    ("rezalloc_aligned", Function::Realloc, Shape::Resize),
    ("rezalloc_aligned_at", Function::Realloc, Shape::Resize),
    ("recalloc_aligned", Function::Reallocarray, Shape::ResizeArray),
    ("recalloc_aligned_at", Function::Reallocarray, Shape::ResizeArray),
    ("free_size", Function::Free, Shape::Free),
    ("free_size_aligned", Function::Free, Shape::Free),
    ("free_aligned", Function::Free, Shape::Free),
    ("heap_malloc", Function::Malloc, Shape::HeapSize),
    ("heap_malloc_small", Function::Malloc, Shape::HeapSize),
    ("heap_zalloc", Function::Zalloc, Shape::HeapSize),
    ("heap_calloc", Function::Calloc, Shape::HeapCountSize),
    ("heap_mallocn", Function::Mallocn, Shape::HeapCountSize),
    ("heap_realloc", Function::Realloc, Shape::HeapResize),
    ("heap_reallocf", Function::Realloc, Shape::HeapResize),
    ("heap_rezalloc", Function::Realloc, Shape::HeapResize),
    ("heap_malloc_aligned", Function::AlignedAlloc, Shape::HeapSize),
    ("heap_malloc_aligned_at", Function::AlignedAlloc, Shape::HeapSize),
    ("heap_zalloc_aligned", Function::AlignedAlloc, Shape::HeapSize),
    ("heap_zalloc_aligned_at", Function::AlignedAlloc, Shape::HeapSize),
    ("heap_calloc_aligned", Function::Calloc, Shape::HeapCountSize),
    ("heap_calloc_aligned_at", Function::Calloc, Shape::HeapCountSize),
    ("heap_realloc_aligned", Function::Realloc, Shape::HeapResize),
    ("heap_rezalloc_aligned", Function::Realloc, Shape::HeapResize),
];

/// The functions behind `operator new` and `operator delete`: symbol, shape, whether it throws.
pub(super) const NEW: [(&str, &str, Shape, Throws); 7] = [
    ("mi_", "new", Shape::Size, Throws::May),
    ("mi_", "new_n", Shape::CountSize, Throws::May),
    ("mi_", "new_aligned", Shape::Size, Throws::May),
    ("mi_", "new_nothrow", Shape::Size, Throws::Nothrow),
    ("mi_", "new_aligned_nothrow", Shape::Size, Throws::Nothrow),
    ("mi_", "heap_alloc_new", Shape::HeapSize, Throws::May),
    ("mi_", "heap_alloc_new_n", Shape::HeapCountSize, Throws::May),
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

/// `operator delete` and `operator delete[]`: plain, told the size, told the alignment, told both; those of `std::nothrow`.
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
