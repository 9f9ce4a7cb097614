//! Hand-made call frame information, compiled.

use super::{CFA_IS_RBP, CODE, Cfi, INITIAL, SAVE_RBP, TestElf, UNDEFINED_RETURN, advance, cfa_offset};
use crate::unwind::layout::{PAGE_BYTES, Rule, cfa, rbp};
use crate::unwind::{CompileOptions, Rows, Table, Unsupported, compile};

pub(super) const ALL: CompileOptions = CompileOptions {
    rows: Rows::All,
    threads: std::num::NonZeroUsize::MIN,
};

pub(super) fn sp(offset: i32) -> Rule {
    Rule {
        cfa_offset: offset,
        ..Rule::of_kind(cfa::SP)
    }
}

const FRAME: Rule = Rule {
    cfa_offset: 16,
    rbp_kind: rbp::AT_CFA,
    rbp_offset: -16,
    ..Rule::of_kind(cfa::BP)
};

/// The rules at these addresses, relative to the code.
pub(super) fn rules<const N: usize>(table: &Table, at: [u64; N]) -> [Rule; N] {
    at.map(|at| table.rule_at(at).unwrap())
}

fn prologue() -> Vec<u8> {
    [
        &[advance(1)][..],
        &cfa_offset(16),
        &SAVE_RBP,
        &[advance(3)],
        &CFA_IS_RBP,
    ]
    .concat()
}

#[test]
fn a_function_has_a_row_for_each_change() {
    let mut cfi = Cfi::eh_frame("zR");
    cfi.fde(CODE + 0x10, 0x20, &prologue());
    let table = compile(&TestElf::new(&[0x90; 0x100], cfi).bytes(), ALL).unwrap();
    let pushed = Rule {
        rbp_kind: rbp::AT_CFA,
        rbp_offset: -16,
        ..sp(16)
    };
    assert_eq!(
        rules(&table, [0xf, 0x10, 0x11, 0x13, 0x14, 0x2f, 0x30]),
        [Rule::NO_INFO, sp(8), pushed, pushed, FRAME, FRAME, Rule::NO_INFO]
    );
    assert_eq!(table.rule_at(u64::from(PAGE_BYTES)), None);
    assert_eq!(
        (table.base(), table.page_count(), table.row_count()),
        (CODE, 1, 5)
    );
    let statistics = table.statistics();
    assert_eq!(
        (statistics.functions, statistics.rows_raw, statistics.rows_merged),
        (1, 3, 5)
    );
    assert_eq!((statistics.code_bytes, statistics.malformed), (0x20, 0));
}

#[test]
fn padding_is_bridged_and_gaps_are_marked() {
    let mut cfi = Cfi::eh_frame("zR");
    cfi.fde(CODE, 0x20, &[]);
    cfi.fde(CODE + 0x2f, 0x11, &[]);
    cfi.fde(CODE + 0x50, 0x10, &UNDEFINED_RETURN);
    let table = compile(&TestElf::new(&[0x90; 0x100], cfi).bytes(), ALL).unwrap();
    assert_eq!(
        rules(&table, [0x20, 0x2f, 0x40, 0x50, 0x60]),
        [sp(8), sp(8), Rule::NO_INFO, Rule::END, Rule::NO_INFO]
    );
    assert_eq!(table.statistics().rows_merged, 4, "equal neighbours are one");
}

#[test]
fn discarded_functions_leave_nothing() {
    let mut cfi = Cfi::eh_frame("zR");
    cfi.fde(0, 0x40, &UNDEFINED_RETURN);
    cfi.fde(CODE + 0x40, 0, &UNDEFINED_RETURN);
    cfi.fde(CODE + 0x40, 0x10, &[]);
    cfi.fde(CODE + 0x4000, 0x10, &UNDEFINED_RETURN);
    let table = compile(&TestElf::new(&[0x90; 0x100], cfi).bytes(), ALL).unwrap();
    assert_eq!(
        rules(&table, [0, 0x40, 0x50]),
        [Rule::NO_INFO, sp(8), Rule::NO_INFO]
    );
    assert_eq!((table.statistics().functions, table.statistics().outside), (1, 3));
}

