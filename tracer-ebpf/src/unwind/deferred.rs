//! Walks that user space finishes: they came to code whose table is still being made, or whose
//! mapping the kernel could not be asked for. A copy of the stack is sent, and where the walk had
//! got to.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::generated::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_user},
};
use tracer_ebpf::{COPY_PAGES, CopyHeader, CopyRecord, Counter, StackEnd, WINDOW_BYTES, identity};

use super::{MORE, walk_cache};
use crate::{
    atomic,
    loss::count,
    maps::{COPIES, COPY_COUNT, SCRATCH},
    settings,
};

/// The provisional end of a walk that user space is to finish. The frames so far stand if it
/// cannot.
const UNTIL_FINISHED: StackEnd = StackEnd::NoTable;

/// Sends a copy of the slot's stack. Returns how the walk ended, or [`MORE`] where it goes on by
/// what there is: no copy could be sent, or a signal's frame was crossed and the rows at hand may
/// do.
///
/// A global function, so that the verifier checks it once.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn send_copy(slot: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot) else {
        return StackEnd::ReadFault as u32;
    };
    // SAFETY: the caller owns the slot.
    let scratch = unsafe { &mut *scratch };
    scratch.copy_refused = 1;
    let Some(made) = COPY_COUNT.get_ptr_mut(0) else {
        return MORE;
    };
    // SAFETY: the pointer is to a map value that is only ever added to.
    let number = unsafe { atomic::fetch_add(made, 1) };
    if number >= settings::copies_max() as u64 {
        return MORE;
    }
    let Some(mut entry) = COPIES.reserve::<CopyRecord>(0) else {
        return MORE;
    };
    // No two copies are the same stack until user space says so: what lies above is not known.
    scratch.provisional = identity::finish(identity::mix(!number), UNTIL_FINISHED as u32);
    walk_cache::evict(scratch);
    let base = scratch.stack_pointer & !(WINDOW_BYTES as u64 - 1);
    let record = entry.as_mut_ptr();
    let mut flags = 0;
    if scratch.is_return != 0 {
        flags |= CopyHeader::IS_RETURN;
    }
    if scratch.frame_pointer_known != 0 {
        flags |= CopyHeader::FRAME_POINTER_KNOWN;
    }
    if scratch.through_signal != 0 {
        flags |= CopyHeader::THROUGH_SIGNAL;
    }
    let mut pages = 0;
    // SAFETY: the record is ours until it is submitted, all offsets into it are less than its size,
    // and the helper checks the user's addresses.
    unsafe {
        while pages < COPY_PAGES {
            let at = pages * WINDOW_BYTES;
            let to = (&raw mut (*record).bytes).cast::<u8>().add(at);
            let from = (base + at as u64) as *const core::ffi::c_void;
            if bpf_probe_read_user(to.cast(), WINDOW_BYTES as u32, from) != 0 {
                break;
            }
            pages += 1;
        }
        let header = &raw mut (*record).header;
        (*header).stack = scratch.provisional;
        (*header).time_ns = bpf_ktime_get_ns();
        (*header).instruction = scratch.instruction;
        (*header).stack_pointer = scratch.stack_pointer;
        (*header).frame_pointer = scratch.frame_pointer;
        (*header).base = base;
        (*header).tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*header).process = scratch.mapped_process;
        (*header).pages = pages as u32;
        (*header).flags = flags;
        (*header).frames_len = scratch.record.header.frames_len as u32;
    }
    // User space comes when the table is made; only a ring that fills up before calls it.
    let filling = COPIES.query(BPF_RB_AVAIL_DATA as u64) > COPIES.query(BPF_RB_RING_SIZE as u64) / 8;
    entry.submit(if filling {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    } as u64);
    count(Counter::StackCopied);
    if scratch.is_return == 0 {
        MORE
    } else {
        UNTIL_FINISHED as u32
    }
}
