//! Why a kernel refuses a program, in words: what it lacks, and since when kernels have it.

/// What the last line of a verifier's account means, where that is known; else the line.
pub(super) fn in_words(line: &str) -> &str {
    // `invalid func unknown#180` where the kernel does not know the helper,
    // `unknown func bpf_find_vma#180` where this kind of program may not call it.
    let is_helper = |number: &str| line.contains("unknown") && line.ends_with(number);
    if line.contains("BPF_STX uses reserved fields") {
        return "it has no atomic operations that return a value; Linux 5.12 and later have";
    }
    if is_helper("#180") {
        return "it cannot be asked which file an address is of (bpf_find_vma); Linux 5.17 and later can";
    }
    if is_helper("#158") {
        return "it does not tell the current task (bpf_get_current_task_btf); Linux 5.11 and later do";
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_old_kernels_lack_is_told() {
        for line in ["invalid func unknown#180", "unknown func bpf_find_vma#180"] {
            assert!(in_words(line).contains("Linux 5.17"), "{line}");
        }
        assert!(in_words("BPF_STX uses reserved fields").contains("Linux 5.12"));
        assert!(in_words("unknown func bpf_get_current_task_btf#158").contains("Linux 5.11"));
        let other = "R1 invalid mem access 'scalar'";
        assert_eq!(in_words(other), other);
    }
}
