//! The first function of a stack made by `makecontext`: glibc's `__start_context`.
//!
//! It was not called, so nothing is above it but the arguments and the link to the next context;
//! its unwind information says nothing of that, and takes the link for a return address. Its code
//! tells: the first thing that it does is to throw away the stack pointer that it was given.

/// `mov %rbx, %rsp` (glibc's `sysdeps/unix/sysv/linux/x86_64/__start_context.S`).
const START: &[u8] = &[0x48, 0x89, 0xdc];
/// `endbr64`, before it where glibc is built for indirect branch tracking.
const BRANCH_TARGET: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];

/// Returns true if a function with this code begins a stack.
pub(crate) fn is_context_start(code: &[u8]) -> bool {
    code.strip_prefix(BRANCH_TARGET)
        .unwrap_or(code)
        .starts_with(START)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_and_without_branch_tracking() {
        let rest = [0x48, 0x8b, 0x3c, 0x24];
        assert!(is_context_start(&[START, &rest].concat()));
        assert!(is_context_start(&[BRANCH_TARGET, START, &rest].concat()));
        assert!(!is_context_start(BRANCH_TARGET));
        assert!(!is_context_start(&START[..2]), "cut short");
        // leave, and mov %rsp, %rbx.
        assert!(!is_context_start(&[0xc9, 0xc3]));
        assert!(!is_context_start(&[0x48, 0x89, 0xe3]));
    }
}