#[test]
fn of_overlapping_functions_the_later_start_wins() {
    let mut cfi = Cfi::eh_frame("zR");
    cfi.fde(CODE + 0x20, 0x10, &cfa_offset(32));
    cfi.fde(CODE, 0x80, &cfa_offset(16));
    cfi.fde(CODE, 0x80, &cfa_offset(24));
    let table = compile(&TestElf::new(&[0x90; 0x100], cfi).bytes(), ALL).unwrap();
    assert_eq!(
        rules(&table, [0, 0x1f, 0x20, 0x2f, 0x30]),
        [sp(16), sp(16), sp(32), sp(32), Rule::NO_INFO]
    );
    assert_eq!(table.statistics().overlapping, 2);
}

#[test]
fn signal_trampolines_begin_a_byte_early() {
    const RT_SIGRETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];
    // DW_CFA_expression rip: breg7 168, as glibc has it, marked by `S`; code that does not tell.
    let marked = [0x10, 16, 3, 0x77, 0xa8, 0x01];
    let mut cfi = Cfi::eh_frame("zRS");
    cfi.fde(CODE + 0x10, 9, &marked);
    // Marked, but with an ordinary frame.
    cfi.fde(CODE + 0x20, 9, &[]);
    cfi.cie("zR", &INITIAL);
    // Neither marked nor told by its rules; and one that begins early already.
    cfi.fde(CODE + 0x30, 9, &[]);
    cfi.fde(CODE + 0x4f, 10, &marked);
    let mut code = [0x90; 0x100];
    for at in [0x30, 0x50, 0x80] {
        code[at..at + 9].copy_from_slice(&RT_SIGRETURN);
    }
    let table = compile(&TestElf::new(&code, cfi).bytes(), ALL).unwrap();
    let signal = Rule::SIGNAL;
    assert_eq!(rules(&table, [0xf, 0x10, 0x18]), [signal; 3]);
    assert_eq!(rules(&table, [0x1f, 0x28]), [sp(8); 2]);
    assert_eq!(rules(&table, [0x2e, 0x2f, 0x38]), [sp(8), signal, signal]);
    assert_eq!(rules(&table, [0x4f, 0x58]), [signal; 2]);
    // In a gap, by its code alone.
    assert_eq!(
        rules(&table, [0x7e, 0x7f, 0x88, 0x89]),
        [Rule::NO_INFO, signal, signal, Rule::NO_INFO]
    );
}

#[test]
fn stacks_of_makecontext_end_where_they_begin() {
    let mut cfi = Cfi::eh_frame("zR");
    cfi.fde(CODE, 0x15, &cfa_offset(32));
    // glibc's has no instructions: the frame address would be rsp + 8.
    cfi.fde(CODE + 0x20, 0x1a, &[]);
    cfi.fde(CODE + 0x40, 0x20, &[]);
    let mut code = [0x90; 0x100];
    code[0x20..0x27].copy_from_slice(&[0x48, 0x89, 0xdc, 0x48, 0x8b, 0x3c, 0x24]);
    let file = TestElf::new(&code, cfi).bytes();
    for options in [ALL, CompileOptions::default()] {
        let table = compile(&file, options).unwrap();
        assert_eq!(rules(&table, [0x1f, 0x20, 0x39]), [Rule::END; 3]);
    }
    let table = compile(&file, ALL).unwrap();
    assert_eq!(rules(&table, [0x14, 0x1e, 0x40]), [sp(32), sp(32), sp(8)]);
}

