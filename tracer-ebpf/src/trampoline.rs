//! Return addresses that another tracer's return probe has replaced by the kernel's trampoline.
//!
//! Such a probe writes the trampoline's address over the return address as soon as the function is
//! entered: whoever reads it later, inside the function, finds the trampoline. The kernel keeps the
//! original, in a list of the thread's (`struct return_instance` in `include/linux/uprobes.h`), the
//! innermost call first.

use aya_ebpf::helpers::generated::bpf_get_current_task;

use crate::{kernel::word, settings};

/// The page of the trampoline. The kernel puts it as high as there is room (`xol_add_vma` in
/// `kernel/events/uprobes.c`), which is the last page but one of a process's addresses, since
/// stacks begin below it.
const TRAMPOLINE: u64 = 0x7fff_ffff_e000;

/// The most entries of the list that are searched: calls of functions with such a probe, one in the
/// other.
const MAX_INSTANCES: u32 = 8;

/// Whether a return address is the trampoline's.
#[inline(always)]
pub(crate) fn is_trampoline(return_address: u64) -> bool {
    return_address >> 12 == TRAMPOLINE >> 12
}

/// The return address that a probe has replaced at this place of the stack; 0 where it is not
/// known.
///
/// A global function, so that the verifier checks it once.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn original_return_address(stack_pointer: u64) -> u64 {
    let offsets = settings::offsets();
    if offsets.return_address == 0 {
        return 0;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let mut instance = word(word(task, offsets.task_uprobes), offsets.uprobes_returns);
    let mut turn = 0;
    while turn < MAX_INSTANCES && instance != 0 {
        if word(instance, offsets.return_stack) == stack_pointer {
            let address = word(instance, offsets.return_address);
            // Of several probes at one place the first knows.
            if !is_trampoline(address) {
                return address;
            }
        }
        instance = word(instance, offsets.return_next);
        turn += 1;
    }
    0
}
