//! The counters that each CPU has of processes: a cache line that all CPUs of a process write is
//! one that they all wait for.
//!
//! A word has the number of its process and the count, and is changed as one, since programs
//! interrupt one another. Where another process needs it, what it has is sent to user space, which
//! adds it to what it reads.

use tracer_ebpf::{CountWord, CountsRecord, PROCESS_WORDS, RecordKind};

use crate::{
    aggregate, atomic,
    bounds::mask,
    maps::{PROCESS_COUNTS, RECORDS},
};

/// Counts a hit of a process image. False if it has to be counted elsewhere.
#[inline(always)]
pub(crate) fn count_hit(process: u32) -> bool {
    add(process, HITS)
}

/// Counts a call of `free`, likewise.
#[inline(always)]
pub(crate) fn count_free(process: u32) -> bool {
    add(process, FREES)
}

/// What is counted: hits.
const HITS: u32 = 0;
/// Calls of `free`.
const FREES: u32 = 1;

/// Adds one to the word of a process.
#[inline(always)]
fn add(process: u32, what: u32) -> bool {
    let Some(word) = word(process, what) else {
        return false;
    };
    // SAFETY: the pointer is into a map value. It is changed by whole words alone.
    let before = unsafe { core::ptr::read_volatile(word) };
    let CountWord {
        process: owner,
        count,
    } = CountWord::unpack(before);
    if owner == process && count != u32::MAX {
        // SAFETY: as above.
        return unsafe { atomic::replace(word, before, before + 1) };
    }
    begin_count(process, what) != 0
}

/// The word that counts this of a process, or of another one.
#[inline(always)]
fn word(process: u32, what: u32) -> Option<*mut u64> {
    let counts = PROCESS_COUNTS.get_ptr_mut(0)?;
    let index = mask::<{ PROCESS_WORDS as u64 - 1 }>(process as u64) as usize;
    // SAFETY: a pointer to a map value; the index is masked to the arrays' length, a power of two.
    unsafe {
        let words = if what == HITS {
            &raw mut (*counts).hits
        } else {
            &raw mut (*counts).frees
        };
        Some(words.cast::<u64>().add(index))
    }
}

/// Gives a process the word that is another one's, or nobody's, or is full, and counts the first in
/// it. 0 if that cannot be.
///
/// A global function, so that the verifier checks it once.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn begin_count(process: u32, what: u32) -> u32 {
    let Some(word) = word(process, what) else {
        return 0;
    };
    // SAFETY: as in `add`.
    let before = unsafe { core::ptr::read_volatile(word) };
    let first = CountWord { process, count: 1 }.pack();
    if before == 0 {
        // SAFETY: as in `add`.
        return u32::from(unsafe { atomic::replace(word, before, first) });
    }
    let Some(mut entry) = RECORDS.reserve::<CountsRecord>(0) else {
        return 0;
    };
    let CountWord {
        process: owner,
        count,
    } = CountWord::unpack(before);
    // SAFETY: the reserved bytes are this program's own until they are submitted, and every field
    // is written.
    unsafe {
        entry.as_mut_ptr().write(CountsRecord {
            kind: RecordKind::Counts as u32,
            process: owner,
            hits: if what == HITS { count } else { 0 },
            frees: if what == HITS { 0 } else { count },
        });
    }
    // SAFETY: as in `add`.
    if unsafe { atomic::replace(word, before, first) } {
        entry.submit(aggregate::record_flags(false));
        1
    } else {
        // Another program of this CPU has changed it meanwhile.
        entry.discard(0);
        0
    }
}
