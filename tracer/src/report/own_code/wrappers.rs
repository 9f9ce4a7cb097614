//! Known wrappers of allocators: functions that programs and libraries allocate through, and that
//! say nothing of who asked.

/// The wrappers of one library, program or language. A name that ends in `*` stands for all that
/// begin so; names of C++ are without template arguments and parameters.
struct Family {
    /// The origin of the names, for tests and for readers of the table.
    #[cfg_attr(not(test), expect(dead_code, reason = "documents the table; tests print it"))]
    origin: &'static str,
    names: &'static [&'static str],
}

const fn family(origin: &'static str, names: &'static [&'static str]) -> Family {
    Family { origin, names }
}

const FAMILIES: &[Family] = &[
    family("C++", &["operator new*"]),
    family(
        "GLib",
        &[
            "g_malloc*",
            "g_try_malloc*",
            "g_realloc*",
            "g_try_realloc*",
            "g_aligned_alloc*",
            "g_slice_alloc*",
            "g_slice_copy",
            "g_strdup*",
            "g_strndup",
            "g_strconcat",
            "g_memdup*",
            "g_standard_malloc",
        ],
    ),
    family(
        "gnulib, GCC, git and many others",
        &[
            "xmalloc",
            "xmallocz",
            "xmallocarray",
            "xcalloc",
            "xrealloc",
            "xreallocarray",
            "xzalloc",
            "xnmalloc",
            "xnrealloc",
            "x2realloc",
            "x2nrealloc",
            "xcharalloc",
            "ximalloc",
            "xicalloc",
            "xizalloc",
            "xirealloc",
            "xireallocarray",
            "xpalloc",
            "xmemdup*",
            "ximemdup*",
            "xstrdup",
            "xstrndup",
            "do_xmalloc",
            "memory_limit_check",
            "rpl_malloc",
            "rpl_realloc",
            "emalloc",
            "ecalloc",
            "erealloc",
            "safe_malloc",
            "safe_calloc",
            "safe_realloc",
            "checked_malloc",
            "mem_alloc",
            "my_malloc",
            "my_realloc",
            "_obstack_begin*",
            "_obstack_newchunk",
            "_obstack_allocated*",
            "rpl_obstack*",
            "call_chunkfun",
            "ggc_internal_alloc*",
            "ggc_internal_cleared_alloc*",
            "ggc_alloc_*",
            "ggc_realloc*",
        ],
    ),
    family(
        "Redis and Valkey",
        &[
            "zmalloc*",
            "zcalloc*",
            "zrealloc*",
            "ztrymalloc*",
            "ztrycalloc*",
            "ztryrealloc*",
            "zstrdup",
            "valkey_malloc*",
            "valkey_calloc*",
            "valkey_realloc*",
            "s_malloc*",
            "s_realloc*",
            "s_trymalloc*",
            "hi_malloc",
            "hi_calloc",
            "hi_realloc",
        ],
    ),
    family(
        "CPython",
        &[
            "PyMem_*",
            "_PyMem_*",
            "PyObject_Malloc",
            "PyObject_Calloc",
            "PyObject_Realloc",
            "_PyObject_Malloc",
            "_PyObject_Calloc",
            "_PyObject_Realloc",
            "_PyObject_Arena*",
            "_PyObject_New*",
            "_PyObject_GC_New*",
            "_PyObject_GC_Malloc*",
            "_PyObject_GC_Resize",
            "_PyObject_GC_Alloc",
            "PyType_GenericAlloc",
            "_PyType_AllocNoTrack",
            "pymalloc_alloc",
            "pymalloc_realloc",
            "allocate_from_new_pool",
            "new_arena",
            "gc_alloc",
        ],
    ),
    family(
        "Perl",
        &[
            "Perl_safesys*",
            "Perl_malloc",
            "Perl_calloc",
            "Perl_realloc",
            "Perl_more_bodies",
            "Perl_more_sv",
            "S_more_sv",
            "Perl_savepv*",
            "Perl_savesharedpv*",
        ],
    ),
    family(
        "Ruby",
        &[
            "ruby_xmalloc*",
            "ruby_xcalloc*",
            "ruby_xrealloc*",
            "ruby_mimmalloc*",
            "objspace_xmalloc*",
            "objspace_xcalloc*",
            "objspace_xrealloc*",
            "objspace_malloc_gc_stress",
            "rb_xmalloc_mul_add*",
            "rb_xrealloc_mul_add*",
            "rb_gc_impl_malloc",
            "rb_gc_impl_calloc",
            "rb_gc_impl_realloc",
            "rb_alloc_tmp_buffer*",
        ],
    ),
    family(
        "PHP",
        &[
            "_emalloc*",
            "_ecalloc*",
            "_erealloc*",
            "_estrdup*",
            "_estrndup*",
            "_safe_emalloc*",
            "_safe_malloc*",
            "_safe_realloc*",
            "_safe_erealloc*",
            "__zend_malloc*",
            "__zend_calloc*",
            "__zend_realloc*",
            "zend_mm_*",
            "tracked_malloc",
        ],
    ),
    family(
        "PostgreSQL",
        &[
            "palloc*",
            "repalloc*",
            "pstrdup",
            "pnstrdup",
            "MemoryContextAlloc*",
            "MemoryContextStrdup",
            "MemoryContextCreate",
            "AllocSetAlloc*",
            "AllocSetRealloc",
            "AllocSetContextCreate*",
            "GenerationAlloc*",
            "GenerationRealloc",
            "GenerationContextCreate",
            "SlabAlloc*",
            "SlabContextCreate",
            "BumpAlloc*",
            "BumpContextCreate",
            "pg_malloc*",
            "pg_realloc*",
            "pg_strdup",
            "pg_palloc*",
            "guc_malloc",
            "guc_realloc",
            "guc_strdup",
        ],
    ),
    family(
        "nginx",
        &[
            "ngx_alloc",
            "ngx_calloc",
            "ngx_memalign",
            "ngx_palloc*",
            "ngx_pnalloc",
            "ngx_pcalloc",
            "ngx_pmemalign",
            "ngx_create_pool",
            "ngx_slab_*",
        ],
    ),
    family(
        "APR",
        &[
            "apr_palloc*",
            "apr_pcalloc*",
            "apr_pool_create*",
            "allocator_alloc",
        ],
    ),
    family(
        "OpenSSL",
        &[
            "CRYPTO_malloc*",
            "CRYPTO_zalloc*",
            "CRYPTO_calloc*",
            "CRYPTO_realloc*",
            "CRYPTO_clear_realloc*",
            "CRYPTO_aligned_alloc*",
            "CRYPTO_strdup",
            "CRYPTO_memdup",
            "OPENSSL_malloc*",
        ],
    ),
    family(
        "SQLite",
        &[
            "sqlite3MemMalloc",
            "sqlite3MemRealloc",
            "sqlite3Malloc*",
            "sqlite3Realloc*",
            "sqlite3_malloc*",
            "sqlite3_realloc*",
            "sqlite3DbMalloc*",
            "sqlite3DbRealloc*",
            "sqlite3DbStrDup",
            "mallocWithAlarm",
            "dbMallocRaw*",
            "dbReallocFinish",
        ],
    ),
    family(
        "V8, Node.js and Chromium",
        &[
            "v8::internal::AllocWithRetry",
            "v8::internal::Malloced::*",
            "v8::internal::NewArray",
            "v8::internal::AccountingAllocator::*",
            "v8::internal::Zone::Expand",
            "v8::internal::Zone::New*",
            "v8::internal::Zone::Allocate*",
            "v8::base::Malloc",
            "v8::base::Calloc",
            "v8::base::Realloc",
            "node::Malloc*",
            "node::Calloc*",
            "node::Realloc*",
            "node::Unchecked*",
            "uv__malloc",
            "uv__calloc",
            "uv__realloc*",
            "uv__strdup",
            "icu_*::UMemory::operator new*",
            "uprv_malloc*",
            "uprv_calloc*",
            "uprv_realloc*",
            "allocator_shim::*",
            "partition_alloc::*",
        ],
    ),
    family(
        "LLVM",
        &[
            "llvm::safe_malloc",
            "llvm::safe_calloc",
            "llvm::safe_realloc",
            "llvm::allocate_buffer",
            "llvm::SmallVectorBase::grow_pod",
            "llvm::SmallVectorBase::mallocForGrow",
            "llvm::MallocAllocator::Allocate",
            "llvm::BumpPtrAllocatorImpl::*",
        ],
    ),
    family(
        "Qt and KDE",
        &[
            "QArrayData::*",
            "QListData::*",
            "QHashData::allocateNode",
            "qMallocAligned",
        ],
    ),
    family(
        "OpenJDK",
        &[
            "os::malloc",
            "os::realloc",
            "os::strdup*",
            "AllocateHeap",
            "ReallocateHeap",
            "ArenaObj::*",
            "Chunk::operator new*",
            "Arena::grow",
            "Amalloc*",
        ],
    ),
    family(
        "Lua, cURL, FFmpeg, GMP, Samba, libxml2, ImageMagick, Erlang, OCaml, Boehm's collector",
        &[
            "l_alloc",
            "luaM_*",
            "lj_mem_*",
            "Curl_cmalloc",
            "Curl_ccalloc",
            "Curl_crealloc",
            "Curl_saferealloc",
            "Curl_memdup*",
            "curl_dbg_*",
            "av_malloc*",
            "av_mallocz*",
            "av_calloc",
            "av_realloc*",
            "av_fast_*alloc*",
            "__gmp_default_allocate",
            "__gmp_default_reallocate",
            "_talloc_*",
            "talloc_*",
            "tc_alloc_pool",
            "__talloc*",
            "xmlMemMalloc",
            "xmlStrdup",
            "xmlStrndup",
            "AcquireMagickMemory",
            "AcquireQuantumMemory",
            "erts_alloc*",
            "erts_realloc*",
            "erts_sys_alloc",
            "erts_sys_realloc",
            "caml_stat_alloc*",
            "caml_stat_calloc*",
            "caml_stat_resize*",
            "GC_malloc*",
            "GC_generic_malloc*",
        ],
    ),
];

/// Returns true if a function is a known wrapper of an allocator.
pub(super) fn is_wrapper(name: &str) -> bool {
    let name = &*without_arguments(without_clone_suffix(name));
    // A class's own `operator new` is one as well.
    let last = name
        .rfind("::operator new")
        .map_or(name, |at| &name[at + "::".len()..]);
    FAMILIES
        .iter()
        .flat_map(|family| family.names)
        .any(|pattern| matches(pattern, name) || matches(pattern, last))
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, "")) => name.starts_with(start),
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|tail| {
            (0..tail.len()).any(|at| tail.is_char_boundary(at) && matches(rest, &tail[at..]))
        }),
    }
}

