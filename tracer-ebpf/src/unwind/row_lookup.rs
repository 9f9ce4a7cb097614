//! Unwind tables: from an address to the rule of its frame. Layout: [`tracer_ebpf::unwind`].

use tracer_ebpf::unwind::{CHUNK_ROWS, CHUNK_SHIFT, PAGE_SHIFT, Rule, SEARCH_STEPS, row_rule, search_key};

use super::mapping::CodeMapping;
use crate::{
    bounds::mask,
    maps::{PAGES, ROWS, RULES},
};

/// The rule of an address; nothing outside the table.
#[inline(always)]
pub(super) fn rule_at(mapping: &CodeMapping, address: u64) -> Option<&'static Rule> {
    let relative = address.wrapping_sub(mapping.bias);
    let page = relative >> PAGE_SHIFT;
    if page >= mapping.page_count as u64 {
        return None;
    }
    // SAFETY: pointers from look-ups are to map values; the search stays inside the chunk by
    // masking.
    unsafe {
        let entry = &*PAGES.get_ptr(mapping.page_base.wrapping_add(page as u32))?;
        let offset = (relative & ((1 << PAGE_SHIFT) - 1)) as u32;
        let (first, count) = entry.part(offset);
        let rows = ROWS.get_ptr(first >> CHUNK_SHIFT)?.cast::<u32>();
        let above = search_key(offset) as u64 + 1;
        let mut base = first as u64;
        let mut count = count as u64;
        let mut turn = 0;
        while turn < SEARCH_STEPS {
            if count <= 1 {
                break;
            }
            let half = count >> 1;
            let middle = mask::<{ CHUNK_ROWS as u64 - 1 }>(base + half);
            let row = *rows.add(middle as usize) as u64;
            base += half & below(row, above);
            count -= half;
            turn += 1;
        }
        let index = mask::<{ CHUNK_ROWS as u64 - 1 }>(base);
        let row = *rows.add(index as usize);
        Some(&*RULES.get_ptr(row_rule(row))?)
    }
}

/// All ones if `a < b`, else 0, for numbers below 2^63: without a branch, of which a search has so
/// many that the verifier would follow thousands of ways.
#[inline(always)]
fn below(a: u64, b: u64) -> u64 {
    let mut difference = a;
    // SAFETY: two ALU instructions on registers; no memory, no stack. In assembly, since LLVM turns
    // a select back into a branch.
    unsafe {
        core::arch::asm!(
            "{0} -= {1}",
            "{0} s>>= 63",
            inout(reg) difference,
            in(reg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    difference
}
