//! The table of functions: symbol → what it is called in reports, and the shape of its call. Adding a function
//! is adding a row, and adding an allocator is adding rows.
//!
//! Sources: C23 7.24.3 and `malloc(3)`; jemalloc(3); the headers `gperftools/tcmalloc.h` and `mimalloc.h`; the names of
//! C++ are those of the Itanium C++ ABI (5.1.5) for [new.delete] of the standard.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tracer_ebpf::{Function, Shape};

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The symbol.
    pub symbol: String,
    /// Which functions it belongs together with: those of an allocator with this prefix.
    pub set: Set,
    /// What its calls count as.
    pub function: Function,
    /// Where the call has its size.
    pub shape: Shape,
    /// What it may go on to by a jump.
    pub tail: Tail,
    /// Whether an exception may pass through it.
    pub throws: Throws,
    /// It gives the block back where it cannot resize it.
    pub frees_on_failure: bool,
}

/// Functions that are one allocator's: a name by itself may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Set {
    /// With this prefix.
    Prefix(String),
    /// The operators of C++: those of whatever allocator the same file has.
    Operators,
    /// Named by the user.
    Named,
}

/// Whether a function may pass its call on to another traced one by a jump that its code does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// It does not.
    Never,
    /// Where there is no block to resize: `realloc(NULL, n)` is `malloc(n)`, and so is `aligned_alloc(a, n)` for
    /// an alignment that `malloc` gives anyway.
    WithoutBlock,
    /// Always: `reallocarray` is `realloc` with a checked product.
    Always,
}

/// Whether an exception may pass through a function. A return probe there would end the program: the unwinder finds the
/// kernel's address in the place of the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throws {
    /// It is declared not to throw (C functions by their headers), so that no caller could catch anything.
    Never,
    /// A form with `std::nothrow`. jemalloc and tcmalloc catch what a new-handler throws; mimalloc in C calls it without.
    Nothrow,
    /// It throws `std::bad_alloc`.
    May,
}

/// A symbol that every libc defines and no other library does: what tells a libc from a library that merely
/// has allocator functions.
pub const LIBC_MARK: &str = "__libc_start_main";

/// A symbol that glibc defines and musl does not: what tells its allocator, of which the layout of blocks is known.
pub const GLIBC_MARK: &str = "malloc_info";

/// A function of the dynamic loader: where it is not the libc itself, it is glibc's, which up to glibc 2.31 has a small allocator for itself.
pub const LOADER_MARK: &str = "__tls_get_addr";

/// A symbol of AddressSanitizer's library, which has an allocator and looks up the next one all the same.
pub const ASAN_MARK: &str = "__asan_init";

/// What looks up the next library's functions.
pub const LOOKUPS: [&str; 2] = ["dlsym", "dlvsym"];

/// glibc's second names of its functions, for libraries that stand in front of it.
pub const LIBC_ALIASES: [&str; 5] = [
    "__libc_malloc",
    "__libc_calloc",
    "__libc_realloc",
    "__libc_memalign",
    "__libc_free",
];

/// The prefixes that allocators are built with.
const PREFIXES: [&str; 5] = ["", "je_", "_rjem_", "tc_", "mi_"];

/// Those of jemalloc, which has more functions.
const JEMALLOC_PREFIXES: [&str; 3] = ["", "je_", "_rjem_"];

