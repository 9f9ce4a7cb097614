//! Names of functions that a compiler made, from sound and from damaged files.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::elf::{SymbolKind, SymbolTable};

/// Functions without linkage names, each called with its number.
const SOURCE: &str = r#"
void *operator new(unsigned long size);
volatile int sum;
namespace {
struct Cache {
    __attribute__((noinline)) void insert(const char *, long more) const { sum += more; }
    void inlined(unsigned short, ...) { sum += 2; }
};
template <class T> __attribute__((noinline)) void put(T value) { sum += value; }
}
namespace outer {
__attribute__((noinline)) int run(int times) {
    auto first = [](int more) __attribute__((noinline)) { sum += more; };
    auto second = [](int &&more, Cache **) mutable __attribute__((noinline)) { sum += more; };
    struct Local {
        __attribute__((noinline)) void push(bool) { sum += 1; }
    };
    first(times);
    second(1, nullptr);
    Local().push(true);
    Cache().inlined(1);
    return times;
}
}
static __attribute__((noinline)) void helper(void (*)(int), int) { sum += 3; }
extern "C" __attribute__((noinline)) void plain(int) { sum += 4; }
int main() {
    Cache().insert("", 1);
    put<long>(1);
    outer::run(2);
    helper(nullptr, 1);
    plain(1);
}
"#;

/// Compiles the source; nothing where there is no compiler, which is said.
fn compiled(flags: &[&str]) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    let compiler = Command::new("c++")
        .args(["-g", "-w", "-x", "c++"])
        .args(flags)
        .arg("-o")
        .arg(&program)
        .arg("-")
        .stdin(Stdio::piped())
        .spawn();
    let mut compiler = match compiler {
        Ok(compiler) => compiler,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "a test that does not run says so")]
            {
                eprintln!("SKIPPED: c++: {error}");
            }
            return None;
        }
    };
    compiler
        .stdin
        .take()
        .unwrap()
        .write_all(SOURCE.as_bytes())
        .unwrap();
    assert!(compiler.wait().unwrap().success());
    Some(std::fs::read(program).unwrap())
}

/// The functions of the source, by their addresses; their names are mangled.
fn functions(bytes: &[u8]) -> Vec<(u64, String)> {
    let elf = Elf::parse(bytes).unwrap();
    let symbols = elf.symbols(SymbolTable::Static).unwrap();
    let functions = symbols.filter(|symbol| symbol.kind == SymbolKind::Function && symbol.size > 0);
    functions
        .map(|symbol| (symbol.address, String::from_utf8(symbol.name.to_vec()).unwrap()))
        .collect()
}

/// The qualified name of the function whose mangled name has `part`.
fn qualified(bytes: &[u8], part: &str, raw: &str) -> Option<String> {
    let functions = functions(bytes);
    let (address, _) = functions.iter().find(|(_, name)| name.contains(part)).unwrap();
    let frames = [RawFrames {
        address: *address,
        names: vec![raw],
    }];
    let elf = Elf::parse(bytes).unwrap();
    let sections = DebugSections::of(&elf, 1 << 20).unwrap();
    let mut names = DwarfNames::of(&sections)?.qualify(&frames);
    assert_eq!((names.len(), names[0].len()), (1, 1));
    names.remove(0).remove(0)
}

#[test]
fn functions_are_qualified_as_a_demangler_would() {
    for flags in [
        &["-O0"][..],
        &["-O1", "-gdwarf-4"],
        &["-O1", "-gdwarf-5"],
        &[
            "-O2",
            "-fno-ipa-cp",
            "-fno-ipa-sra",
            "-fno-ipa-ra",
            "-fno-ipa-icf",
        ],
        &["-O1", "-gz"],
        &["-O1", "-fdebug-types-section"],
    ] {
        let Some(bytes) = compiled(flags) else { return };
        let name = |part, raw| qualified(&bytes, part, raw);
        for (part, raw, expected) in [
            (
                "insert",
                "insert",
                "(anonymous namespace)::Cache::insert(char const*, long) const",
            ),
            ("put", "put<long int>", "(anonymous namespace)::put<long>"),
            (
                "UliE",
                "operator()",
                "outer::run(int)::{lambda(int)#1}::operator()(int) const",
            ),
            (
                "UlOiPPN",
                "operator()",
                "outer::run(int)::{lambda(int&&, (anonymous namespace)::Cache**)#2}::operator()(int&&, (anonymous namespace)::Cache**)",
            ),
            ("push", "push", "outer::run(int)::Local::push(bool)"),
            // A pointer to a function.
            ("helper", "helper", "helper"),
            ("plain", "plain", "plain"),
            ("main", "main", "main"),
        ] {
            assert_eq!(name(part, raw).as_deref(), Some(expected), "{flags:?}");
        }
        // It has a linkage name.
        assert_eq!(name("3runEi", "_ZN5outer3runEi"), None);
        // Other frames than those that the debug information has.
        assert_eq!(name("insert", "another"), None);
    }
}

