//! The ring of copied stacks: walks that user space is to finish.

use tracer_ebpf::{CopyHeader, CopyRecord, WINDOW_BYTES};
use zerocopy::FromBytes as _;

use super::error::BpfError;
use super::object::Object;
use super::ring::Ring;

/// A copy of a stack, and where its walk had got to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedStack {
    /// Whose it is, and the registers.
    pub header: CopyHeader,
    /// The stack from [`CopyHeader::base`] on.
    pub bytes: Vec<u8>,
}

/// The user side of the ring.
#[expect(missing_debug_implementations, reason = "aya's ring has none")]
pub struct Copies {
    ring: Ring,
}

impl Copies {
    /// Takes the ring; it can be taken once, and inside an event loop.
    pub fn take_ring(object: &mut Object) -> Result<Self, BpfError> {
        let ring = Ring::take(object, "COPIES")?;
        Ok(Self { ring })
    }

    /// Waits until the kernel side calls, for a ring that fills up.
    pub async fn urgent(&mut self) -> std::io::Result<()> {
        self.ring.called().await
    }

    /// Takes the next copy, if there is one.
    pub fn take(&mut self) -> Option<CopiedStack> {
        let item = self.ring.next()?;
        let copied = parse(&item);
        if copied.is_none() {
            log::error!("a copied stack of {} bytes cannot be read", item.len());
        }
        copied
    }
}

fn parse(bytes: &[u8]) -> Option<CopiedStack> {
    if bytes.len() != size_of::<CopyRecord>() {
        return None;
    }
    let (header, stack) = CopyHeader::read_from_prefix(bytes).ok()?;
    let copied = (header.pages as usize).checked_mul(WINDOW_BYTES)?;
    Some(CopiedStack {
        header,
        bytes: stack.get(..copied)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        for word in 1..=6u64 {
            bytes.extend(word.to_ne_bytes());
        }
        for half in [7u32, 8, 1, 3, 4, 0] {
            bytes.extend(half.to_ne_bytes());
        }
        bytes.resize(size_of::<CopyRecord>(), 9);
        let copied = parse(&bytes).expect("a record");
        let expected = CopyHeader {
            stack: 1,
            time_ns: 2,
            instruction: 3,
            stack_pointer: 4,
            frame_pointer: 5,
            base: 6,
            tgid: 7,
            process: 8,
            pages: 1,
            flags: 3,
            frames_len: 4,
            reserved: 0,
        };
        assert_eq!(copied.header, expected);
        assert_eq!(copied.bytes, [9; WINDOW_BYTES]);
        assert_eq!(parse(&bytes[..bytes.len() - 1]), None);
    }
}
