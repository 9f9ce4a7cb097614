//! Tables against gimli's own answers, on the files of the machine.
//!
//! gimli finds the entry by the search table of `.eh_frame_hdr` and runs it anew for each address;
//! the compiler goes over the section, and keeps what it merged. What an answer means is computed
//! here from gimli's row, and is not the compiler's classification. Calls are found by decoding
//! instructions, not by looking for bytes.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, Register};
use object::{Object, ObjectSegment};

use super::oracle::{Answer, Oracle, agrees};
use crate::unwind::layout::{Rule, row_offset, row_rule};
use crate::unwind::{CompileOptions, Rows, Table, compile};

/// A file's bytes, or a loud word that it is not there.
#[expect(clippy::print_stderr, reason = "a test that cannot run says so")]
pub(super) fn read(path: &str) -> Option<Vec<u8>> {
    let bytes = std::fs::read(path);
    if let Err(error) = &bytes {
        eprintln!("SKIPPED: {path}: {error}");
    }
    bytes.ok()
}

/// The largest library at hand: the compiler's own.
fn rustc_driver() -> Option<String> {
    let output = std::process::Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .ok()?;
    let library = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()).join("lib");
    let mut files = std::fs::read_dir(library).ok()?.filter_map(Result::ok);
    let driver = files.find(|file| file.file_name().to_string_lossy().starts_with("librustc_driver"))?;
    driver.path().to_str().map(String::from)
}

fn tables(data: &[u8]) -> (Table, Table) {
    let threads = NonZeroUsize::new(2).unwrap();
    let make = |rows| compile(data, CompileOptions { rows, threads }).unwrap();
    (make(Rows::All), make(Rows::CallSites))
}

/// Compares a file: every row boundary of every `step`th function with the full table, and every
/// call in it with the pruned one. Returns how many addresses were compared.
fn compare(path: &str, step: usize) -> Option<(usize, usize)> {
    let data = read(path)?;
    let file = object::File::parse(&*data).unwrap();
    let mut oracle = Oracle::new(&file)?;
    let (all, pruned) = tables(&data);
    let functions = oracle.functions();
    assert!(
        functions.len() as u64 >= u64::from(all.statistics().functions),
        "{path}"
    );
    let (mut boundaries, mut calls) = (0, 0);
    for (start, len, is_signal) in functions
        .iter()
        .copied()
        .step_by(step)
        .filter(|(_, len, _)| *len > 0)
    {
        let end = start + len;
        if all.statistics().outside > 0 && !is_in_code(&file, start) {
            continue;
        }
        let is_context_start = begins_a_stack(&file, start, end);
        // The byte before a row is the last of another, so that both sides of each boundary are
        // compared.
        let starts = oracle.row_starts(start);
        let sides = starts
            .iter()
            .flat_map(|at| [at.saturating_sub(1).max(start), *at])
            .chain([end - 1]);
        for address in sides.filter(|address| *address < end) {
            let rule = all.rule_at(address - all.base()).unwrap();
            let answer = oracle.at(address);
            let is_right = if is_signal {
                rule == Rule::SIGNAL
            } else if is_context_start {
                rule == Rule::END
            } else {
                agrees(&answer, rule)
            };
            // The byte before a signal trampoline belongs to it; before `makecontext`'s function is
            // padding.
            let is_stolen = rule == Rule::SIGNAL && functions.contains(&(address + 1, 9, true));
            assert!(
                is_right || is_stolen,
                "{path}: {address:#x}: {answer:?}, table: {rule:?}"
            );
            boundaries += 1;
        }
        if is_signal || is_context_start {
            continue;
        }
        let mut last = (0, Answer::Nothing);
        for address in call_ends(&file, start, end) {
            // One evaluation for a row, not for an address: gimli runs a function from its start.
            let row = starts.partition_point(|start| *start <= address);
            if last.0 != row {
                last = (row, oracle.at(address));
            }
            let rule = pruned.rule_at(address - pruned.base()).unwrap();
            assert!(
                agrees(&last.1, rule),
                "{path}: call at {address:#x}: {:?}, table: {rule:?}",
                last.1
            );
            calls += 1;
        }
    }
    Some((boundaries, calls))
}