/// A function: name, what it counts as, shape.
type Line = (&'static str, Function, Shape);

/// The C family, in the order of the summary: where one address has several names, the first names it.
static C_FAMILY: [Line; 13] = [
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

const JEMALLOC: [Line; 5] = [
    ("mallocx", Function::Mallocx, Shape::Size),
    ("rallocx", Function::Rallocx, Shape::Resize),
    ("xallocx", Function::Xallocx, Shape::ResizeInPlace),
    ("dallocx", Function::Free, Shape::Free),
    ("sdallocx", Function::Free, Shape::Free),
];

/// After `mi_`. Not here: `mi_strdup`, `mi_strndup` and `mi_realpath`, which are not told a size.
const MIMALLOC: [Line; 40] = [
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
const NEW: [(&str, &str, Shape, Throws); 7] = [
    ("mi_", "new", Shape::Size, Throws::May),
    ("mi_", "new_n", Shape::CountSize, Throws::May),
    ("mi_", "new_aligned", Shape::Size, Throws::May),
    ("mi_", "new_nothrow", Shape::Size, Throws::Nothrow),
    ("mi_", "new_aligned_nothrow", Shape::Size, Throws::Nothrow),
    ("mi_", "heap_alloc_new", Shape::HeapSize, Throws::May),
    ("mi_", "heap_alloc_new_n", Shape::HeapCountSize, Throws::May),
];

const TC_NEW: [(&str, Throws); 8] = [
    ("new", Throws::May),
    ("newarray", Throws::May),
    ("new_aligned", Throws::May),
    ("newarray_aligned", Throws::May),
    ("new_nothrow", Throws::Nothrow),
    ("newarray_nothrow", Throws::Nothrow),
    ("new_aligned_nothrow", Throws::Nothrow),
    ("newarray_aligned_nothrow", Throws::Nothrow),
];

const TC_DELETE: [&str; 12] = [
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
const OPERATOR_NEW: [(&str, Throws); 8] = [
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
const OPERATOR_DELETE: [&str; 12] = [
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

/// All rows, and where each name is among them.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Vec<Row>,
    by_name: HashMap<String, usize>,
    asked_for: Asked,
    /// Functions of one file that have no symbol: what they are called, and where they are in it.
    offsets: Vec<(String, u64)>,
}

/// What the user has asked for, beside what is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Prefixes of allocators whose functions are otherwise named as those of C.
    pub prefixes: Vec<String>,
    /// Functions.
    pub functions: Vec<AskedFunction>,
}

/// A function that the user names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedFunction {
    /// In which file: a path, or a file's name; nothing for any.
    pub file: Option<PathBuf>,
    /// Which one.
    pub place: AskedPlace,
    /// What it is like.
    pub signature: Signature,
}

/// Where a function is that the user names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedPlace {
    /// At a symbol.
    Symbol(String),
    /// At an offset in the file.
    Offset(u64),
}

impl AskedFunction {
    /// What the function is called in reports.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.place {
            AskedPlace::Symbol(symbol) => symbol.clone(),
            AskedPlace::Offset(offset) => format!("{offset:#x}"),
        }
    }

    /// Whether it is to be looked for in this file.
    fn may_be_in(&self, file: &Path) -> bool {
        self.file.as_ref().is_none_or(|wanted| {
            let is_name = wanted.parent() == Some(Path::new(""));
            if is_name {
                file.file_name() == Some(wanted.as_os_str())
            } else {
                file == wanted
            }
        })
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new(Asked::default())
    }
}

impl Table {
    /// What is known, and what the user has asked for: that comes first, where one address has several names.
    #[must_use]
    pub fn new(asked_for: Asked) -> Self {
        let mut table = Self {
            rows: Vec::new(),
            by_name: HashMap::new(),
            asked_for,
            offsets: Vec::new(),
        };
        for prefix in table.asked_for.prefixes.clone() {
            table.add_prefix(&prefix);
        }
        for asked in table.asked_for.functions.clone() {
            if asked.file.is_none() {
                table.add(asked.signature.row(&asked.name()));
            }
        }
        for prefix in PREFIXES {
            table.add_prefix(prefix);
        }
        for (symbol, throws) in OPERATOR_NEW {
            table.add(Row {
                throws,
                ..row(
                    symbol.to_owned(),
                    Set::Operators,
                    Function::OperatorNew,
                    Shape::Size,
                )
            });
        }
        for symbol in OPERATOR_DELETE {
            table.add(row(
                symbol.to_owned(),
                Set::Operators,
                Function::Free,
                Shape::Free,
            ));
        }
        for prefix in JEMALLOC_PREFIXES {
            for line in &JEMALLOC {
                table.add_line(prefix, line);
            }
        }
        for line in &MIMALLOC {
            table.add_line("mi_", line);
        }
        for (prefix, name, shape, throws) in NEW {
            table.add_new(prefix, name, shape, throws);
        }
        for (name, throws) in TC_NEW {
            table.add_new("tc_", name, Shape::Size, throws);
        }
        for name in TC_DELETE {
            table.add_line("tc_", &(name, Function::Free, Shape::Free));
        }
        table
    }

    /// The table for one file, with what the user has asked for in that file alone.
    #[must_use]
    pub fn for_file(&self, file: &Path) -> Cow<'_, Self> {
        let here = |asked: &&AskedFunction| asked.file.is_some() && asked.may_be_in(file);
        let asked: Vec<&AskedFunction> = self.asked_for.functions.iter().filter(here).collect();
        if asked.is_empty() {
            return Cow::Borrowed(self);
        }
        let mut table = self.clone();
        for function in asked {
            let name = function.name();
            table.rows.retain(|row| row.symbol != name);
            table.rows.insert(0, function.signature.row(&name));
            if let AskedPlace::Offset(offset) = function.place {
                table.offsets.push((name, offset));
            }
        }
        let names = table.rows.iter().map(|row| row.symbol.clone());
        table.by_name = names.zip(0..).collect();
        Cow::Owned(table)
    }

    /// What the user has asked for.
    #[must_use]
    pub fn asked_for(&self) -> &Asked {
        &self.asked_for
    }

    /// Whether the user has asked for this row.
    #[must_use]
    pub fn is_asked_for(&self, row: &Row) -> bool {
        match &row.set {
            Set::Prefix(prefix) => self.asked_for.prefixes.contains(prefix),
            Set::Operators => false,
            Set::Named => true,
        }
    }

    /// Functions without a symbol, of the file that the table is for: what they are called, and their offsets.
    #[must_use]
    pub fn offsets(&self) -> &[(String, u64)] {
        &self.offsets
    }

    /// Takes in the C family with a prefix.
    fn add_prefix(&mut self, prefix: &str) {
        for line in &C_FAMILY {
            self.add_line(prefix, line);
        }
    }

    fn add_line(&mut self, prefix: &str, &(name, function, shape): &Line) {
        self.add(Row {
            frees_on_failure: name.ends_with("reallocf"),
            ..row(
                format!("{prefix}{name}"),
                Set::Prefix(prefix.to_owned()),
                function,
                shape,
            )
        });
    }

    fn add_new(&mut self, prefix: &str, name: &str, shape: Shape, throws: Throws) {
        let set = Set::Prefix(prefix.to_owned());
        self.add(Row {
            throws,
            ..row(format!("{prefix}{name}"), set, Function::OperatorNew, shape)
        });
    }

    fn add(&mut self, row: Row) {
        if !self.by_name.contains_key(&row.symbol) {
            self.by_name.insert(row.symbol.clone(), self.rows.len());
            self.rows.push(row);
        }
    }

    /// The rows, in the order in which names stand for an address that has several.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Whether a symbol is looked for.
    #[must_use]
    pub fn has(&self, symbol: &str) -> bool {
        self.by_name.contains_key(symbol)
    }
}

