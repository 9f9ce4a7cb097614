//! Programs that do nothing: what a hit costs without them is what the kernel takes for the trap
//! alone. They need no `thread_stack`, since they have no variables.

use aya_ebpf::{
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};

/// At an instruction.
#[uprobe]
pub(crate) fn cost_entry(_: ProbeContext) -> u32 {
    0
}

/// At a function's return.
#[uretprobe]
pub(crate) fn cost_return(_: RetProbeContext) -> u32 {
    0
}
