//! Files of the C library, of allocators and of C++'s runtime, by their names; and the functions of
//! the C library in programs that have it linked in.

use std::path::Path;

use super::CodeClass;

/// Starts of the base names of files.
const OBJECTS: &[(&str, CodeClass)] = &[
    // C libraries, dynamic linkers, and the kernel's own code in a process.
    ("libc.so", CodeClass::Libc),
    ("libc-2.", CodeClass::Libc),
    ("libc.musl", CodeClass::Libc),
    ("ld-linux", CodeClass::Libc),
    ("ld-musl", CodeClass::Libc),
    ("ld-2.", CodeClass::Libc),
    ("ld.so", CodeClass::Libc),
    ("libpthread", CodeClass::Libc),
    ("libdl.so", CodeClass::Libc),
    ("libdl-2.", CodeClass::Libc),
    ("librt.so", CodeClass::Libc),
    ("librt-2.", CodeClass::Libc),
    ("libresolv", CodeClass::Libc),
    ("libc_malloc_debug.so", CodeClass::Libc),
    ("vdso", CodeClass::Libc),
    ("linux-vdso", CodeClass::Libc),
    // Allocators.
    ("libjemalloc", CodeClass::Libc),
    ("libtcmalloc", CodeClass::Libc),
    ("libmimalloc", CodeClass::Libc),
    ("libsnmalloc", CodeClass::Libc),
    ("librpmalloc", CodeClass::Libc),
    ("libhoard", CodeClass::Libc),
    ("libscudo", CodeClass::Libc),
    ("libhardened_malloc", CodeClass::Libc),
    ("libtbbmalloc", CodeClass::Libc),
    ("libasan.so", CodeClass::Libc),
    ("libtsan.so", CodeClass::Libc),
    ("liblsan.so", CodeClass::Libc),
    // C++'s runtimes.
    ("libstdc++.so", CodeClass::Library),
    ("libc++.so", CodeClass::Library),
    ("libc++abi.so", CodeClass::Library),
    ("libgcc_s.so", CodeClass::Library),
    ("libunwind.so", CodeClass::Library),
    // Rust's, where it is linked dynamically.
    ("libstd-", CodeClass::Library),
];

/// Starts of functions of the C library and of allocators where they are part of a program.
const LIBC_PREFIXES: &[&str] = &[
    "__libc_",
    "_IO_",
    "_dl_",
    "__GI_",
    "__pthread_",
    "je_",
    "_rjem_",
    "tcmalloc::",
    "mi_heap_",
    "mi_malloc",
    "_mi_",
    "scudo::",
    "snmalloc::",
    "__asan_",
    "__interceptor_",
];

/// Functions of the C library that programs start in, and that grow its heap.
const LIBC_FUNCTIONS: &[&str] = &[
    "_start",
    "__start",
    "_start_c",
    "start_thread",
    "__clone",
    "clone3",
    "__clone3",
    "_int_malloc",
    "_int_realloc",
    "_int_memalign",
    "_mid_memalign",
    "sysmalloc",
    "sysmalloc_mmap",
    "new_heap",
    "arena_get2",
    "arena_get_retry",
    "tcache_init",
    "ptmalloc_init",
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "memalign",
    "aligned_alloc",
    "posix_memalign",
    "strdup",
    "__strdup",
    "strndup",
    "__strndup",
    "mmap",
    "mmap64",
    "sbrk",
    "__sbrk",
    "brk",
    "__brk",
];

/// Returns the class of all code in a file; nothing where its functions have to tell.
pub(super) fn class_of(path: &Path) -> Option<CodeClass> {
    let name = path.file_name()?.to_string_lossy();
    let found = OBJECTS.iter().find(|(start, _)| name.starts_with(start));
    found.map(|(_, class)| *class)
}

/// Returns true if a function is the C library's or an allocator's by its name.
pub(super) fn is_libc_function(name: &str) -> bool {
    let name = super::wrappers::without_clone_suffix(name);
    LIBC_FUNCTIONS.contains(&name) || LIBC_PREFIXES.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_known_by_their_files() {
        for (path, expected) in [
            ("/usr/lib/x86_64-linux-gnu/libc.so.6", Some(CodeClass::Libc)),
            ("/lib/ld-musl-x86_64.so.1", Some(CodeClass::Libc)),
            ("/lib/libjemalloc.so.2", Some(CodeClass::Libc)),
            ("/lib/libtcmalloc_minimal.so.4", Some(CodeClass::Libc)),
            ("/lib/libstdc++.so.6.0.30", Some(CodeClass::Library)),
            ("/lib/libcurl.so.4", None),
            ("/lib/libclang.so", None),
            ("/usr/bin/redis-server", None),
            ("", None),
        ] {
            assert_eq!(class_of(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn functions_of_a_static_libc() {
        for name in [
            "_start",
            "__libc_start_call_main",
            "_IO_file_doallocate",
            "_int_malloc.isra.0",
        ] {
            assert!(is_libc_function(name), "{name}");
        }
        for name in ["main", "start", "clone", "restart", "malloc_stats_print"] {
            assert!(!is_libc_function(name), "{name}");
        }
    }
}