/// A function of the C family, or an operator of C++, as the signature that another function has too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature(&'static Line);

/// The operators, as signatures.
static OPERATORS: [Line; 2] = [
    ("new", Function::OperatorNew, Shape::Size),
    ("delete", Function::Free, Shape::Free),
];

impl Signature {
    /// By the function's name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|signature| signature.0.0 == name)
    }

    /// All that there are.
    pub fn all() -> impl Iterator<Item = Self> {
        static ALL: [&[Line]; 2] = [&C_FAMILY, &OPERATORS];
        ALL.iter().copied().flatten().map(Self)
    }

    /// The function's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0.0
    }

    /// The row of a function that has this signature. One of C++ may throw, whatever it is like.
    #[must_use]
    pub fn row(self, symbol: &str) -> Row {
        let &(_, function, shape) = self.0;
        let is_cpp = symbol.starts_with("_Z") || function == Function::OperatorNew;
        Row {
            throws: if is_cpp && shape != Shape::Free {
                Throws::May
            } else {
                Throws::Never
            },
            ..row(symbol.to_owned(), Set::Named, function, shape)
        }
    }
}

fn row(symbol: String, set: Set, function: Function, shape: Shape) -> Row {
    Row {
        symbol,
        set,
        function,
        shape,
        tail: match (function, shape) {
            (Function::Realloc, Shape::Resize)
            | (Function::AlignedAlloc | Function::Memalign, Shape::AlignedSize) => Tail::WithoutBlock,
            (Function::Reallocarray, _) => Tail::Always,
            _ => Tail::Never,
        },
        throws: Throws::Never,
        frees_on_failure: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found() {
        let table = Table::default();
        for name in [
            "malloc",
            "_rjem_sdallocx",
            "mi_heap_realloc",
            "tc_newarray_nothrow",
            "_ZdaPvm",
        ] {
            assert!(table.has(name), "{name}");
        }
        for name in ["je_je_malloc", "mi_strdup", "_rjem_je_malloc_default", "mallinfo"] {
            assert!(!table.has(name), "{name}");
        }
    }

    #[test]
    fn what_throws_is_marked() {
        let table = Table::default();
        let throws = |name: &str| table.rows()[table.by_name[name]].throws;
        assert_eq!(throws("_Znwm"), Throws::May);
        assert_eq!(throws("mi_new_n"), Throws::May);
        assert_eq!(throws("tc_new_nothrow"), Throws::Nothrow);
        assert_eq!(throws("malloc"), Throws::Never);
    }

    #[test]
    fn users_add_prefixes_and_symbols() {
        let function = |file: Option<&str>, place| AskedFunction {
            file: file.map(PathBuf::from),
            place,
            signature: Signature::named("malloc").expect("known"),
        };
        let table = Table::new(Asked {
            prefixes: vec!["pool_".to_owned()],
            functions: vec![
                function(None, AskedPlace::Symbol("_ZN4pool4takeEm".to_owned())),
                function(Some("libpool.so"), AskedPlace::Symbol("take".to_owned())),
                function(Some("/opt/app"), AskedPlace::Offset(0x1230)),
            ],
        });
        assert!(table.has("pool_realloc") && !table.has("take"));
        let row = |table: &Table, name: &str| table.rows()[table.by_name[name]].clone();
        assert_eq!(row(&table, "_ZN4pool4takeEm").throws, Throws::May);
        let library = table.for_file(Path::new("/usr/lib/libpool.so"));
        assert_eq!(row(&library, "take").throws, Throws::Never);
        assert!(library.is_asked_for(&row(&library, "take")) && library.offsets().is_empty());
        let program = table.for_file(Path::new("/opt/app"));
        assert_eq!(program.offsets(), [("0x1230".to_owned(), 0x1230)]);
        assert!(!table.for_file(Path::new("/elsewhere/app")).has("0x1230"));
        assert_eq!(Signature::named("brk"), None);
    }
}