fn segment_bytes<'a>(file: &object::File<'a>, start: u64, end: u64) -> Option<&'a [u8]> {
    file.segments()
        .find_map(|segment| segment.data_range(start, end - start).ok().flatten())
}

fn is_in_code(file: &object::File<'_>, address: u64) -> bool {
    address >= 64 && segment_bytes(file, address, address + 1).is_some()
}

/// Returns true if a function begins by taking its stack pointer from a register that a caller
/// would want kept: `makecontext`'s first function.
fn begins_a_stack(file: &object::File<'_>, start: u64, end: u64) -> bool {
    let bytes = segment_bytes(file, start, end).unwrap_or_default();
    let first = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE)
        .into_iter()
        .find(|instruction| instruction.mnemonic() != Mnemonic::Endbr64);
    first.is_some_and(|first| {
        first.mnemonic() == Mnemonic::Mov
            && first.op0_register() == Register::RSP
            && first.op1_register() == Register::RBX
    })
}

/// The last bytes of all calls and system calls between two addresses: what return addresses are
/// looked up as.
fn call_ends(file: &object::File<'_>, start: u64, end: u64) -> Vec<u64> {
    let Some(bytes) = segment_bytes(file, start, end) else {
        return Vec::new();
    };
    let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut ends = Vec::new();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let is_call = matches!(
            instruction.flow_control(),
            FlowControl::Call | FlowControl::IndirectCall
        );
        if is_call && instruction.next_ip() <= end {
            ends.push(instruction.next_ip() - 1);
        }
    }
    ends
}

#[expect(clippy::print_stderr, reason = "how much was compared is part of the result")]
fn report(path: &str, compared: Option<(usize, usize)>) {
    let Some((boundaries, calls)) = compared else {
        return;
    };
    eprintln!("{path}: {boundaries} addresses at row boundaries, {calls} calls");
    assert!(boundaries > 0 && calls > 0);
}

#[test]
fn libc_entirely() {
    let path = "/lib/x86_64-linux-gnu/libc.so.6";
    report(path, compare(path, 1));
}

#[test]
fn the_loader_and_interpreters() {
    let files = [
        "/lib64/ld-linux-x86-64.so.2",
        "/usr/bin/python3",
        "/usr/bin/perl",
        "/usr/bin/git",
        "/usr/bin/node",
    ];
    for path in files {
        // Of large files every 7th function.
        let step = if std::fs::metadata(path).is_ok_and(|file| file.len() > 2 << 20) {
            7
        } else {
            1
        };
        report(path, compare(path, step));
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that cannot run says so")]
fn the_largest_library() {
    match rustc_driver() {
        Some(path) => report(&path, compare(&path, 101)),
        None => eprintln!("SKIPPED: librustc_driver was not found"),
    }
}

#[test]
fn threads_change_nothing() {
    let Some(data) = rustc_driver().and_then(|path| read(&path)) else {
        return;
    };
    for rows in [Rows::All, Rows::CallSites] {
        let with = |threads| {
            let threads = NonZeroUsize::new(threads).unwrap();
            compile(&data, CompileOptions { rows, threads }).unwrap()
        };
        let (one, three) = (with(1), with(3));
        assert_eq!(one.statistics(), three.statistics());
        assert_eq!(one.row_count(), three.row_count());
        for page in 0..one.page_count() as usize {
            let rules = |table: &Table| {
                let rows = table.page(page).unwrap().iter();
                rows.map(|row| (row_offset(*row), table.rules()[row_rule(*row) as usize]))
                    .collect::<Vec<_>>()
            };
            assert_eq!(rules(&one), rules(&three), "page {page}");
        }
    }
}
