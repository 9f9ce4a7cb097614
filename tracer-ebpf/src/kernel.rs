//! Reading members of the kernel's structures.

use aya_ebpf::helpers::bpf_probe_read_kernel;

/// The eight bytes at an offset in a structure; 0 where they cannot be read, so that chains of
/// pointers end.
#[inline(always)]
pub(crate) fn word(base: u64, offset: u32) -> u64 {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel((base + offset as u64) as *const u64) }.unwrap_or(0)
}

/// The four bytes; likewise.
#[inline(always)]
pub(crate) fn half(base: u64, offset: u32) -> u32 {
    // SAFETY: as in `word`.
    unsafe { bpf_probe_read_kernel((base + offset as u64) as *const u32) }.unwrap_or(0)
}
