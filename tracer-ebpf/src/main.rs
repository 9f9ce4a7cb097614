//! memtap's eBPF programs. Built for `bpfel-unknown-none` by `tracer/build.rs`; on the host this is
//! an empty program, so that the workspace builds as a whole.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    allow(
        internal_features,
        reason = "the bpf target has no core::sync::atomic read-modify-write: the intrinsics are the only way"
    )
)]
#![cfg_attr(
    target_arch = "bpf",
    allow(
        clippy::inline_always,
        reason = "calls between functions are limited, and the verifier loses track of pointers across them"
    )
)]
#![cfg_attr(
    target_arch = "bpf",
    allow(
        clippy::needless_pass_by_value,
        reason = "the macros of aya-ebpf make the context and pass it by value"
    )
)]
#![cfg_attr(
    target_arch = "bpf",
    allow(
        clippy::needless_borrows_for_generic_args,
        reason = "a value given to a map by reference is not copied once more on the stack of 512 bytes"
    )
)]
#![cfg_attr(
    target_arch = "bpf",
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_lossless,
        reason = "helpers pack two numbers in a word and take their sizes as u32; From is not const-folded early"
    )
)]

#[cfg(target_arch = "bpf")]
mod aggregate;
#[cfg(target_arch = "bpf")]
mod atomic;
#[cfg(target_arch = "bpf")]
mod bounds;
#[cfg(target_arch = "bpf")]
mod heap;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod loss;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod probes;
#[cfg(target_arch = "bpf")]
mod process;
#[cfg(target_arch = "bpf")]
mod process_counts;
#[cfg(target_arch = "bpf")]
mod sampler;
#[cfg(target_arch = "bpf")]
mod settings;
#[cfg(target_arch = "bpf")]
mod shards;
#[cfg(target_arch = "bpf")]
mod stop;
#[cfg(target_arch = "bpf")]
mod tail_call;
#[cfg(target_arch = "bpf")]
mod thread_stack;
#[cfg(target_arch = "bpf")]
mod trampoline;
#[cfg(target_arch = "bpf")]
mod unwind;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// The kernel gives helpers that read memory to programs under a GPL-compatible licence alone.
#[cfg(target_arch = "bpf")]
// SAFETY: the section is read by the loader, which expects a NUL-terminated string there; no other
// item has it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // The verifier proves that this cannot be reached: a program that could loop here does not
    // load.
    loop {}
}
