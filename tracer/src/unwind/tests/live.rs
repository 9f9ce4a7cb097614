//! Walks of real stacks, frame by frame against gdb's.
//!
//! A process that waits in a system call is looked at: gdb gives its registers and its own
//! backtrace, `/proc` its mappings and stack. gdb is kept from debug information, with which it
//! would show inlined frames and tail calls.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::unwind::{
    CompileOptions, FoundTable, PcKind, Reach, Registers, Rows, StackCopy, Table, WalkEnd, compile, walk,
};

#[expect(clippy::print_stderr, reason = "a test that cannot run says so")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// A process that is ended when the test ends.
struct Target(Child);

impl Drop for Target {
    fn drop(&mut self) {
        if self.0.kill().is_ok() {
            self.0.wait().unwrap();
        }
    }
}

impl Target {
    /// Starts a program, and waits until it waits for `system_call`.
    fn start(program: &str, arguments: &[&str], system_call: u32) -> Option<Self> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let target = match command.spawn() {
            Ok(child) => Self(child),
            Err(error) => {
                say(&format!("SKIPPED: {program}: {error}"));
                return None;
            }
        };
        let until = Instant::now() + Duration::from_secs(20);
        let prefix = format!("{system_call} ");
        while Instant::now() < until {
            match std::fs::read_to_string(format!("/proc/{}/syscall", target.0.id())) {
                Ok(call) if call.starts_with(&prefix) => return Some(target),
                Ok(_) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => {
                    say(&format!("SKIPPED: {program}: /proc/PID/syscall: {error}"));
                    return None;
                }
            }
        }
        panic!("{program} never came to system call {system_call}");
    }
}

/// The registers and return addresses that gdb finds; `None` for a signal trampoline, of which it
/// shows no address.
fn gdb(pid: u32) -> Option<(Registers, Vec<Option<u64>>)> {
    let mut command = Command::new("gdb");
    command.args([
        "-nx",
        "-batch",
        "-iex",
        "set debuginfod enabled off",
        "-ex",
        "set backtrace past-main on",
    ]);
    command.args([
        "-iex",
        "set debug-file-directory /nonexistent",
        "-p",
        &pid.to_string(),
    ]);
    command.args([
        "-ex",
        "printf \"REGISTERS %lx %lx %lx\\n\", $rip, $rsp, $rbp",
        "-ex",
        "backtrace",
    ]);
    let output = match command.output() {
        Ok(output) => String::from_utf8(output.stdout).unwrap(),
        Err(error) => {
            say(&format!("SKIPPED: gdb: {error}"));
            return None;
        }
    };
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let Some(line) = output.lines().find_map(|line| line.strip_prefix("REGISTERS ")) else {
        say(&format!("SKIPPED: gdb could not attach: {output}"));
        return None;
    };
    let numbers: Vec<u64> = line.split(' ').filter_map(hex).collect();
    let frames = output.lines().filter(|line| line.starts_with('#')).skip(1);
    let frames = frames
        .map(|line| hex(line.split_once(" 0x")?.1.split_once(' ')?.0))
        .collect();
    // Behind a system call's instruction, as if it were a call.
    let pc_kind = PcKind::ReturnAddress;
    Some((
        Registers {
            pc: numbers[0],
            pc_kind,
            sp: numbers[1],
            bp: Some(numbers[2]),
        },
        frames,
    ))
}

struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    executable: bool,
    path: String,
}

fn mappings(pid: u32) -> Vec<Mapping> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let hex = |text| u64::from_str_radix(text, 16).unwrap();
    let lines = maps.lines().map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (start, end) = fields[0].split_once('-').unwrap();
        Mapping {
            start: hex(start),
            end: hex(end),
            offset: hex(fields[2]),
            executable: fields[1].contains('x'),
            path: fields.get(5).map(ToString::to_string).unwrap_or_default(),
        }
    });
    lines.collect()
}

