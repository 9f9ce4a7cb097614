//! Walks over hand-made stacks.

use super::{CODE, Cfi, TestElf, UNDEFINED_RETURN};
use crate::unwind::layout::{PAGE_BYTES, UCONTEXT_RBP, UCONTEXT_RIP, UCONTEXT_RSP};
use crate::unwind::{
    CompileOptions, FoundTable, PcKind, Reach, Registers, Rows, StackCopy, Table, Walk, WalkEnd, compile,
    walk,
};

const BIAS: u64 = 0x5555_0000_0000;
const JIT: u64 = 0x7777_0000_0000;
const STACK: u64 = 0x7ffc_0000_0000;

/// Functions at 0x100, 0x200, …, one for each kind of rule.
fn table(rows: Rows) -> Table {
    let mut cfi = Cfi::eh_frame("zR");
    let mut function = |at: u64, instructions: &[u8]| cfi.fde(CODE + at, 0x40, instructions);
    function(0x100, &[0x0e, 24]); // rsp + 24
    function(0x200, &[0x0c, 6, 16, 0x86, 2]); // rbp + 16, rbp saved at CFA − 16
    function(0x300, &UNDEFINED_RETURN);
    function(0x400, &[0x07, 6]); // rbp undefined
    function(0x500, &[0x0f, 3, 0x76, 0x78, 0x06, 0x10, 6, 2, 0x76, 0]); // realigned
    function(
        0x600,
        &[
            0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22,
        ],
    ); // linkage table
    function(0x700, &[0x0c, 10, 8]); // r10: unsupported
    function(0x800, &[0x0f, 5, 0x77, 8, 0x06, 0x23, 8]); // *(rsp + 8) + 8
    let mut code = vec![0x90; 0x1000];
    code[0x900..0x909].copy_from_slice(&[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05]);
    compile(
        &TestElf::new(&code, cfi).bytes(),
        CompileOptions {
            rows,
            ..CompileOptions::default()
        },
    )
    .unwrap()
}

/// A stack of words with some of them set: (offset in words, value).
fn stack(words: usize, set: &[(usize, u64)]) -> Vec<u8> {
    let mut stack = vec![0; words * 8];
    for (at, value) in set {
        stack[at * 8..at * 8 + 8].copy_from_slice(&value.to_le_bytes());
    }
    stack
}

fn run_on(table: &Table, pc: u64, bp: Option<u64>, words: &[u8], max: usize) -> (Walk, Vec<u64>) {
    let find = |pc: u64, _| match pc {
        BIAS.. if pc < BIAS + u64::from(2 * PAGE_BYTES) => FoundTable::In {
            table,
            relative: pc - BIAS,
        },
        JIT.. if pc < JIT + 0x1000 => FoundTable::NoTable,
        _ => FoundTable::Unmapped,
    };
    let registers = Registers {
        pc,
        pc_kind: PcKind::ReturnAddress,
        sp: STACK,
        bp,
    };
    let mut frames = Vec::new();
    let walk = walk(
        registers,
        &StackCopy {
            base: STACK,
            bytes: words,
        },
        find,
        &mut frames,
        Reach {
            max_frames: max,
            frame_pointers: true,
        },
    );
    (walk, frames)
}

fn run(pc: u64, bp: Option<u64>, set: &[(usize, u64)]) -> (WalkEnd, Vec<u64>) {
    let (walk, frames) = run_on(&table(Rows::All), pc, bp, &stack(64, set), 16);
    (walk.end, frames)
}

const fn at(offset: u64) -> u64 {
    BIAS + offset + 1
}

#[test]
fn fixed_frames_and_the_outermost() {
    let frames = vec![at(0x108), at(0x308)];
    assert_eq!(
        run(at(0x110), None, &[(2, at(0x108)), (5, at(0x308))]),
        (WalkEnd::Complete, frames)
    );
}

#[test]
fn frame_pointers_are_followed_and_restored() {
    // rbp → word 4: the caller's rbp → word 10.
    let set = [(4, STACK + 80), (5, at(0x210)), (10, 1), (11, at(0x300))];
    let frames = vec![at(0x210), at(0x300)];
    assert_eq!(
        run(at(0x200), Some(STACK + 32), &set),
        (WalkEnd::Complete, frames)
    );
    assert_eq!(run(at(0x200), None, &set), (WalkEnd::RbpLost, vec![]));
    // The frame itself again; and one on a stack that was not copied.
    assert_eq!(
        run(at(0x200), Some(STACK - 16), &set),
        (WalkEnd::NoProgress, vec![])
    );
    assert_eq!(
        run(at(0x200), Some(STACK - 32), &set),
        (WalkEnd::ReadFault, vec![])
    );
}

