//! Functions to be probed: they do next to nothing, so that what a call of them takes is what its
//! probe costs.

use std::arch::naked_asm;

/// Calls a function so often.
pub(super) fn call(function: extern "C" fn(), times: u32) {
    // Not inlined into one another, and no call is left out: the function is not known here.
    let function = std::hint::black_box(function);
    for _ in 0..times {
        function();
    }
}

// They differ, so that no linker makes one of them.

/// No probe is put here.
#[unsafe(naked)]
pub(super) extern "C" fn bare() {
    naked_asm!("push rax", "pop rax", "ret")
}

/// Its first instruction is one that the kernel emulates (`push_setup_xol_ops` of its
/// `arch/x86/kernel/uprobes.c`).
#[unsafe(naked)]
pub(super) extern "C" fn emulated() {
    naked_asm!("push rcx", "pop rcx", "ret")
}

/// Its first instruction must be single-stepped.
#[unsafe(naked)]
pub(super) extern "C" fn stepped() {
    naked_asm!("test edi, edi", "ret")
}

/// As `emulated`, for a probe of its return as well.
#[unsafe(naked)]
pub(super) extern "C" fn returning() {
    naked_asm!("push rdx", "pop rdx", "ret")
}
