//! One step: from a frame to its caller.

use tracer_ebpf::unwind::{
    FRAME_POINTER_REACH_BYTES, Rule, UCONTEXT_RBP, UCONTEXT_RIP, UCONTEXT_RSP, cfa, rbp,
};
use tracer_ebpf::{FileTable, MAX_FRAMES, StackEnd};

use super::{MORE, Scratch, UNFINISHED, mapping, row_lookup, rule_cache, stack_window, walk_cache};
use crate::{maps::SCRATCH, settings};

/// Nothing is mapped below this (`vm.mmap_min_addr`): a smaller number is no address.
const LEAST_ADDRESS: u64 = 4096;

/// The largest frame that a chain of frame pointers alone is believed: what main threads may have
/// of stack.
const MAX_FRAME_BYTES: u64 = 8 << 20;

/// Frames that one call walks: a call, and finding the slot, cost about a sixth of what a frame
/// does.
pub(super) const AT_ONCE: usize = 2;

/// Walks a few frames. Returns [`MORE`], [`UNFINISHED`], or a [`StackEnd`].
///
/// A global function, so that the verifier checks it once and not for every turn of the loop that
/// calls it (Linux 5.6).
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn step_stack(slot: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot) else {
        return StackEnd::ReadFault as u32;
    };
    let mut turn = 0;
    while turn < AT_ONCE {
        // SAFETY: the caller owns the slot of this index on this CPU; programs do not migrate.
        let outcome = unsafe {
            if settings::by_tables() {
                by_table(slot, scratch)
            } else {
                by_frame_pointer(scratch, MAX_FRAME_BYTES)
            }
        };
        match outcome {
            Ok(MORE) => {}
            Ok(answer) => return answer,
            Err(end) => return end as u32,
        }
        turn += 1;
    }
    MORE
}

/// # Safety
/// `scratch` must be that of `slot`, which the caller owns.
#[inline(always)]
unsafe fn by_table(slot: u32, scratch: *mut Scratch) -> Result<u32, StackEnd> {
    // SAFETY: the caller's promise.
    unsafe {
        let address = (*scratch).instruction - (*scratch).is_return as u64;
        if (*scratch).is_return != 0
            && let Some(rule) = rule_cache::cached_rule(scratch, address)
        {
            return by_rule(scratch, rule, address);
        }
        let index = (*scratch).find_mapping(slot, address);
        let mut nowhere = StackEnd::NoMapping;
        let mut rule = None;
        if index == mapping::UNTOLD {
            if (*scratch).copy_refused == 0 {
                return Ok(UNFINISHED);
            }
        } else if index != mapping::NONE {
            let found = (*scratch).mapping(index);
            nowhere = StackEnd::NoTable;
            if found.page_count == mapping::AWAITED {
                if (*scratch).copy_refused == 0 {
                    return Ok(UNFINISHED);
                }
                // Until the table is there, frame pointers are what there is.
                (*scratch).table_awaited = 1;
            } else if found.page_count != 0 {
                if (*scratch).is_return == 0 && found.rows != FileTable::ROWS_ALL {
                    // The interrupted function may be anywhere, and the rows for that are not here.
                    if found.rows == FileTable::ROWS_OF_CALLS_YET && (*scratch).copy_refused == 0 {
                        return Ok(UNFINISHED);
                    }
                    (*scratch).through_signal = 1;
                }
                nowhere = StackEnd::NoRow;
                rule = row_lookup::rule_at(found, address);
            }
        }
        match rule {
            Some(rule) if rule.cfa_kind != cfa::NO_INFO => {
                if (*scratch).is_return != 0 {
                    rule_cache::cache_rule(scratch, address, rule);
                }
                by_rule(scratch, rule, address)
            }
            _ => {
                let frame = (*scratch).frame_pointer;
                let known = (*scratch).frame_pointer_known != 0;
                if known && frame == 0 && nowhere as u32 == StackEnd::NoRow as u32 {
                    // The ABI marks the outermost frame so (System V AMD64, 3.4.1), and start-up
                    // code, like the dynamic loader's, often says nothing else of itself.
                    return Err(StackEnd::Complete);
                }
                if !settings::by_frame_pointers_too()
                    || !known
                    || frame & 7 != 0
                    || frame.wrapping_sub((*scratch).stack_pointer) > FRAME_POINTER_REACH_BYTES
                {
                    return Err(nowhere);
                }
                if (*scratch).is_return == 0 {
                    // The frame pointer may not be the interrupted function's own yet.
                    (*scratch).through_signal = 1;
                }
                by_frame_pointer(scratch, FRAME_POINTER_REACH_BYTES)
            }
        }
    }
}