#[test]
fn a_lost_frame_pointer_matters_when_it_is_needed() {
    let set = [(0, at(0x108)), (3, at(0x208))];
    assert_eq!(
        run(at(0x400), Some(STACK), &set),
        (WalkEnd::RbpLost, vec![at(0x108), at(0x208)])
    );
}

#[test]
fn realigned_stacks() {
    // rbp → word 4; the frame address is at rbp − 8, the caller's rbp at rbp.
    let set = [
        (3, STACK + 80),
        (4, STACK + 160),
        (9, at(0x200)),
        (20, 0),
        (21, at(0x300)),
    ];
    assert_eq!(
        run(at(0x500), Some(STACK + 32), &set),
        (WalkEnd::Complete, vec![at(0x200), at(0x300)])
    );
    assert_eq!(
        run(at(0x800), None, &[(1, STACK + 16), (2, at(0x300))]),
        (WalkEnd::Complete, vec![at(0x300)])
    );
}

#[test]
fn linkage_tables_push_late() {
    let set = [(0, at(0x300)), (1, at(0x304))];
    // Looked up one byte before: 0x60a is before the push, 0x60b after it.
    assert_eq!(run(at(0x60a), None, &set).1, [at(0x300)]);
    assert_eq!(run(at(0x60b), None, &set).1, [at(0x304)]);
}

#[test]
fn signals_restore_all_registers() {
    let word = |offset: u64| usize::try_from(offset / 8).unwrap();
    let set = [
        (word(UCONTEXT_RBP), STACK + 320),
        (word(UCONTEXT_RSP), STACK + 240),
        // Interrupted at a function's first byte: looked up there, not before.
        (word(UCONTEXT_RIP), BIAS + 0x200),
        (41, at(0x300)),
    ];
    let expected = vec![BIAS + 0x200, at(0x300)];
    // A handler returns to the trampoline's first byte.
    assert_eq!(
        run(BIAS + 0x900, None, &set),
        (WalkEnd::Complete, expected.clone())
    );
    let (exact, _) = run_on(&table(Rows::All), BIAS + 0x900, None, &stack(64, &set), 16);
    assert!(!exact.is_inexact);
    let (pruned, _) = run_on(&table(Rows::CallSites), BIAS + 0x900, None, &stack(64, &set), 16);
    assert!(pruned.is_inexact);
}

#[test]
fn code_without_tables_is_left_by_frame_pointer() {
    let set = [(4, 0), (5, at(0x300))];
    let (walk, frames) = run_on(&table(Rows::All), JIT + 8, Some(STACK + 32), &stack(64, &set), 16);
    assert_eq!(
        (walk.end, walk.frame_pointer_steps, frames),
        (WalkEnd::Complete, 1, vec![at(0x300)])
    );
    assert_eq!(
        run(at(0xa00), Some(STACK + 32), &set).0,
        WalkEnd::Complete,
        "in a gap too"
    );
    for bp in [
        None,
        Some(STACK + 33),
        Some(STACK - 8),
        Some(STACK + (1 << 20) + 8),
    ] {
        assert_eq!(run(JIT + 8, bp, &set), (WalkEnd::NoTable, vec![]));
        assert_eq!(run(at(0xa00), bp, &set), (WalkEnd::NoRow, vec![]));
        assert_eq!(
            run(at(u64::from(PAGE_BYTES)), bp, &set),
            (WalkEnd::NoTable, vec![]),
            "past the last page"
        );
    }
}

#[test]
fn walks_end_for_a_reason() {
    assert_eq!(run(at(0x700), None, &[]), (WalkEnd::Unsupported, vec![]));
    assert_eq!(run(0x1234, None, &[]), (WalkEnd::Unmapped, vec![]));
    assert_eq!(run(0, None, &[]), (WalkEnd::Unmapped, vec![]));
    assert_eq!(run(at(0x110), None, &[]), (WalkEnd::ZeroReturn, vec![]));
    let table = table(Rows::All);
    let recursion = stack(
        64,
        &std::array::from_fn::<_, 21, _>(|frame| (frame * 3 + 2, at(0x108))),
    );
    let (walk, frames) = run_on(&table, at(0x108), None, &recursion, 7);
    assert_eq!(
        (walk.end, frames.len(), walk.last.sp),
        (WalkEnd::Truncated, 7, STACK + 7 * 24)
    );
    let (walk, frames) = run_on(&table, at(0x108), None, &recursion[..100], 100);
    assert_eq!((walk.end, frames.len()), (WalkEnd::ReadFault, 4));
}