#[test]
fn what_cannot_be_expressed_is_counted_by_reason() {
    let mut cfi = Cfi::eh_frame("zR");
    cfi.fde(CODE, 0x10, &[0x0c, 10, 8]); // def_cfa r10
    cfi.fde(CODE + 0x10, 0x11, &[0x0f, 1, 0x77]); // an expression cut short
    cfi.fde(CODE + 0x21, 0x12, &[0x09, 16, 2]); // rip in rcx
    cfi.fde(CODE + 0x33, 0x13, &[0x0c, 7, 0xff, 0xff, 0xff, 0xff, 0x7f]); // rsp + 32 GiB
    cfi.fde(CODE + 0x46, 0x14, &[advance(4), 0x0b]); // restore_state without a state
    cfi.fde(CODE + 0x5a, 0x15, &[0x87, 3]); // rsp saved
    cfi.fde(CODE + 0x6f, 0x16, &[0x90, 2]); // rip at CFA − 16
    let table = compile(&TestElf::new(&[0x90; 0x100], cfi).bytes(), ALL).unwrap();
    let bytes = Unsupported::ALL.map(|reason| table.statistics().unsupported(reason));
    assert_eq!(bytes, [0x10, 0x11, 0x13, 0x12, 0x16, 0x15, 0x10]);
    assert_eq!(
        rules(&table, [0, 0x46, 0x4a, 0x6f]),
        [Rule::UNSUPPORTED, sp(8), Rule::UNSUPPORTED, Rule::UNSUPPORTED]
    );
    assert_eq!(table.statistics().malformed, 1);
}

#[test]
fn unspecified_is_kept_and_undefined_is_lost() {
    let mut cfi = Cfi::eh_frame("zR");
    cfi.fde(CODE, 0x10, &[]);
    cfi.fde(CODE + 0x10, 0x10, &[0x07, 6]);
    cfi.fde(CODE + 0x20, 0x10, &[0x08, 6]);
    // gcc's realigned stack: CFA = *(rbp − 8), rbp at rbp + 0.
    cfi.fde(
        CODE + 0x30,
        0x10,
        &[0x0f, 3, 0x76, 0x78, 0x06, 0x10, 6, 2, 0x76, 0],
    );
    let table = compile(&TestElf::new(&[0x90; 0x40], cfi).bytes(), ALL).unwrap();
    let lost = Rule {
        rbp_kind: rbp::LOST,
        ..sp(8)
    };
    let realigned = Rule {
        cfa_offset: -8,
        rbp_kind: rbp::AT_RBP,
        ..Rule::of_kind(cfa::DEREF_BP)
    };
    assert_eq!(
        rules(&table, [0, 0x10, 0x20, 0x30]),
        [sp(8), lost, sp(8), realigned]
    );
    assert_eq!(table.statistics().rbp_lost_bytes, 0x10);
}

#[test]
fn rows_without_calls_are_dropped() {
    let mut code = vec![0x90; 0x4100];
    code[0x20..0x22].copy_from_slice(&[0xff, 0xd0]);
    // A call across the end of the page: its return address, less one, is on the next.
    code[0x3ffd..0x4002].copy_from_slice(&[0xe8, 0, 0, 0, 0]);
    let mut cfi = Cfi::eh_frame("zR");
    cfi.fde(
        CODE,
        0x40,
        &[&prologue()[..], &[advance(0x3b), 0x0c, 7, 8, 0xc6]].concat(),
    );
    cfi.fde(CODE + 0x40, 0x4080, &[0x0e, 16, 0x03, 0xd0, 0x3f, 0x0e, 24]);
    let file = TestElf::new(&code, cfi).bytes();
    let table = compile(&file, CompileOptions::default()).unwrap();
    assert_eq!(
        rules(&table, [0x20, 0x21, 0x3fff, 0x4001]),
        [FRAME, FRAME, sp(16), sp(16)]
    );
    assert_eq!(
        (table.statistics().rows_merged, table.statistics().rows_kept),
        (7, 3)
    );
    assert_eq!(
        rules(&compile(&file, ALL).unwrap(), [0, 0x3f, 0x4010]),
        [sp(8), sp(8), sp(24)]
    );
}
