//! Signal trampolines, recognised by their code: what a handler returns to, which does nothing
//! but call `rt_sigreturn`. glibc marks its own in `.eh_frame`, musl and others have no unwind
//! information for theirs.

/// `mov $15, %rax; syscall` (glibc, musl: as assembled from `restore.s`).
const LONG: &[u8] = &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
/// `mov $15, %eax; syscall`.
const SHORT: &[u8] = &[0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05];

/// No function that is longer is looked at: a trampoline is its two instructions.
pub(crate) const MAX_TRAMPOLINE_BYTES: u32 = 16;

/// The length of the trampoline that code begins with, in bytes.
pub(crate) fn trampoline_len(code: &[u8]) -> Option<u32> {
    if code.starts_with(LONG) {
        Some(9)
    } else if code.starts_with(SHORT) {
        Some(7)
    } else {
        None
    }
}

/// All trampolines in code: (offset, length), both in bytes.
pub(crate) fn trampolines(code: &[u8]) -> impl Iterator<Item = (usize, u32)> {
    code.windows(SHORT.len())
        .enumerate()
        .filter_map(move |(at, window)| {
            let candidate = window
                .first()
                .is_some_and(|first| *first == SHORT[0] || *first == LONG[0]);
            if !candidate {
                return None;
            }
            Some((at, trampoline_len(code.get(at..)?)?))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trampolines_are_found_anywhere() {
        let code = [&[0x90; 5][..], LONG, &[0x0f, 0x1f], SHORT].concat();
        assert_eq!(trampolines(&code).collect::<Vec<_>>(), [(5, 9), (16, 7)]);
        assert_eq!(trampoline_len(&LONG[1..]), None);
        assert_eq!(trampolines(&LONG[..8]).count(), 0, "cut short");
    }
}
