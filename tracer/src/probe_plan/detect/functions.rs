//! The table of functions: symbol → its name in reports, and the roles of its arguments. Adding a
//! function is adding a row to `names`, and adding an allocator is adding rows.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use tracer_ebpf::Function;

use super::names::{
    C_FAMILY, FunctionLine, JEMALLOC, JEMALLOC_PREFIXES, MIMALLOC, NEW, OPERATOR_DELETE, OPERATOR_NEW,
    PREFIXES, TC_DELETE, TC_NEW,
};
use super::row::row;
pub use super::row::{FunctionRow, Set, Tail, Throws};
use super::signature::Signature;

use crate::probe_plan::roles::Roles;
use crate::process::files::MappedFile;
use crate::settings::{SymbolOrOffset, UserSymbol, UserSymbols};

/// A symbol that every libc defines and no other library does: what tells a libc from a library
/// that merely has allocator functions.
pub const LIBC_MARK: &str = "__libc_start_main";

/// A symbol that glibc defines and musl does not: what tells its allocator, of which the layout of
/// blocks is known.
pub const GLIBC_MARK: &str = "malloc_info";

/// A function of the dynamic loader: where it is not the libc itself, it is glibc's, which up to
/// glibc 2.31 has a small allocator for itself.
pub const LOADER_MARK: &str = "__tls_get_addr";

/// A symbol of `AddressSanitizer`'s library, which has an allocator and looks up the next one all
/// the same.
pub const ASAN_MARK: &str = "__asan_init";

/// The functions that look up the next library's.
pub const LOOKUPS: [&str; 2] = ["dlsym", "dlvsym"];

/// glibc's second names of its functions, for libraries that stand in front of it.
pub const LIBC_ALIASES: [&str; 5] = [
    "__libc_malloc",
    "__libc_calloc",
    "__libc_realloc",
    "__libc_memalign",
    "__libc_free",
];

/// A search for the file with the separate symbols of another one, in directories before the usual
/// ones.
pub type FindSymbols = fn(&MappedFile, &[PathBuf]) -> Option<File>;

/// All rows, and where each name is among them.
#[derive(Debug, Clone)]
pub struct FunctionTable {
    rows: Vec<FunctionRow>,
    by_name: HashMap<String, usize>,
    asked_for: UserSymbols,
    /// Functions of one file that have no symbol: their names and their offsets.
    offsets: Vec<(String, u64)>,
    /// The search for the separate symbols of a file.
    separate_symbols: Option<(FindSymbols, Vec<PathBuf>)>,
}

impl Default for FunctionTable {
    fn default() -> Self {
        Self::new(UserSymbols::default())
    }
}

