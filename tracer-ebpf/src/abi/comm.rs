//! Names of processes as the kernel has them (`task_struct.comm`).

/// Bytes of a name, with the zero at its end.
const COMM_BYTES: usize = 16;

/// A name, padded with zeros.
pub type Comm = [u8; COMM_BYTES];

/// The name that a process has whose program is named so: the kernel cuts what is longer.
#[must_use]
pub const fn comm_of(name: &[u8]) -> Comm {
    let mut comm = [0; COMM_BYTES];
    let mut at = 0;
    while at < name.len() && at < COMM_BYTES - 1 {
        comm[at] = name[at];
        at += 1;
    }
    comm
}

/// Compares names in one step, which is cheap for the verifier too.
#[inline]
#[must_use]
pub fn is_same_comm(a: &Comm, b: &Comm) -> bool {
    u128::from_ne_bytes(*a) == u128::from_ne_bytes(*b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_padded_and_cut() {
        assert_eq!(comm_of(b"su"), *b"su\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(comm_of(b"0123456789abcdefg"), *b"0123456789abcde\0");
        assert!(is_same_comm(&comm_of(b"su"), &comm_of(b"su")));
        assert!(!is_same_comm(&comm_of(b"su"), &comm_of(b"sum")));
    }
}