#[test]
fn lines_alone_tell_no_names() {
    let Some(bytes) = compiled(&["-O0", "-g1"]) else {
        return;
    };
    assert_eq!(qualified(&bytes, "insert", "insert"), None);
}

#[test]
fn inlined_functions_are_qualified() {
    let Some(bytes) = compiled(&["-O2"]) else { return };
    let functions = functions(&bytes);
    let (begin, _) = functions
        .iter()
        .find(|(_, name)| name == "_ZN5outer3runEi")
        .unwrap();
    let frames: Vec<RawFrames<'_>> = (*begin..begin + 200)
        .map(|address| RawFrames {
            address,
            names: vec!["_ZN5outer3runEi", "inlined"],
        })
        .collect();
    let elf = Elf::parse(&*bytes).unwrap();
    let sections = DebugSections::of(&elf, 0).unwrap();
    let names = DwarfNames::of(&sections).unwrap().qualify(&frames);
    let inlined = names.iter().find(|names| names[1].is_some()).expect("inlined");
    let expected = "(anonymous namespace)::Cache::inlined(unsigned short, ...)";
    assert_eq!(inlined, &[None, Some(expected.to_owned())]);
}

#[test]
fn packed_sections_have_a_limit() {
    let Some(bytes) = compiled(&["-gz"]) else { return };
    let elf = Elf::parse(&*bytes).unwrap();
    assert!(DebugSections::of(&elf, 1 << 20).is_some());
    assert!(DebugSections::of(&elf, 100).is_none());
}

/// xorshift64* (Marsaglia, Vigna): the same files every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound as u64).unwrap()
    }
}

/// For all files, in a debug build on a busy machine.
const LIMIT: Duration = Duration::from_mins(2);

#[test]
fn damaged_debug_information_does_no_harm() {
    let Some(sound) = compiled(&["-O1"]) else { return };
    let addresses = functions(&sound);
    let names = ["insert", "operator()", "push", "helper", "main"];
    let frames: Vec<RawFrames<'_>> = addresses
        .iter()
        .flat_map(|(address, _)| names.map(|name| (*address, name)))
        .map(|(address, name)| RawFrames {
            address,
            names: vec![name],
        })
        .collect();
    let elf = Elf::parse(&*sound).unwrap();
    let headers = sections::headers(&elf).unwrap();
    let mut random = Random(0x0123_4567_89ab_cdef);
    let begun = Instant::now();
    for name in [
        ".debug_info",
        ".debug_abbrev",
        ".debug_str",
        ".debug_line",
        ".debug_aranges",
        ".debug_rnglists",
    ] {
        let header = headers.iter().find(|header| header.name == name.as_bytes());
        let Some(header) = header else { continue };
        let (offset, size) = (
            usize::try_from(header.offset).unwrap(),
            usize::try_from(header.size).unwrap(),
        );
        for round in 0..400 {
            let mut bytes = sound.clone();
            for _ in 0..=random.below(3) {
                let at = offset + random.below(size - 4);
                // Bytes, and references: small ones close circles.
                match round % 3 {
                    0 => bytes[at] ^= u8::try_from(1 + random.below(255)).unwrap(),
                    1 => bytes[at] = [0, 0xff, 0x7f, 0x80][random.below(4)],
                    _ => {
                        let other = u32::try_from(random.below(size)).unwrap();
                        bytes[at..at + 4].copy_from_slice(&other.to_le_bytes());
                    }
                }
            }
            let elf = Elf::parse(&*bytes).unwrap();
            let Some(sections) = DebugSections::of(&elf, 1 << 20) else {
                continue;
            };
            let Some(mut debug) = DwarfNames::of(&sections) else {
                continue;
            };
            let found = debug.qualify(&frames);
            assert_eq!(found.len(), frames.len());
            assert!(found.iter().flatten().flatten().all(|name| name.len() <= 4096));
        }
    }
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
}