/// The caller by a rule of a table.
///
/// # Safety
/// As for [`by_table`].
#[inline(always)]
unsafe fn by_rule(scratch: *mut Scratch, rule: &Rule, address: u64) -> Result<u32, StackEnd> {
    // SAFETY: the caller's promise.
    unsafe {
        let stack_pointer = (*scratch).stack_pointer;
        let frame = match rule.cfa_kind {
            cfa::SP => plus(stack_pointer, rule.cfa_offset),
            cfa::BP => plus(frame_pointer(scratch)?, rule.cfa_offset),
            cfa::END => return Err(StackEnd::Complete),
            cfa::PLT => {
                let pushed = u64::from((address & 15).cast_signed() >= rule.cfa_add as i64) << 3;
                plus(stack_pointer, rule.cfa_offset) + pushed
            }
            cfa::SIGNAL => return by_signal_frame(scratch, stack_pointer),
            cfa::DEREF_SP => plus(read(scratch, plus(stack_pointer, rule.cfa_offset))?, rule.cfa_add),
            cfa::DEREF_BP => {
                let base = frame_pointer(scratch)?;
                plus(read(scratch, plus(base, rule.cfa_offset))?, rule.cfa_add)
            }
            _ => return Err(StackEnd::Unsupported),
        };
        // A frame that is found by what the code has kept may be on another stack, below or above:
        // code that runs on a stack of its own choice begins so. One that is counted from the stack
        // pointer lies above.
        let may_be_elsewhere = rule.cfa_kind != cfa::SP && rule.cfa_kind != cfa::PLT;
        if frame == stack_pointer || (frame < stack_pointer && !may_be_elsewhere) {
            return Err(StackEnd::NoProgress);
        }
        let saved = match rule.rbp_kind {
            rbp::AT_CFA => Some(read(scratch, plus(frame, rule.rbp_offset))?),
            rbp::AT_RBP => {
                let base = frame_pointer(scratch)?;
                Some(read(scratch, plus(base, rule.rbp_offset))?)
            }
            _ => None,
        };
        let return_address = read(scratch, frame.wrapping_sub(8))?;
        if return_address == 0 {
            return Err(StackEnd::Complete);
        }
        if let Some(saved) = saved {
            (*scratch).frame_pointer = saved;
            (*scratch).frame_pointer_known = 1;
        } else if rule.rbp_kind == rbp::LOST {
            (*scratch).frame_pointer_known = 0;
        }
        (*scratch).stack_pointer = frame;
        Ok((*scratch).push(return_address, 1))
    }
}

/// The interrupted frame behind a signal handler's.
///
/// # Safety
/// As for [`by_table`].
#[inline(always)]
unsafe fn by_signal_frame(scratch: *mut Scratch, context: u64) -> Result<u32, StackEnd> {
    // SAFETY: the caller's promise.
    unsafe {
        let frame_pointer = read(scratch, context.wrapping_add(UCONTEXT_RBP))?;
        let stack_pointer = read(scratch, context.wrapping_add(UCONTEXT_RSP))?;
        let instruction = read(scratch, context.wrapping_add(UCONTEXT_RIP))?;
        if instruction == 0 {
            return Err(StackEnd::Complete);
        }
        (*scratch).frame_pointer = frame_pointer;
        (*scratch).frame_pointer_known = 1;
        (*scratch).stack_pointer = stack_pointer;
        Ok((*scratch).push(instruction, 0))
    }
}

/// The caller by a chain of frame pointers: each frame holds the address of the frame before and
/// its own return address.
///
/// # Safety
/// As for [`by_table`].
#[inline(always)]
unsafe fn by_frame_pointer(scratch: *mut Scratch, reach_bytes: u64) -> Result<u32, StackEnd> {
    // SAFETY: the caller's promise.
    unsafe {
        let frame = (*scratch).frame_pointer;
        if frame < LEAST_ADDRESS {
            // The ABI marks the outermost frame with zero (System V AMD64, 3.4.1); libc's start-up
            // code has a small number there instead when it calls `main`.
            return Err(StackEnd::Complete);
        }
        let distance = frame.wrapping_sub((*scratch).stack_pointer);
        if frame & 7 != 0 || distance > reach_bytes {
            return Err(StackEnd::FramePointer);
        }
        let Some([outer, return_address]) = stack_window::pair(scratch, frame) else {
            return Err(StackEnd::ReadFault);
        };
        if return_address == 0 {
            return Err(StackEnd::Complete);
        }
        if (*scratch).record.header.frames_len as usize >= MAX_FRAMES {
            return Err(StackEnd::Truncated);
        }
        walk_cache::note(&mut *scratch, frame, outer);
        walk_cache::note(&mut *scratch, frame + 8, return_address);
        (*scratch).stack_pointer = frame + 16;
        (*scratch).frame_pointer = outer;
        Ok((*scratch).push(return_address, 1))
    }
}

/// # Safety
/// As for [`by_table`].
#[inline(always)]
unsafe fn frame_pointer(scratch: *const Scratch) -> Result<u64, StackEnd> {
    // SAFETY: the caller's promise.
    unsafe {
        if (*scratch).frame_pointer_known == 0 {
            return Err(StackEnd::RbpLost);
        }
        Ok((*scratch).frame_pointer)
    }
}

/// A word of the stack, which the walk from now on depends on.
///
/// # Safety
/// As for [`by_table`].
#[inline(always)]
unsafe fn read(scratch: *mut Scratch, address: u64) -> Result<u64, StackEnd> {
    // SAFETY: the caller's promise.
    unsafe {
        let word = stack_window::word(scratch, address).ok_or(StackEnd::ReadFault)?;
        walk_cache::note(&mut *scratch, address, word);
        Ok(word)
    }
}

#[inline(always)]
fn plus(base: u64, offset: i32) -> u64 {
    base.wrapping_add_signed(offset as i64)
}