/// Returns a name without the suffix that a compiler gives to parts and copies of a function
/// (`zmalloc.constprop.0`, `f.part.3`, `f.cold`), and without a symbol's version.
pub(super) fn without_clone_suffix(name: &str) -> &str {
    const SUFFIXES: [&str; 6] = [".constprop", ".part", ".isra", ".cold", ".lto_priv", ".llvm"];
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let cut = SUFFIXES.iter().filter_map(|suffix| name.find(suffix)).min();
    match cut {
        Some(at) if at > 0 => &name[..at],
        _ => name,
    }
}

/// Returns a C++ function's name without template arguments and parameters.
fn without_arguments(name: &str) -> std::borrow::Cow<'_, str> {
    if !name.contains(['<', '(']) {
        return name.into();
    }
    let mut depth = 0_i32;
    let mut shown = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            // Parameters end the name; those of an anonymous namespace do not begin it.
            '(' if depth == 0 && !shown.is_empty() && !shown.ends_with("::") => break,
            '<' | '(' => depth += 1,
            '>' | ')' => depth -= 1,
            _ if depth == 0 => shown.push(letter),
            _ => {}
        }
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_of_every_family() {
        for name in [
            "operator new(unsigned long)",
            "operator new[](unsigned long, std::nothrow_t const&)",
            "app::Pool::operator new(unsigned long)",
            "g_malloc0",
            "g_malloc_n",
            "g_strdup_printf",
            "xmalloc",
            "xcalloc",
            "xstrdup",
            "zmalloc",
            "ztrymalloc_usable_internal.constprop.0",
            "PyMem_RawMalloc",
            "_PyObject_GC_NewVar",
            "PyObject_Malloc",
            "Perl_safesysmalloc",
            "ruby_xmalloc2",
            "objspace_xrealloc.isra.0",
            "_emalloc_large",
            "__zend_malloc",
            "palloc0",
            "MemoryContextAllocZero",
            "ngx_palloc_large",
            "CRYPTO_zalloc",
            "sqlite3DbMallocRawNN",
            "v8::internal::NewArray<char>(unsigned long)",
            "llvm::SmallVectorBase<unsigned int>::grow_pod(void*, unsigned long, unsigned long)",
            "av_fast_padded_malloc",
            "luaM_realloc_",
            "malloc_hook_test::operator new(unsigned long)",
        ] {
            assert!(is_wrapper(name), "{name}");
        }
    }

    #[test]
    fn functions_of_programs_are_none() {
        for name in [
            "main",
            "zmain",
            "xml_parse",
            "python_main",
            "PyObject_Call",
            "PyList_New",
            "app::make<xmalloc>(int)",
            "(anonymous namespace)::load(char const*)",
            "operator_new",
            "operator<<(std::ostream&, app::Row const&)",
            "",
            ".part.0",
        ] {
            assert!(!is_wrapper(name), "{name}");
        }
    }

    #[test]
    fn no_pattern_is_there_twice() {
        let mut seen = std::collections::HashMap::new();
        for family in FAMILIES {
            for name in family.names {
                let before = seen.insert(*name, family.origin);
                assert_eq!(before, None, "{name} of {}", family.origin);
            }
        }
    }

    #[test]
    fn copies_of_functions() {
        for (name, expected) in [
            ("f", "f"),
            ("f.part.0", "f"),
            ("f.constprop.0.isra.0", "f"),
            ("malloc@@GLIBC_2.2.5", "malloc"),
            (".part.0", ".part.0"),
            ("main.go", "main.go"),
        ] {
            assert_eq!(without_clone_suffix(name), expected);
        }
    }
}