impl FunctionTable {
    /// Returns the table of the known functions and those that the user names. The latter come
    /// first, where one address has several names.
    #[must_use]
    pub fn new(asked_for: UserSymbols) -> Self {
        let mut table = Self {
            rows: Vec::new(),
            by_name: HashMap::new(),
            asked_for,
            offsets: Vec::new(),
            separate_symbols: None,
        };
        for prefix in table.asked_for.prefixes.clone() {
            table.add_prefix(&prefix);
        }
        for asked in table.asked_for.functions.clone() {
            if asked.file.is_none()
                && let Some(signature) = Signature::named(asked.signature)
            {
                table.add(signature.row(&asked.name()));
            }
        }
        for prefix in PREFIXES {
            table.add_prefix(prefix);
        }
        for (symbol, throws) in OPERATOR_NEW {
            table.add(FunctionRow {
                throws,
                ..row(
                    symbol.to_owned(),
                    Set::Operators,
                    Function::OperatorNew,
                    Roles::SIZE,
                )
            });
        }
        for symbol in OPERATOR_DELETE {
            table.add(row(
                symbol.to_owned(),
                Set::Operators,
                Function::Free,
                Roles::FREE,
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
        for (prefix, name, roles, throws) in NEW {
            table.add_new(prefix, name, roles, throws);
        }
        for (name, throws) in TC_NEW {
            table.add_new("tc_", name, Roles::SIZE, throws);
        }
        for name in TC_DELETE {
            table.add_line("tc_", &(name, Function::Free, Roles::FREE));
        }
        table
    }

    /// The table for one file, with what the user has asked for in that file alone.
    #[must_use]
    pub fn for_file(&self, file: &Path) -> Cow<'_, Self> {
        let here = |asked: &&UserSymbol| asked.file.is_some() && asked.may_be_in(file);
        let asked: Vec<&UserSymbol> = self.asked_for.functions.iter().filter(here).collect();
        if asked.is_empty() {
            return Cow::Borrowed(self);
        }
        let mut table = self.clone();
        for function in asked {
            let name = function.name();
            let Some(signature) = Signature::named(function.signature) else {
                continue;
            };
            table.rows.retain(|row| row.symbol != name);
            table.rows.insert(0, signature.row(&name));
            if let SymbolOrOffset::Offset(offset) = function.place {
                table.offsets.push((name, offset));
            }
        }
        let names = table.rows.iter().map(|row| row.symbol.clone());
        table.by_name = names.zip(0..).collect();
        Cow::Owned(table)
    }

    /// Looks for the separate symbols of files by `find`, in these directories before the usual
    /// ones.
    #[must_use]
    pub fn with_separate_symbols(self, find: FindSymbols, directories: &[PathBuf]) -> Self {
        Self {
            separate_symbols: Some((find, directories.to_vec())),
            ..self
        }
    }

    /// The file with the separate symbols of a file, if there is one.
    pub(in crate::probe_plan) fn separate_symbols(&self, file: &MappedFile) -> Option<File> {
        let (find, directories) = self.separate_symbols.as_ref()?;
        find(file, directories)
    }

    /// The allocators and functions that the user names.
    #[must_use]
    pub fn asked_for(&self) -> &UserSymbols {
        &self.asked_for
    }

    /// Returns true if the user has asked for this row.
    #[must_use]
    pub fn is_asked_for(&self, row: &FunctionRow) -> bool {
        match &row.set {
            Set::Prefix(prefix) => self.asked_for.prefixes.contains(prefix),
            Set::Operators => false,
            Set::Named => true,
        }
    }

    /// Functions without a symbol, of the file that the table is for: their names and their
    /// offsets.
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

    fn add_line(&mut self, prefix: &str, &(name, function, roles): &FunctionLine) {
        self.add(FunctionRow {
            frees_on_failure: name.ends_with("reallocf"),
            ..row(
                format!("{prefix}{name}"),
                Set::Prefix(prefix.to_owned()),
                function,
                roles,
            )
        });
    }

    fn add_new(&mut self, prefix: &str, name: &str, roles: Roles, throws: Throws) {
        let set = Set::Prefix(prefix.to_owned());
        self.add(FunctionRow {
            throws,
            ..row(format!("{prefix}{name}"), set, Function::OperatorNew, roles)
        });
    }

    fn add(&mut self, row: FunctionRow) {
        if !self.by_name.contains_key(&row.symbol) {
            self.by_name.insert(row.symbol.clone(), self.rows.len());
            self.rows.push(row);
        }
    }

    /// The rows, in the order in which names stand for an address that has several.
    #[must_use]
    pub fn rows(&self) -> &[FunctionRow] {
        &self.rows
    }

    /// Returns true if a symbol is looked for.
    #[must_use]
    pub fn has(&self, symbol: &str) -> bool {
        self.by_name.contains_key(symbol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found() {
        let table = FunctionTable::default();
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
        let table = FunctionTable::default();
        let throws = |name: &str| table.rows()[table.by_name[name]].throws;
        assert_eq!(throws("_Znwm"), Throws::May);
        assert_eq!(throws("mi_new_n"), Throws::May);
        assert_eq!(throws("tc_new_nothrow"), Throws::Nothrow);
        assert_eq!(throws("malloc"), Throws::Never);
    }

    #[test]
    fn users_add_prefixes_and_symbols() {
        let function = |file: Option<&str>, place| UserSymbol {
            file: file.map(PathBuf::from),
            place,
            signature: "malloc",
        };
        let table = FunctionTable::new(UserSymbols {
            prefixes: vec!["pool_".to_owned()],
            functions: vec![
                function(None, SymbolOrOffset::Symbol("_ZN4pool4takeEm".to_owned())),
                function(Some("libpool.so"), SymbolOrOffset::Symbol("take".to_owned())),
                function(Some("/opt/app"), SymbolOrOffset::Offset(0x1230)),
            ],
        });
        assert!(table.has("pool_realloc") && !table.has("take"));
        let row = |table: &FunctionTable, name: &str| table.rows()[table.by_name[name]].clone();
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