/// Walks the process with tables of both kinds, and compares with gdb. Returns how many frames
/// there were.
fn compare(name: &str, target: &Target, rows: &[Rows]) -> Option<usize> {
    let pid = target.0.id();
    let (registers, expected) = gdb(pid)?;
    let maps = mappings(pid);
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let on_stack = maps
        .iter()
        .find(|map| map.start <= registers.sp && registers.sp < map.end)
        .unwrap();
    let mut bytes = vec![0; usize::try_from(on_stack.end - registers.sp).unwrap()];
    memory.read_exact_at(&mut bytes, registers.sp).unwrap();
    for rows in rows {
        let options = CompileOptions {
            rows: *rows,
            ..CompileOptions::default()
        };
        let mut tables: HashMap<&str, Option<Table>> = HashMap::new();
        for map in maps.iter().filter(|map| map.executable) {
            let image = || match map.path.as_str() {
                "[vdso]" => {
                    let mut image = vec![0; usize::try_from(map.end - map.start).unwrap()];
                    memory.read_exact_at(&mut image, map.start).unwrap();
                    Some(image)
                }
                path if path.starts_with('/') => std::fs::read(path).ok(),
                _ => None,
            };
            let make = || compile(&image()?, options).ok();
            tables.entry(&map.path).or_insert_with(make);
        }
        let find = |pc, _| {
            let map = maps
                .iter()
                .filter(|map| map.executable)
                .find(|map| map.start <= pc && pc < map.end);
            let Some(map) = map else {
                return FoundTable::Unmapped;
            };
            let table = tables.get(map.path.as_str()).and_then(Option::as_ref);
            match table.and_then(|table| Some((table, table.bias(map.start, map.offset)?))) {
                Some((table, bias)) => FoundTable::In {
                    table,
                    relative: pc.wrapping_sub(bias),
                },
                None => FoundTable::NoTable,
            }
        };
        let mut frames = Vec::new();
        let walk = walk(
            registers,
            &StackCopy {
                base: registers.sp,
                bytes: &bytes,
            },
            find,
            &mut frames,
            Reach {
                max_frames: 4096,
                frame_pointers: true,
            },
        );
        let is_same = frames.len() == expected.len()
            && frames
                .iter()
                .zip(&expected)
                .all(|(frame, expected)| expected.is_none_or(|pc| *frame == pc));
        assert!(is_same, "{name}: {walk:x?}\n{frames:x?}\ngdb: {expected:x?}");
        assert_eq!(walk.end, WalkEnd::Complete, "{name}");
        assert_eq!(walk.frame_pointer_steps, 0, "{name}");
    }
    say(&format!("{name}: {} frames as gdb has them", expected.len()));
    Some(expected.len())
}

const BOTH: [Rows; 2] = [Rows::All, Rows::CallSites];
const CLOCK_NANOSLEEP: u32 = 230;
const READ: u32 = 0;
const PAUSE: u32 = 34;

#[test]
fn interpreters_and_tools() {
    let nested = "import time\n\
        def f(n):\n    return sorted([n], key=lambda n: f(n - 1) if n else time.sleep(100))\n\
        f(20)";
    if let Some(target) = Target::start("/usr/bin/python3", &["-c", nested], CLOCK_NANOSLEEP)
        && let Some(frames) = compare("python3", &target, &BOTH)
    {
        assert!(frames > 40);
    }
    let nested =
        "sub f { my $n = shift; if ($n) { my @x = sort { f($n - 1); 0 } 2, 1 } else { sleep 100 } } f(5)";
    if let Some(target) = Target::start("/usr/bin/perl", &["-e", nested], CLOCK_NANOSLEEP) {
        compare("perl", &target, &BOTH);
    }
    if let Some(target) = Target::start("/usr/bin/git", &["hash-object", "--stdin"], READ) {
        compare("git", &target, &BOTH);
    }
}

const FRAMES: &str = include_str!("frames.c");

#[test]
fn compiled_frames_of_all_kinds() {
    let directory = std::env::temp_dir().join(format!("unwind-frames-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    for flags in [
        &["-O2", "-fomit-frame-pointer", "-mavx"][..],
        &["-O0", "-mavx"],
        &["-O2", "-static", "-mavx"],
    ] {
        let program = directory.join("frames");
        let mut gcc = Command::new("gcc");
        gcc.args(flags)
            .args(["-s", "-x", "c", "-o"])
            .arg(&program)
            .arg("-")
            .stdin(Stdio::piped());
        let mut gcc = match gcc.spawn() {
            Ok(child) => child,
            Err(error) => return say(&format!("SKIPPED: gcc: {error}")),
        };
        gcc.stdin.take().unwrap().write_all(FRAMES.as_bytes()).unwrap();
        assert!(gcc.wait().unwrap().success());
        let program = program.to_str().unwrap();
        // A signal that a system call raised: interrupted inside `raise`, behind the system call.
        if let Some(target) = Target::start(program, &[], PAUSE) {
            compare(&format!("raised signal {flags:?}"), &target, &BOTH);
        }
        // One that an instruction raised: only the full table is right there.
        if let Some(target) = Target::start(program, &["fault"], PAUSE) {
            compare(&format!("fault signal {flags:?}"), &target, &[Rows::All]);
        }
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn the_vdso_has_a_table() {
    let maps = mappings(std::process::id());
    let Some(map) = maps.iter().find(|map| map.path == "[vdso]") else {
        return say("SKIPPED: no vdso");
    };
    let mut image = vec![0; usize::try_from(map.end - map.start).unwrap()];
    File::open("/proc/self/mem")
        .unwrap()
        .read_exact_at(&mut image, map.start)
        .unwrap();
    let table = compile(&image, CompileOptions::default()).unwrap();
    assert!(table.statistics().functions > 3, "{:?}", table.statistics());
    assert_eq!(table.bias(map.start, 0), Some(map.start + table.base()));
}
