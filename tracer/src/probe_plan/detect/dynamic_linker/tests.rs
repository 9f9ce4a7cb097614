use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use tempfile::TempDir;

use super::*;

/// The tags of a dynamic section that tests write (`elf.h`).
const NEEDED: u64 = 1;
const STRTAB: u64 = 5;
const SONAME: u64 = 14;
const RPATH: u64 = 15;
const RUNPATH: u64 = 29;

const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERP: u32 = 3;

/// Makes a shared object with these entries, loaded at address 0 as it lies in the file.
fn object(interpreter: Option<&Path>, entries: &[(u64, &str)]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 3 * 56;
    let mut strings = vec![0u8];
    let mut put = |text: &[u8]| {
        let at = strings.len() as u64;
        strings.extend(text.iter().chain(&[0]));
        at
    };
    let interpreter =
        interpreter.map(|path| (put(path.as_os_str().as_bytes()), path.as_os_str().len() as u64));
    let mut dynamic: Vec<(u64, u64)> = entries
        .iter()
        .map(|(tag, text)| (*tag, put(text.as_bytes())))
        .collect();
    let dynamic_bytes = 16 * (entries.len() as u64 + 2);
    let strings_at = HEADERS + dynamic_bytes;
    dynamic.extend([(STRTAB, strings_at), (0, 0)]);
    let size = strings_at + strings.len() as u64;

    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    for half in [3u16, 62] {
        bytes.extend(half.to_le_bytes());
    }
    bytes.extend(1u32.to_le_bytes());
    for word in [0u64, 64, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0u32.to_le_bytes());
    let programs = if interpreter.is_some() { 3 } else { 2 };
    for half in [64u16, 56, programs, 64, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    let mut program = |kind: u32, offset: u64, size: u64| {
        bytes.extend(kind.to_le_bytes().into_iter().chain(4u32.to_le_bytes()));
        for word in [offset, offset, offset, size, size, 8] {
            bytes.extend(word.to_le_bytes());
        }
    };
    program(LOAD, 0, size);
    program(DYNAMIC, HEADERS, dynamic_bytes);
    let (at, len) = interpreter.unwrap_or_default();
    program(INTERP, strings_at + at, len + 1);
    for (tag, value) in dynamic {
        bytes.extend(tag.to_le_bytes().into_iter().chain(value.to_le_bytes()));
    }
    bytes.extend(strings);
    bytes
}

/// Files of a test, in a directory of their own.
struct Tree {
    directory: TempDir,
    linker: DynamicLinker,
}

impl Tree {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            linker: DynamicLinker {
                cache: LinkerCache::default(),
                hwcaps: vec!["x86-64-v3", "x86-64-v2"],
                library_path: Vec::new(),
                preload: Vec::new(),
                system_preload: Vec::new(),
                user: (
                    rustix::process::geteuid().as_raw(),
                    rustix::process::getegid().as_raw(),
                ),
            },
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().canonicalize().expect("there").join(name)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        self.path(name).into_os_string().into_vec()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    fn library(&self, name: &str, entries: &[(u64, &str)]) {
        self.write(name, &object(None, entries));
    }

    /// Writes a program, and the linker that it asks for.
    fn program(&self, name: &str, linker: &str, entries: &[(u64, &str)]) {
        self.library(linker, &[(SONAME, "ld-linux-x86-64.so.2")]);
        self.write(name, &object(Some(&self.path(linker)), entries));
    }

    /// Lists what is loaded with a program but for the linker, from the directory on.
    fn loaded(&self, program: &str) -> Vec<String> {
        let root = self.path("");
        let files = self.linker.libraries_of(&self.path(program));
        let shown = |path: &PathBuf| path.strip_prefix(&root).unwrap_or(path).display().to_string();
        files.iter().skip(1).map(shown).collect()
    }
}

const LD: &str = "ld/ld-linux-x86-64.so.2";

#[test]
fn libraries_are_loaded_breadth_first_and_once() {
    let tree = Tree::new();
    let own = [(RUNPATH, "$ORIGIN")];
    let with = |names: &[&'static str]| -> Vec<_> {
        let needed = names.iter().map(|name| (NEEDED, *name));
        needed.chain(own).collect()
    };
    tree.program("app", LD, &with(&["liba.so", "libb.so", "ld-linux-x86-64.so.2"]));
    tree.library("liba.so", &with(&["libc.so", "libb.so"]));
    tree.library("libb.so", &with(&["libc.so", "libgone.so", "named"]));
    tree.library("libc.so", &[(SONAME, "named")]);
    assert_eq!(tree.loaded("app"), ["liba.so", "libb.so", "libc.so"]);
    assert_eq!(tree.linker.libraries_of(&tree.path("app"))[0], tree.path(LD));
}

#[test]
fn origin_is_that_of_the_file_and_not_of_a_link() {
    let tree = Tree::new();
    tree.program(
        "jvm/bin/java",
        LD,
        &[(NEEDED, "libjli.so"), (RUNPATH, "${ORIGIN}/../lib")],
    );
    tree.library("jvm/lib/libjli.so", &[]);
    fs::create_dir(tree.path("bin")).expect("made");
    symlink(tree.path("jvm/bin/java"), tree.path("bin/java")).expect("linked");
    assert_eq!(tree.loaded("bin/java"), ["jvm/bin/../lib/libjli.so"]);
}

#[test]
fn older_search_paths_hold_for_libraries_of_libraries() {
    let tree = Tree::new();
    let inner = [(NEEDED, "libinner.so")];
    for path in [RPATH, RUNPATH] {
        tree.program("app", LD, &[(NEEDED, "libouter.so"), (path, "$ORIGIN/lib")]);
        tree.library("lib/libouter.so", &inner);
        tree.library("lib/libinner.so", &[]);
        let expected: &[&str] = if path == RPATH {
            &["lib/libouter.so", "lib/libinner.so"]
        } else {
            &["lib/libouter.so"]
        };
        assert_eq!(tree.loaded("app"), expected);
    }
    // A newer one of the library's own shuts out the program's.
    tree.program("app", LD, &[(NEEDED, "libouter.so"), (RPATH, "$ORIGIN/lib")]);
    tree.library(
        "lib/libouter.so",
        &[(NEEDED, "libinner.so"), (RUNPATH, "/nowhere")],
    );
    assert_eq!(tree.loaded("app"), ["lib/libouter.so"]);
}

#[test]
fn environment_comes_between_the_search_paths() {
    let mut tree = Tree::new();
    tree.linker.library_path = [tree.bytes("gone"), tree.bytes("env")].join(&b':');
    tree.library("env/liba.so", &[]);
    tree.library("own/liba.so", &[]);
    for (path, expected) in [(RPATH, "own/liba.so"), (RUNPATH, "env/liba.so")] {
        tree.program("app", LD, &[(NEEDED, "liba.so"), (path, "$ORIGIN/own")]);
        assert_eq!(tree.loaded("app"), [expected]);
    }
}

#[test]
fn libraries_of_other_architectures_are_skipped() {
    let mut tree = Tree::new();
    tree.linker.library_path = [tree.bytes("other"), tree.bytes("text"), tree.bytes("own")].join(&b':');
    let mut other = object(None, &[]);
    other[18] = 3;
    tree.write("other/liba.so", &other);
    tree.write("text/liba.so", b"INPUT(liba.so.1)");
    tree.library("own/liba.so", &[]);
    tree.program("app", LD, &[(NEEDED, "liba.so")]);
    assert_eq!(tree.loaded("app"), ["own/liba.so"]);
}

#[test]
fn best_directory_for_the_processor_comes_first() {
    let mut tree = Tree::new();
    tree.linker.library_path = tree.bytes("lib");
    tree.library("lib/liba.so", &[]);
    tree.library("lib/glibc-hwcaps/x86-64-v2/liba.so", &[]);
    tree.library("lib/glibc-hwcaps/x86-64-v4/liba.so", &[]);
    tree.program("app", LD, &[(NEEDED, "liba.so")]);
    assert_eq!(tree.loaded("app"), ["lib/glibc-hwcaps/x86-64-v2/liba.so"]);
}

#[test]
fn preloaded_libraries_come_first_but_for_other_users_programs() {
    let mut tree = Tree::new();
    tree.library("liba.so", &[]);
    tree.library("libb.so", &[]);
    tree.library("libsystem.so", &[]);
    tree.linker.preload = [tree.bytes("libb.so"), b"libgone.so".to_vec()].join(&b' ');
    tree.linker.library_path = tree.bytes("");
    tree.linker.system_preload = tree.bytes("libsystem.so");
    tree.program("app", LD, &[(NEEDED, "liba.so")]);
    assert_eq!(tree.loaded("app"), ["libb.so", "libsystem.so", "liba.so"]);

    fs::set_permissions(tree.path("app"), fs::Permissions::from_mode(0o4755)).expect("allowed");
    assert_eq!(tree.loaded("app").len(), 3, "its owner runs it");
    tree.linker.user.0 += 1;
    assert_eq!(tree.loaded("app"), ["libsystem.so"]);
}

#[test]
fn musl_has_rules_of_its_own() {
    let tree = Tree::new();
    tree.library("lib/libz.so.1", &[]);
    tree.library("more/libx.so", &[(NEEDED, "libz.so.1")]);
    let list = [tree.bytes("gone"), tree.bytes("lib"), tree.bytes("more")].join(&b'\n');
    tree.write("etc/ld-musl-x86_64.path", &list);
    let needed = [
        (NEEDED, "libx.so"),
        (NEEDED, "libc.musl-x86_64.so.1"),
        (NEEDED, "libm.so"),
    ];
    tree.program("app", "lib/ld-musl-x86_64.so.1", &needed);
    assert_eq!(tree.loaded("app"), ["more/libx.so", "lib/libz.so.1"]);
}

#[test]
fn files_that_ask_for_no_linker_load_nothing() {
    let tree = Tree::new();
    tree.write("script", b"#!/bin/sh\n");
    tree.write(
        "app",
        &object(Some(&tree.path("script")), &[(NEEDED, "libc.so.6")]),
    );
    assert!(
        tree.linker.libraries_of(&tree.path("app")).is_empty(),
        "a linker that is a script"
    );
    assert!(tree.linker.libraries_of(&tree.path("script")).is_empty());
    assert!(tree.linker.libraries_of(&tree.path("gone")).is_empty());
    tree.library("liba.so", &[(NEEDED, "libc.so.6")]);
    assert!(tree.linker.libraries_of(&tree.path("liba.so")).is_empty());
}

#[test]
fn words_in_paths_are_replaced() {
    let meanings = |text: &str, is_secure| {
        let found = search::meanings(text.as_bytes(), Path::new("/app"), is_secure);
        let text = |path| String::from_utf8(path).expect("text");
        found.into_iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(meanings("/lib", false), ["/lib"]);
    assert_eq!(meanings("$ORIGIN/../lib", false), ["/app/../lib"]);
    assert_eq!(meanings("${ORIGIN}:$OTHER", false), ["/app:$OTHER"]);
    assert!(meanings("$ORIGIN", true).is_empty());
    let all = meanings("/x/$LIB/$PLATFORM", false);
    assert_eq!(all.len(), 6);
    assert_eq!(all[0], "/x/lib/x86_64-linux-gnu/x86_64");
    assert!(meanings(&"$LIB".repeat(3), false).len() <= 16);
    assert!(meanings(&"$".repeat(4000), false).is_empty());
}

/// A program that asks for very many libraries in very many directories ends the search in time.
#[test]
fn hostile_programs_are_followed_to_a_limit() {
    let tree = Tree::new();
    let paths = vec!["/nowhere/$LIB"; 250].join(":");
    let names: Vec<String> = (0..4000).map(|number| format!("lib{number}.so")).collect();
    let mut entries: Vec<(u64, &str)> = names.iter().map(|name| (NEEDED, name.as_str())).collect();
    entries.push((RPATH, &paths));
    tree.program("app", LD, &entries);
    let begun = std::time::Instant::now();
    assert!(tree.loaded("app").is_empty());
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

#[test]
fn comments_are_no_libraries() {
    assert_eq!(without_comments(b"# a\n/b.so # c\n/d.so"), b" /b.so  /d.so");
}

/// Programs that every development machine has, and some that have many libraries.
const SYSTEM: [&str; 44] = [
    "ls",
    "cat",
    "bash",
    "tar",
    "find",
    "grep",
    "sed",
    "sort",
    "gcc",
    "ld",
    "as",
    "objdump",
    "readelf",
    "git",
    "perl",
    "python3",
    "gdb",
    "make",
    "cmake",
    "ssh",
    "curl",
    "openssl",
    "gpg",
    "apt",
    "dpkg",
    "mount",
    "ps",
    "top",
    "less",
    "vim",
    "xz",
    "gzip",
    "bzip2",
    "file",
    "strace",
    "java",
    "node",
    "ruby",
    "sqlite3",
    "redis-server",
    "clang",
    "rustc",
    "qemu-system-x86_64",
    "systemctl",
];

/// The rules are those of this machine's own linker: its list of the libraries of its programs is
/// the same.
#[test]
fn system_programs_load_what_their_linker_says() {
    let linker = DynamicLinker::of_system(None);
    let mut compared = 0;
    for name in SYSTEM {
        let Ok(program) = super::super::loader::program(OsStr::new(name)) else {
            continue;
        };
        let ours: BTreeSet<PathBuf> = linker
            .libraries_of(&program)
            .iter()
            .map(|path| path.canonicalize().expect("it was there"))
            .collect();
        if ours.is_empty() {
            continue;
        }
        let ldd = Command::new("ldd")
            .arg(program.canonicalize().expect("there"))
            .output();
        let ldd = ldd.expect("ldd is of the C library");
        let text = String::from_utf8(ldd.stdout).expect("text");
        let theirs: BTreeSet<PathBuf> = text
            .lines()
            .filter_map(|line| line.rsplit_once(" (0x")?.0.split_whitespace().next_back())
            .filter(|path| path.starts_with('/'))
            .map(|path| Path::new(path).canonicalize().expect("there"))
            .collect();
        assert_eq!(ours, theirs, "{}", program.display());
        compared += 1;
    }
    assert!(compared >= 12, "only {compared} programs are here");
}
